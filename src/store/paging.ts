import { ApiError } from '../keys/errors.ts';
import type { Paged } from '../keys/ports/page.ts';

/** Makes a page from up to `size + 1` rows: the surplus row only shows that there is a next page. */
export function pagedBy<T>(
  rows: readonly T[],
  size: number,
  cursorOf: (last: T) => (string | number)[],
): Paged<T> {
  const items = rows.slice(0, size);
  const last = items.at(-1);
  return { items, next: rows.length > size && last !== undefined ? cursorOf(last) : undefined };
}

/** The last character of Unicode: prefix + this sorts after every text with that prefix, in both stores. */
export const LAST_CHARACTER = '\u{10ffff}';

/** The error for a page token that does not belong to this list. */
function wrongToken(): ApiError {
  const description = 'not a token of this list';
  return new ApiError('INVALID_REQUEST', `page_token: ${description}`, {
    violations: [{ field: 'page_token', description }],
  });
}

/** The first and the last moment a Date can hold, in milliseconds since 1970. */
export const FIRST = -8.64e15;
export const LAST = 8.64e15;

/** Checks the shape of a page's start: a client may have made up the token. @throws ApiError by wrongToken */
export function startOf(
  after: readonly (string | number)[],
  ...shape: readonly ('number' | 'string')[]
): readonly (string | number)[] {
  const fits = after.length === shape.length && after.every((part, i) => typeof part === shape[i]);
  const isPlace = (part: string | number) => typeof part === 'string' || (part >= FIRST && part <= LAST);
  if (!fits || !after.every(isPlace)) throw wrongToken();
  return after;
}
