/** The number of hex digits that a JavaScript number holds exactly. */
const DIGITS = 13;

/** The row id of a key created with this secret; undefined when the text is not a hash. */
export function rowIdFromHash(secretHash: string): number | undefined {
  const place = Number.parseInt(secretHash.slice(0, DIGITS), 16);
  return Number.isNaN(place) ? undefined : place;
}
