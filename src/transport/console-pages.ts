import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Exchange } from './exchange.ts';

const BASE = '/console/';
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
};
/** Allows only files of this server: no inline code, no framing, no text that becomes markup. */
const SECURITY_HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
} as const;

interface File {
  readonly type: string;
  readonly bytes: Buffer;
  readonly packed: Buffer;
  /** The name contains a hash of the content, so the file can be cached for ever. */
  readonly hashed: boolean;
}

/** The files of the console, read once and kept in memory. */
export class ConsolePages {
  readonly #files: ReadonlyMap<string, File>;

  private constructor(files: ReadonlyMap<string, File>) {
    this.#files = files;
  }

  /** Undefined when the console is not built. @param folder the output of `npm run build:console` */
  static async read(folder: string): Promise<ConsolePages | undefined> {
    if (!existsSync(join(folder, 'index.html'))) return undefined;
    const pack = promisify(gzip);
    const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
    const known = names.filter((name) => TYPES[extname(name)] !== undefined);
    const files = await Promise.all(
      known.map(async (name): Promise<[string, File]> => {
        const bytes = readFileSync(join(folder, name));
        const path = name.replaceAll('\\', '/');
        const type = TYPES[extname(name)] ?? '';
        return [path, { type, bytes, packed: await pack(bytes), hashed: path.startsWith('assets/') }];
      }),
    );
    return new ConsolePages(new Map(files));
  }

  /** Serves a request for a page of the console; false for any other path. */
  async handle(exchange: Exchange): Promise<boolean> {
    const { path, method } = exchange;
    if (method !== 'GET' && method !== 'HEAD') return false;
    const browser = path === '/' && (exchange.header('accept') ?? '').includes('text/html');
    if (browser || path === '/console') {
      const header = new Headers({ location: BASE, ...SECURITY_HEADERS });
      await exchange.respond({ status: 303, header });
      return true;
    }
    if (!path.startsWith(BASE)) return false;
    // Only assets are files: the page itself interprets any other path.
    const name = path.startsWith(`${BASE}assets/`) ? path.slice(BASE.length) : 'index.html';
    const file = this.#files.get(name);
    if (file === undefined) return false;
    const packed = /\bgzip\b/.test(exchange.header('accept-encoding') ?? '');
    const bytes = packed ? file.packed : file.bytes;
    const header = new Headers({
      ...SECURITY_HEADERS,
      'content-type': file.type,
      'content-length': String(bytes.length),
      'cache-control': file.hashed ? 'public, max-age=31536000, immutable' : 'no-cache',
      vary: 'accept-encoding',
      ...(packed ? { 'content-encoding': 'gzip' } : {}),
    });
    await exchange.respond({ status: 200, header, ...(method === 'HEAD' ? {} : { body: once(bytes) }) });
    return true;
  }
}

async function* once(bytes: Buffer): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}
