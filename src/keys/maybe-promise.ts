/** A value that is mostly there at once, so that the common path neither awaits nor allocates. */
export type MaybePromise<T> = T | Promise<T>;

/** Continues with the value, synchronously when it is there. */
export function mapMaybe<T, R>(value: MaybePromise<T>, next: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}
