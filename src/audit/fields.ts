import type { AuditEntry, AuditFilter } from '../keys/ports/audit.ts';

/**
 * text: '' means unknown. flag: 0 or 1 in the canonical form. slot: a text with few distinct values. time: milliseconds
 * since 1970, 0 for none.
 */
export type FieldKind = 'text' | 'flag' | 'number' | 'slot' | 'micros' | 'time';

const NUMBERS: ReadonlySet<FieldKind> = new Set(['number', 'micros', 'time']);

type FieldName = Exclude<keyof AuditEntry, 'time'>;

export interface AuditField {
  readonly name: FieldName;
  readonly kind: FieldKind;
  /** ListAuditEvents can filter by this field. */
  readonly filter?: true;
  /** Present in every MongoDB document; other fields are left out when they have their default. */
  readonly always?: true;
  /** Newer than the first release: the canonical form omits it when it and all later fields have their defaults. */
  readonly later?: true;
}

/**
 * The one table of an event's fields except its time, in the order of the canonical form. Append new fields, marked
 * `later`. The canonical form, SQLite columns, MongoDB documents, messages and filters derive from it.
 */
export const AUDIT_FIELDS = [
  { name: 'method', kind: 'text', filter: true, always: true },
  { name: 'outcome', kind: 'text', filter: true, always: true },
  { name: 'reason', kind: 'text' },
  { name: 'keyId', kind: 'text', filter: true },
  { name: 'callerKeyId', kind: 'text', filter: true },
  { name: 'keyFingerprint', kind: 'text' },
  { name: 'requiredScope', kind: 'text' },
  { name: 'clientIp', kind: 'text', filter: true },
  { name: 'clientIpIsPeer', kind: 'flag' },
  { name: 'userAgent', kind: 'text' },
  { name: 'secretSlot', kind: 'slot', filter: true },
  { name: 'cost', kind: 'number', always: true },
  { name: 'dryRun', kind: 'flag' },
  { name: 'latencyMicros', kind: 'micros', always: true },
  { name: 'requestId', kind: 'text' },
  { name: 'refusedCalls', kind: 'number' },
  { name: 'count', kind: 'number', later: true },
  { name: 'firstTime', kind: 'time', later: true },
] as const satisfies readonly AuditField[];

type Row = (typeof AUDIT_FIELDS)[number];
type Nothing<Missing extends never> = Missing;
/** A compile error here names fields of the types in keys/ports/audit.ts that have no row above. */
export type FieldsWithoutRow = Nothing<Exclude<FieldName, Row['name']>>;
export type FiltersWithoutRow = Nothing<
  Exclude<keyof AuditFilter, Extract<Row, { filter: true }>['name'] | 'startTime' | 'endTime'>
>;

const ROWS: readonly AuditField[] = AUDIT_FIELDS;

/** The number of fields in every canonical form. */
const FIRST = ROWS.filter(({ later }) => later !== true).length;

/** The name of a column or a document's field: `keyId` → `key_id`. */
export type Column<Name extends string> = Name extends `${infer Head}${infer Rest}`
  ? `${Head extends Lowercase<Head> ? Head : `_${Lowercase<Head>}`}${Column<Rest>}`
  : Name;

export function columnOf<Name extends string>(name: Name): Column<Name> {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) as Column<Name>;
}

type FieldValue = string | number | boolean;

export function defaultOf({ kind }: AuditField): FieldValue {
  if (kind === 'flag') return false;
  return NUMBERS.has(kind) ? 0 : '';
}

/** The fields and values that a filter compares. */
export function equalities(filter: AuditFilter): { readonly name: FieldName; readonly value: string }[] {
  return ROWS.flatMap(({ name, filter: asked }) => {
    const value = asked === true ? filter[name as keyof AuditFilter] : undefined;
    return value === undefined ? [] : [{ name, value: String(value) }];
  });
}

/** Makes an entry with the values that `read` returns; undefined stands for the default. */
export function entryFrom(
  time: number,
  read: (field: AuditField, place: number) => FieldValue | undefined,
): AuditEntry {
  const values = ROWS.map((field, place) => [field.name, read(field, place) ?? defaultOf(field)]);
  return { time, ...Object.fromEntries(values) } as AuditEntry;
}

/** The index of a field in the canonical form. */
export function placeOf(name: FieldName): number {
  return ROWS.findIndex((field) => field.name === name);
}

/**
 * The canonical form of an event: its values except the time, in the order of the table, as a JSON array. This text is
 * hashed, and stored by the embedded store.
 */
export const eventText: (entry: AuditEntry) => string = compileEventText(ROWS);

/** Generates code with one array literal: a loop over the table costs each call a microsecond more. */
export function compileEventText(fields: readonly AuditField[]): (entry: AuditEntry) => string {
  const value = ({ name, kind }: AuditField) => (kind === 'flag' ? `e.${name} ? 1 : 0` : `e.${name}`);
  const lengths = fields.flatMap(({ later }, i) => (later === true ? [i + 1] : []));
  const shortest = fields.length - lengths.length;
  const array = (length: number) => `JSON.stringify([${fields.slice(0, length).map(value).join(', ')}])`;
  const longer = lengths.toReversed().map((length) => {
    const field = fields[length - 1] as AuditField;
    return `if (e.${field.name} !== ${JSON.stringify(defaultOf(field))}) return ${array(length)};`;
  });
  return new Function('e', `${longer.join('\n')} return ${array(shortest)};`) as (
    entry: AuditEntry,
  ) => string;
}

/** Values in the order of the table. */
export type EventValues = readonly (string | number)[];

/** The values of a canonical form. @throws SyntaxError */
export function valuesOf(text: string): EventValues {
  return JSON.parse(text);
}

/** Parses a canonical form. @param time milliseconds since 1970 */
export function parseEvent(time: number, text: string): AuditEntry {
  const values = valuesOf(text);
  return entryFrom(time, ({ kind }, place) => (kind === 'flag' ? values[place] === 1 : values[place]));
}

/** Whether a text is exactly the canonical form of an event. */
export function isCanonical(text: string): boolean {
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch {
    return false;
  }
  if (!Array.isArray(values) || values.length < FIRST || values.length > ROWS.length) return false;
  const isRight = (value: unknown, i: number) => {
    const { kind } = ROWS[i] as AuditField;
    if (kind === 'flag') return value === 0 || value === 1;
    return typeof value === (NUMBERS.has(kind) ? 'number' : 'string');
  };
  return values.every(isRight) && JSON.stringify(values) === text;
}
