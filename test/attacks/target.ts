import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Client, createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node';
import { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth, Decision } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { selfSigned } from '../support/certificate.ts';
import { collectGarbage, INSPECTABLE } from '../support/garbage.ts';
import { HANGS_MS } from '../support/hangs.ts';
import type { Http2ServerName } from '../support/http2.ts';
import { type ServerProcess, spawnServer } from '../support/process.ts';

type Auth = Client<typeof ApiKeyAuth>;

interface Good {
  readonly served: number;
  readonly perSecond: number;
  /** What was answered in place of VALID. */
  readonly errors: readonly string[];
}

/** A real server with a key, and callers that mean well. */
export class Target {
  readonly #server: ServerProcess;
  readonly #folder: string;
  readonly #secret: string;
  readonly #clients: () => readonly Auth[];
  readonly #lasting: readonly Auth[];

  private constructor(server: ServerProcess, folder: string, secret: string, clients: () => readonly Auth[]) {
    this.#server = server;
    this.#folder = folder;
    this.#secret = secret;
    this.#clients = clients;
    this.#lasting = [...clients(), ...clients()];
  }

  static async start(http2: Http2ServerName, tls: boolean): Promise<Target> {
    const folder = mkdtempSync(join(tmpdir(), 'apikeyd-attack-'));
    const { certFile, keyFile, cert } = selfSigned(folder);
    const server = await spawnServer(`sqlite:${folder}/apikeyd.db`, folder, {
      HTTP2_SERVER: http2,
      LOG_LEVEL: 'info',
      ...INSPECTABLE,
      ...(tls ? { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile } : {}),
    });
    const key = readFileSync(join(folder, 'admin.key'), 'utf8').trim();
    const credential: Interceptor = (next) => (request) => {
      request.header.set('authorization', `Bearer ${key}`);
      return next(request);
    };
    const at = (port: number) => ({
      baseUrl: `${tls ? 'https' : 'http'}://127.0.0.1:${port}`,
      interceptors: [credential],
      nodeOptions: { ca: cert },
      // After some attacks a busy machine has seconds of them to work off before a new connection has its turn.
      defaultTimeoutMs: HANGS_MS,
    });
    const { grpc, http } = server.ports;
    const clients = () => [
      createClient(ApiKeyAuth, createGrpcTransport(at(grpc))),
      createClient(ApiKeyAuth, createConnectTransport({ ...at(http), httpVersion: '2' })),
      createClient(ApiKeyAuth, createConnectTransport({ ...at(http), httpVersion: '1.1' })),
    ];
    const admin = createClient(ApiKeyAdmin, createGrpcTransport(at(grpc)));
    const { secret } = await admin.createKey({
      name: 'good',
      ownerId: 'good',
      keyType: KeyType.SERVICE,
      scopes: ['traces:read'],
    });
    return new Target(server, folder, secret, clients);
  }

  get ports(): { readonly grpc: number; readonly http: number } {
    return this.#server.ports;
  }

  get child(): ChildProcess {
    return this.#server.child;
  }

  /** Bytes of memory that the server holds. */
  get resident(): number {
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.child.pid}/status`, 'utf8'))?.[1]);
  }

  /** Bytes of memory that the server holds when its garbage is collected. */
  async level(): Promise<number> {
    await collectGarbage(this.#server);
    return this.resident;
  }

  async stop(): Promise<void> {
    await this.#server.end('SIGKILL');
    rmSync(this.#folder, { recursive: true });
  }

  /** Calls one after the other on connections that last, so many milliseconds or until that is settled. */
  async good(until: number | Promise<void>): Promise<Good> {
    let going = true;
    const began = performance.now();
    const over = (
      typeof until === 'number' ? new Promise((resolve) => setTimeout(resolve, until)) : until
    ).finally(() => {
      going = false;
    });
    const errors: string[] = [];
    let served = 0;
    const callers = this.#lasting.map(async (client) => {
      while (going) {
        const error = await this.#ask(client);
        if (error === '') served++;
        else errors.push(error);
      }
    });
    await over;
    await Promise.all(callers);
    return { served, perSecond: (1000 * served) / (performance.now() - began), errors };
  }

  /** What new connections of every kind are answered in place of VALID. */
  async errorsOfNew(): Promise<readonly string[]> {
    const answers = await Promise.all(this.#clients().map((client) => this.#ask(client)));
    return answers.filter((error) => error !== '');
  }

  async #ask(client: Auth): Promise<string> {
    try {
      const { decision } = await client.validateKey({ key: this.#secret });
      return decision === Decision.VALID ? '' : String(decision);
    } catch (error) {
      return String(error);
    }
  }
}
