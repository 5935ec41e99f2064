import type { DescField, DescMessage } from '@bufbuild/protobuf';
import { ApiError } from '../keys/errors.ts';

/** Fields in one message, those of the messages in it included: an empty one costs two bytes to send and a page to keep. */
export const MAX_FIELDS = 131_072;
/** Messages, or entries of a map, in one field: the longest list that any method takes. */
export const MAX_MESSAGES = 1_000;

export interface Problem {
  readonly field: string;
  readonly description: string;
}

export const TOO_MANY_FIELDS = `more than ${MAX_FIELDS} fields in all`;
export const TOO_MANY_MESSAGES = `at most ${MAX_MESSAGES}`;

/**
 * Counts the fields of a binary message before anything is made of them: a kilobyte of gzip can be half a million empty
 * items. What is not well-formed is left to the decoder. @throws INVALID_REQUEST
 */
export function refuseTooMany(schema: DescMessage, bytes: Uint8Array): void {
  const plan = planOf(schema);
  // Strings and numbers one by one: their size is their work.
  if (!plan.nested && bytes.length <= MAX_FIELDS) return;
  const problem = new Scan(bytes).message(plan, 0, bytes.length);
  if (problem === undefined) return;
  throw new ApiError('INVALID_REQUEST', `${problem.field}: ${problem.description}`, {
    violations: [problem],
  });
}

/** What of a message's fields is to be counted, by number. */
interface Plan {
  readonly fields: ReadonlyMap<number, DescField>;
  /** Some field is a list, a map or a message. */
  readonly nested: boolean;
}

const plans = new WeakMap<DescMessage, Plan>();

function planOf(schema: DescMessage): Plan {
  let plan = plans.get(schema);
  if (plan === undefined) {
    const fields = new Map(schema.fields.map((field) => [field.number, field]));
    plan = { fields, nested: schema.fields.some(({ fieldKind }) => /list|map|message/.test(fieldKind)) };
    plans.set(schema, plan);
  }
  return plan;
}

class Scan {
  readonly #bytes: Uint8Array;
  #at = 0;
  #fields = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message({ fields }: Plan, start: number, end: number): Problem | undefined {
    const counts = new Map<number, number>();
    this.#at = start;
    while (this.#at < end) {
      if (++this.#fields > MAX_FIELDS) return { field: '', description: TOO_MANY_FIELDS };
      const tag = this.#varint();
      const field = fields.get(Math.floor(tag / 8));
      if ((tag & 7) !== 2) {
        if (!this.#skip(tag & 7)) return undefined;
        continue;
      }
      const length = this.#varint();
      const begin = this.#at;
      if (!(begin + length <= end)) return undefined;
      if (field?.message !== undefined || field?.fieldKind === 'map') {
        const count = (counts.get(field.number) ?? 0) + 1;
        counts.set(field.number, count);
        if (count > MAX_MESSAGES) return { field: field.name, description: TOO_MANY_MESSAGES };
        const inner = field.message === undefined ? undefined : planOf(field.message);
        const problem = inner?.nested === true ? this.message(inner, begin, begin + length) : undefined;
        if (problem !== undefined) return within(field, count - 1, problem);
      }
      this.#at = begin + length;
    }
    return undefined;
  }

  /** NaN at the end of the bytes, and for what is no varint. */
  #varint(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 70; scale *= 128) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) return Number.NaN;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    return Number.NaN;
  }

  #skip(wireType: number): boolean {
    if (wireType === 0) return !Number.isNaN(this.#varint());
    this.#at += wireType === 1 ? 8 : 4;
    return wireType === 1 || wireType === 5;
  }
}

function within(field: DescField, index: number, { field: inner, description }: Problem): Problem {
  const at = field.fieldKind === 'list' ? `${field.name}[${index}]` : field.name;
  return { field: inner === '' ? at : `${at}.${inner}`, description };
}
