/** What is mostly there at once and sometimes only later: nobody waits, and nothing is allocated, without need. */
export type Soon<T> = T | Promise<T>;

/** Goes on with the value, at once when it is there. */
export function whenThere<T, R>(value: Soon<T>, next: (value: T) => Soon<R>): Soon<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}
