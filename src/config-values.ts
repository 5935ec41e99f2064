/** Parsers and checks for the values of single settings. */

/** A setting of the table. */
export interface Row {
  readonly name: string;
  readonly kind: 'text' | 'integer' | 'number' | 'boolean';
  readonly default: string;
  readonly unit?: string;
  readonly min?: number;
  readonly max?: number;
  /** The value is never printed. */
  readonly secret?: true;
  readonly choices?: readonly string[];
  readonly about: string;
}

/** An invalid setting: exit code 78 with this one line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** `22-04` as hours of the day, `undefined` for ''. @throws ConfigError */
export function parseQuietHours(value: string): { from: number; to: number } | undefined {
  if (value === '') return undefined;
  const [, from, to] = /^(\d{1,2})-(\d{1,2})$/.exec(value) ?? [];
  if (from === undefined || Number(from) > 23 || Number(to) > 24 || Number(from) === Number(to)) {
    throw new ConfigError('ANOMALY_QUIET_HOURS: must be two hours such as 22-04');
  }
  return { from: Number(from), to: Number(to) };
}

/** No secret, query or fragment: the same text is logged, and paths are appended to it. @throws ConfigError */
export function checkWebAddress(name: string, value: string): void {
  if (value === '') return;
  const url = URL.canParse(value) ? new URL(value) : undefined;
  const web = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (url === undefined || !web || url.username !== '' || url.password !== '' || /[?#]/.test(value))
    throw new ConfigError(`${name}: must be http://… or https://…, without a user, a query or a fragment`);
}

const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]{1,64}$/;
/** Headers with data about the caller or the request, which can never carry the end client's key. */
const OF_THE_QUESTION = [
  'x-apikeyd-authorization',
  'x-client-ip',
  'x-forwarded-for',
  'user-agent',
  'x-request-id',
];
const MAX_KEY_HEADERS = 8;

/** `authorization,x-api-key` as lower-case names. @throws ConfigError */
export function parseKeyHeaders(value: string): readonly string[] {
  const names = value.split(',').map((name) => name.trim().toLowerCase());
  const fit = names.every((name) => HEADER_NAME.test(name) && !OF_THE_QUESTION.includes(name));
  if (!fit || names.length > MAX_KEY_HEADERS || new Set(names).size < names.length) {
    throw new ConfigError(
      `GATEWAY_KEY_HEADERS: must be 1 to ${MAX_KEY_HEADERS} names of headers such as authorization,x-api-key, none twice and none of ${OF_THE_QUESTION.join(', ')}`,
    );
  }
  return names;
}

/** `host:port` or `[v6]:port`. @throws ConfigError */
export function parseAddress(name: string, value: string): { host: string; port: number } {
  const [, v6, host, port] = /^(?:\[([0-9A-Fa-f:]+)\]|([^:\s]+)):(\d{1,5})$/.exec(value) ?? [];
  if (port === undefined || Number(port) > 65_535)
    throw new ConfigError(`${name}: must be host:port, got "${value}"`);
  return { host: v6 ?? host ?? '', port: Number(port) };
}

/** Parses a value by the kind and bounds of its row. @throws ConfigError */
export function readValue(row: Row, text: string): string | number | boolean {
  if (row.kind === 'boolean') {
    if (text !== 'true' && text !== 'false') throw new ConfigError(`${row.name}: must be true or false`);
    return text === 'true';
  }
  if (row.kind === 'integer' || row.kind === 'number') {
    const shape = row.kind === 'integer' ? /^-?\d+$/ : /^-?\d+(\.\d+)?$/;
    const value = shape.test(text) ? Number(text) : Number.NaN;
    const { min = 0, max = Number.MAX_SAFE_INTEGER } = row;
    if (!(value >= min && value <= max)) {
      throw new ConfigError(
        `${row.name}: must be a ${row.kind === 'integer' ? 'whole ' : ''}number from ${min} to ${max}${row.unit ? ` (${row.unit})` : ''}`,
      );
    }
    return value;
  }
  if (row.choices !== undefined && !row.choices.includes(text)) {
    throw new ConfigError(`${row.name}: must be one of ${row.choices.filter(Boolean).join(', ')}`);
  }
  return text;
}
