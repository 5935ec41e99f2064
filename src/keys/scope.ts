const SEGMENT = /^[A-Za-z0-9_.-]+$/;
/** The first segment of the scopes that govern this service itself. */
export const CONTROL_SEGMENT = 'apikeys';

/** A grant: segments joined by ':', where a whole segment may be `*`. */
export function isGrant(text: string): boolean {
  return text.split(':').every((segment) => segment === '*' || SEGMENT.test(segment));
}

/** A scope that can be required: like a grant, but without `*`. */
export function isRequirableScope(text: string): boolean {
  return text.split(':').every((segment) => SEGMENT.test(segment));
}

/** True for grants and scopes that govern this service. */
export function isControlScope(scope: string): boolean {
  return scope === CONTROL_SEGMENT || scope.startsWith(`${CONTROL_SEGMENT}:`);
}

/**
 * The first grant that covers `scope`, or undefined. One `*` fills exactly one segment; `*` alone grants all.
 * Control scopes are covered only by grants whose first segment is literally `apikeys`.
 */
export function matchingGrant(grants: readonly string[], scope: string): string | undefined {
  const control = isControlScope(scope);
  return grants.find((grant) => (control ? isControlScope(grant) : true) && covers(grant, scope));
}

/** True when `grant` covers everything that `scope` (itself possibly with `*`) allows. */
function covers(grant: string, scope: string): boolean {
  if (grant === scope || grant === '*') return true;
  if (!grant.includes('*')) return false;
  const have = grant.split(':');
  const want = scope.split(':');
  return have.length === want.length && have.every((segment, i) => segment === '*' || segment === want[i]);
}
