export interface Page {
  readonly size: number;
  /** Where the page before ended: the adapter's own words, opaque to everybody else. */
  readonly after: readonly (string | number)[] | undefined;
}

export interface Paged<T> {
  readonly items: readonly T[];
  /** To be given as `after`; undefined on the last page. */
  readonly next: readonly (string | number)[] | undefined;
}
