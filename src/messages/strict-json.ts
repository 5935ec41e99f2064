import { type DescEnum, type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { Violations } from '../keys/errors.ts';
import { forAudit } from '../keys/text.ts';
import { MAX_FIELDS, MAX_MESSAGES, TOO_MANY_FIELDS, TOO_MANY_MESSAGES } from './message-size.ts';

/** Of 64 bits there are 20 digits at most: nothing longer becomes a number. */
const INTEGER = /^-?(0|[1-9]\d{0,19})$/;
const DURATION = /^-?(0|[1-9]\d{0,11})(\.\d{1,9})?s$/;
const MAX_DURATION_SECONDS = 315_576_000_000;
const TIMESTAMP =
  /^(\d{4}-\d{2}-\d{2})T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/;
const HALF = 'no halves of surrogate pairs';

const INTEGERS: ReadonlyMap<ScalarType, readonly [least: bigint, greatest: bigint]> = new Map([
  [ScalarType.INT32, [-(2n ** 31n), 2n ** 31n - 1n]],
  [ScalarType.INT64, [-(2n ** 63n), 2n ** 63n - 1n]],
  [ScalarType.UINT32, [0n, 2n ** 32n - 1n]],
  [ScalarType.UINT64, [0n, 2n ** 64n - 1n]],
]);
const [FIRST_TIME, LAST_TIME] = [Date.parse('0001-01-01T00:00:00Z'), Date.parse('9999-12-31T23:59:59.999Z')];

/** @throws INVALID_REQUEST for what looseJson finds */
export function refuseLooseJson(schema: DescMessage, json: unknown): void {
  looseJson(schema, json).throwIfAny();
}

/**
 * Looks at a JSON message before it is read: the library takes `1s1s` for a second, 30 February for a day of March and
 * "0x10" for 16, and where it refuses a value it names no field. Values are never told.
 */
export function looseJson(schema: DescMessage, json: unknown): Violations {
  const found = new Violations();
  new Walk(found).message(schema, json, '');
  return found;
}

class Walk {
  readonly #found: Violations;
  #fields = 0;

  constructor(found: Violations) {
    this.#found = found;
  }

  message(schema: DescMessage, json: unknown, at: string): void {
    const { typeName } = schema;
    if (typeName === 'google.protobuf.Timestamp')
      this.#check(isTime(json), at, 'a time of the years 1 to 9999 such as 2027-01-31T12:00:00Z');
    else if (typeName === 'google.protobuf.Duration')
      this.#check(isDuration(json), at, 'a duration such as 90s or 1.5s, at most 10 000 years');
    else if (typeName === 'google.protobuf.FieldMask') {
      if (this.#check(isMask(json), at, 'names of fields in lowerCamelCase with commas between'))
        this.#bounded((json as string).split(',').length, at);
    } else if (this.#check(isObject(json), at, 'an object')) this.#fieldsOf(schema, json as object, at);
  }

  #fieldsOf(schema: DescMessage, json: object, at: string): void {
    for (const [name, value] of Object.entries(json)) {
      const field = fieldOf(schema, name);
      // What is not known here is refused by the decoder, which names it.
      if (field === undefined || value === null) continue;
      if (!this.#counted(1, at)) return;
      this.#field(field, value, at === '' ? field.name : `${at}.${field.name}`);
    }
  }

  #field(field: DescField, json: unknown, at: string): void {
    if (field.fieldKind === 'list') {
      if (!this.#check(Array.isArray(json), at, 'a list')) return;
      const items = json as unknown[];
      if (field.listKind === 'message' && !this.#bounded(items.length, at)) return;
      if (!this.#counted(items.length, at)) return;
      for (const [i, item] of items.entries()) this.#value(field, item, `${at}[${i}]`);
    } else if (field.fieldKind === 'map') {
      if (!this.#check(isObject(json), at, 'an object')) return;
      const entries = Object.entries(json as object);
      if (!this.#bounded(entries.length, at)) return;
      for (const [name, value] of entries) {
        this.#check(name.isWellFormed(), at, `in its keys ${HALF}`);
        this.#value(field, value, `${at}[${forAudit(name, 64)}]`);
      }
    } else this.#value(field, json, at);
  }

  #value(field: DescField, json: unknown, at: string): void {
    if (field.message !== undefined) this.message(field.message, json, at);
    else if (field.enum !== undefined) this.#check(isWordOf(field.enum, json), at, 'no such word');
    else if (field.scalar === ScalarType.STRING) {
      if (this.#check(typeof json === 'string', at, 'a text'))
        this.#check((json as string).isWellFormed(), at, HALF);
    } else if (field.scalar === ScalarType.BOOL) this.#check(typeof json === 'boolean', at, 'true or false');
    else this.#integer(INTEGERS.get(field.scalar as ScalarType), json, at);
  }

  #integer(bounds: readonly [bigint, bigint] | undefined, json: unknown, at: string): void {
    if (bounds === undefined) return;
    if (!this.#check(isInteger(json), at, 'a whole number; one above 2^53 as a text')) return;
    const [least, greatest] = bounds;
    const value = BigInt(json as string | number);
    this.#check(value >= least && value <= greatest, at, `${least} to ${greatest}`);
  }

  #check(ok: boolean, at: string, expected: string): boolean {
    if (!ok) this.#found.add(at, expected);
    return ok;
  }

  #counted(fields: number, at: string): boolean {
    this.#fields += fields;
    return this.#check(this.#fields <= MAX_FIELDS, at, TOO_MANY_FIELDS);
  }

  #bounded(length: number, at: string): boolean {
    return this.#check(length <= MAX_MESSAGES, at, TOO_MANY_MESSAGES);
  }
}

function fieldOf(schema: DescMessage, name: string): DescField | undefined {
  return schema.fields.find((field) => field.jsonName === name || field.name === name);
}

function isObject(json: unknown): boolean {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

function isInteger(json: unknown): boolean {
  return typeof json === 'string' ? INTEGER.test(json) : Number.isSafeInteger(json);
}

function isWordOf({ values }: DescEnum, json: unknown): boolean {
  return values.some(({ name, number }) => name === json || number === json);
}

function isDuration(json: unknown): boolean {
  const [, seconds] = (typeof json === 'string' && DURATION.exec(json)) || [];
  return seconds !== undefined && Number(seconds) <= MAX_DURATION_SECONDS;
}

function isMask(json: unknown): boolean {
  return typeof json === 'string' && !json.includes('_');
}

/** Date would take 30 February for a day of March. */
function isTime(json: unknown): boolean {
  const [, day = ''] = (typeof json === 'string' && TIMESTAMP.exec(json)) || [];
  const date = new Date(`${day}T00:00:00Z`);
  if (Number.isNaN(date.getTime()) || !date.toISOString().startsWith(day)) return false;
  const time = Date.parse(json as string);
  return time >= FIRST_TIME && time <= LAST_TIME;
}
