/** What is mostly there at once and sometimes only later: nobody waits, and nothing is allocated, without need. */
export type MaybePromise<T> = T | Promise<T>;

/** Goes on with the value, at once when it is there. */
export function mapMaybe<T, R>(value: MaybePromise<T>, next: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}
