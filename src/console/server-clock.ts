/** Smaller differences come from the round trip and from the whole seconds of HTTP dates. */
const SAME_MS = 2_000;
let aheadMs = 0;

/** The server's time in milliseconds since 1970: this machine's clock may be off by days. */
export function serverNow(): number {
  return Date.now() + aheadMs;
}

/** Checks the health of the server, and reads its time from the response. @throws TypeError when it is unreachable */
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
