/** Within so much a difference is the way there and back, and the second that HTTP's dates are rounded to. */
const SAME_MS = 2_000;
let aheadMs = 0;

/** The server's time in milliseconds since 1970: this machine's clock may be off by days, and the server's rows are not. */
export function serverNow(): number {
  return Date.now() + aheadMs;
}

/** Asks whether the server serves calls, and reads its time from the answer. @throws TypeError when it cannot be reached */
export async function askReadiness(): Promise<boolean> {
  const before = Date.now();
  const { ok, headers } = await fetch('/readyz', { cache: 'no-store' });
  const date = Date.parse(headers.get('date') ?? '');
  if (!Number.isNaN(date)) {
    const ahead = date + 500 - (before + Date.now()) / 2;
    aheadMs = Math.abs(ahead) < SAME_MS ? 0 : ahead;
  }
  return ok;
}
