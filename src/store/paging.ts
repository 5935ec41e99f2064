import { ApiError } from '../keys/errors.ts';
import type { Paged } from '../keys/ports/page.ts';

/** A page out of `size + 1` rows: the surplus row only says that there is a next page. */
export function pagedBy<T>(
  rows: readonly T[],
  size: number,
  cursorOf: (last: T) => (string | number)[],
): Paged<T> {
  const items = rows.slice(0, size);
  const last = items.at(-1);
  return { items, next: rows.length > size && last !== undefined ? cursorOf(last) : undefined };
}

/** After every text that begins with a prefix, in the order of both stores: the last character of Unicode. */
export const LAST_CHARACTER = '\u{10ffff}';

/** The error of a page that another answer's token asked for. */
function wrongToken(): ApiError {
  const description = 'not a token of this list';
  return new ApiError('INVALID_REQUEST', `page_token: ${description}`, {
    violations: [{ field: 'page_token', description }],
  });
}

/** The first and the last moment of a Date. */
export const FIRST = -8.64e15;
export const LAST = 8.64e15;

/** Where a page begins, if it has the shape that this list gives out: a token can be made by anybody. @throws wrongToken */
export function startOf(
  after: readonly (string | number)[],
  ...shape: readonly ('number' | 'string')[]
): readonly (string | number)[] {
  const fits = after.length === shape.length && after.every((part, i) => typeof part === shape[i]);
  const isPlace = (part: string | number) => typeof part === 'string' || (part >= FIRST && part <= LAST);
  if (!fits || !after.every(isPlace)) throw wrongToken();
  return after;
}
