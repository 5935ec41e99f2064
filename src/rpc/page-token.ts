import { hash } from 'node:crypto';
import type { Violations } from '../keys/errors.ts';
import { pageSize } from '../keys/key-fields.ts';
import type { Page } from '../keys/ports/page.ts';

/** Fields shared by all list requests. */
interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}

/** Reads page_size and page_token; a token is valid only for the same list and filters. */
export function pageOf(found: Violations, request: PageRequest, list: string, filter: object): Page {
  const size = pageSize(found, 'page_size', request.pageSize);
  if (request.pageToken === '') return { size, after: undefined };
  const after = decode(request.pageToken, markOf(list, filter));
  if (after === undefined) found.add('page_token', 'not a token of this list with these filters');
  return { size, after };
}

/** The token of the next page; '' after the last. */
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
    // Not JSON, so not a token of this server.
    return undefined;
  }
}

function markOf(list: string, filter: object): string {
  return hash('sha256', JSON.stringify([list, filter])).slice(0, 12);
}
