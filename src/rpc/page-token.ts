import { hash } from 'node:crypto';
import type { Violations } from '../keys/errors.ts';
import { pageSize } from '../keys/key-fields.ts';
import type { Page } from '../keys/ports/page.ts';

/** What list requests have in common. */
interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}

/** Reads page_size and page_token; a token belongs to the list and the filters that it was made with. */
export function pageOf(found: Violations, request: PageRequest, list: string, filter: object): Page {
  const size = pageSize(found, 'page_size', request.pageSize);
  if (request.pageToken === '') return { size, after: undefined };
  const after = decode(request.pageToken, markOf(list, filter));
  if (after === undefined) found.add('page_token', 'not a token of this list with these filters');
  return { size, after };
}

/** The token of the next page; '' on the last. */
export function tokenOf(next: Page['after'], list: string, filter: object): string {
  if (next === undefined) return '';
  return Buffer.from(JSON.stringify([markOf(list, filter), ...next])).toString('base64url');
}

function decode(token: string, mark: string): (string | number)[] | undefined {
  if (token.length > 1024) return undefined;
  try {
    const parts: unknown = JSON.parse(Buffer.from(token, 'base64url').toString());
    if (!Array.isArray(parts) || parts.shift() !== mark || parts.length === 0) return undefined;
    return parts.every((part) => typeof part === 'string' || Number.isFinite(part)) ? parts : undefined;
  } catch {
    // Not JSON: somebody else's token.
    return undefined;
  }
}

function markOf(list: string, filter: object): string {
  return hash('sha256', JSON.stringify([list, filter])).slice(0, 12);
}
