/** Digits of a hash that a JavaScript number can hold exactly. */
const DIGITS = 13;

/** The row in which the key of this secret lies, if it had none before; undefined for what is no hash. */
export function rowIdFromHash(secretHash: string): number | undefined {
  const place = Number.parseInt(secretHash.slice(0, DIGITS), 16);
  return Number.isNaN(place) ? undefined : place;
}
