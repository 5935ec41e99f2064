import { resolve } from 'node:path';

/** An apikeyd server that already runs here, as its metrics show it. */
export interface Neighbour {
  readonly version: string;
  readonly store: string;
  /** The addresses that it listens on, by setting. */
  readonly addresses: Readonly<Record<string, string>>;
  readonly serving: boolean;
}

/** STORE_URL without user, password and options. */
export function shownStore(url: string): string {
  if (url.startsWith('sqlite:')) return `sqlite:${resolve(url.slice('sqlite:'.length))}`;
  const [scheme = '', rest = ''] = url.split(/\/\/(.*)/s);
  return `${scheme}//${rest.slice(rest.lastIndexOf('@') + 1).replace(/\?.*$/s, '')}`;
}

const WAIT_MS = 2_000;
const MAX_BYTES = 1_048_576;

/** Asks for metrics at this address; undefined unless a server of this program responds. */
export async function findNeighbour(host: string, port: number): Promise<Neighbour | undefined> {
  const url = new URL('http://localhost/metrics');
  // The loopback address reaches a listener on every address.
  url.hostname =
    host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '[::1]' : host.includes(':') ? `[${host}]` : host;
  url.port = String(port);
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(WAIT_MS), redirect: 'error' });
    return readNeighbour(await firstOf(response));
  } catch {
    return undefined;
  }
}

/** Bounded, since an unknown server may send without end. */
async function firstOf(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    parts.push(part);
    bytes += part.length;
    if (bytes > MAX_BYTES) break;
  }
  return Buffer.concat(parts).toString();
}

function readNeighbour(metrics: string): Neighbour | undefined {
  const [, labels] = /^apikeyd_server_info\{(.*)\} 1$/m.exec(metrics) ?? [];
  if (labels === undefined) return undefined;
  const found = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(
    ([, name = '', value = '']) => [name, value.replace(/\\(.)/g, '$1')] as const,
  );
  const { version = '', store = '', ...addresses } = Object.fromEntries(found);
  return {
    version,
    store,
    addresses: {
      GRPC_ADDR: addresses.grpc ?? '',
      HTTP_ADDR: addresses.http ?? '',
      METRICS_ADDR: addresses.metrics ?? '',
    },
    serving: /^apikeyd_serving 1$/m.test(metrics),
  };
}
