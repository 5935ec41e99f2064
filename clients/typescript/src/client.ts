import type { SecureClientSessionOptions } from 'node:http2';
import { setTimeout as delay } from 'node:timers/promises';
import { type CallOptions, type Client, createClient } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import {
  ApiKeyAuth,
  type SyncKeysRequest,
  type SyncKeysResponse,
  type ValidateKeyRequest,
  type ValidateKeyResponse,
} from '../../../gen/apikey/v1/auth_pb.ts';
import { Batcher } from './batcher.ts';
import { NoDecision, noDecision } from './failure.ts';
import { OwnKey } from './own-key.ts';

const MOST_CALLS = 3;
const BACKOFF_MS = 50;
/** A longer text is no key, and would fill a batch. */
const MAX_KEY = 1024;
/** A connection that is silent for so long while questions wait is replaced: the other end may have vanished. */
const SILENCE_MS = 2_000;

export interface ClientOptions {
  /** The address of apikeyd, `host:port` or `https://host:port`. */
  readonly address: string;
  /** A file with the guard's own key, which needs the scope `apikeys:validate`. Read again when it changes. */
  readonly keyFile: string;
  /** The deadline of a question in milliseconds, retries included: 1 to 60 000; default 500. */
  readonly deadlineMs?: number;
  /** Send the questions of one turn of the event loop in one call. */
  readonly batch?: boolean;
  /** Options of node:tls: the CA of an `https` address (`ca`), a client certificate (`cert` and `key`). */
  readonly tls?: SecureClientSessionOptions;
}

/** Asks apikeyd with the key of the file, with a deadline, and retries when that is safe. */
export class KeyClient {
  readonly #ownKey: OwnKey;
  readonly #sessions: Http2SessionManager;
  readonly #auth: Client<typeof ApiKeyAuth>;
  readonly #deadlineMs: number;
  readonly #batcher: Batcher | undefined;
  /** When the connection last received something. */
  #heard = performance.now();

  /** @throws TypeError for an invalid option, Error for a file without a key */
  constructor({ address, keyFile, deadlineMs = 500, batch = false, tls }: ClientOptions) {
    if (!Number.isFinite(deadlineMs) || deadlineMs < 1 || deadlineMs > 60_000)
      throw new TypeError('deadlineMs: from 1 to 60 000');
    const baseUrl = address.includes('://') ? address : `http://${address}`;
    if (!URL.canParse(baseUrl) || !/^https?:/.test(baseUrl))
      throw new TypeError('address: host:port or https://host:port');
    this.#ownKey = new OwnKey(keyFile);
    this.#deadlineMs = deadlineMs;
    this.#sessions = new Http2SessionManager(baseUrl, {}, tls);
    const transport = createGrpcTransport({ baseUrl, sessionManager: this.#sessions });
    this.#auth = createClient(ApiKeyAuth, transport);
    if (batch) this.#batcher = new Batcher((requests, end) => this.#askAll(requests, end));
  }

  /** One decision. @throws NoDecision, and nothing else */
  async ask(request: ValidateKeyRequest): Promise<ValidateKeyResponse> {
    const end = performance.now() + this.#deadlineMs;
    // Facts come with single questions only.
    if (this.#batcher !== undefined && !request.wantFacts && request.key.length <= MAX_KEY)
      return this.#batcher.ask(request, end);
    return this.#call((options) => this.#auth.validateKey(request, options), end);
  }

  /** One call of SyncKeys. @throws NoDecision, and nothing else */
  sync(request: SyncKeysRequest, timeoutMs: number): Promise<SyncKeysResponse> {
    return this.#call((options) => this.#auth.syncKeys(request, options), performance.now() + timeoutMs);
  }

  /** Closes the connection and ends the calls on it. */
  close(): void {
    this.#sessions.abort();
  }

  async #askAll(requests: readonly ValidateKeyRequest[], end: number) {
    const batch = { requests: [...requests] };
    const { responses } = await this.#call((options) => this.#auth.batchValidateKeys(batch, options), end);
    if (responses.length !== requests.length) throw new NoDecision('a batch came back short');
    return responses;
  }

  async #call<T>(send: (options: CallOptions) => Promise<T>, end: number): Promise<T> {
    let renewed = false;
    for (let calls = 1; ; calls++) {
      const key = this.#ownKey.current;
      // A gRPC timeout is a whole number of units.
      const timeoutMs = Math.max(1, Math.floor(end - performance.now()));
      try {
        const answer = await send({ headers: { authorization: `Bearer ${key}` }, timeoutMs });
        this.#heard = performance.now();
        return answer;
      } catch (error) {
        const failure = noDecision(error);
        this.#mind(failure);
        if (failure.refused && !renewed && this.#ownKey.refused(key)) {
          renewed = true;
          continue;
        }
        if (!failure.passing || calls >= MOST_CALLS) throw failure;
        const wait = Math.max(BACKOFF_MS * calls * Math.random(), failure.retryAfterMs ?? 0);
        if (performance.now() + wait >= end) throw failure;
        await delay(Math.ceil(wait));
      }
    }
  }

  #mind({ heard, silent }: NoDecision): void {
    const now = performance.now();
    const dead = silent && now - this.#heard >= SILENCE_MS;
    if (heard || dead) this.#heard = now;
    if (dead) this.#sessions.abort();
  }
}
