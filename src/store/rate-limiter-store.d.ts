// The library's own base class for limiters over a store; it ships the class but no type for its extension points.
declare module 'rate-limiter-flexible/lib/RateLimiterStoreAbstract.js' {
  import type { RateLimiterRes } from 'rate-limiter-flexible';
  export default abstract class RateLimiterStoreAbstract {
    constructor(options: { keyPrefix: string; points: number; duration: number; blockDuration: number });
    readonly points: number;
    consume(key: string, points?: number): Promise<RateLimiterRes>;
    delete(key: string): Promise<boolean>;
    protected abstract _upsert(
      key: string,
      points: number,
      msDuration: number,
      force: boolean,
    ): Promise<unknown>;
    protected abstract _get(key: string): Promise<unknown>;
    protected abstract _delete(key: string): Promise<boolean>;
    protected abstract _getRateLimiterRes(key: string, changed: number, result: unknown): RateLimiterRes;
  }
}
