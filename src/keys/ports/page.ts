export interface Page {
  readonly size: number;
  /** Where the previous page ended; opaque to all but the adapter. */
  readonly after: readonly (string | number)[] | undefined;
}

export interface Paged<T> {
  readonly items: readonly T[];
  /** Pass as `after` for the next page; undefined on the last page. */
  readonly next: readonly (string | number)[] | undefined;
}
