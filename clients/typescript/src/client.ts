import type { SecureClientSessionOptions } from 'node:http2';
import { setTimeout as delay } from 'node:timers/promises';
import { type CallOptions, type Client, createClient } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import {
  ApiKeyAuth,
  type ValidateKeyRequest,
  type ValidateKeyResponse,
} from '../../../gen/apikey/v1/auth_pb.ts';
import { Batcher } from './batcher.ts';
import { NoDecision, noDecision } from './failure.ts';
import { OwnKey } from './own-key.ts';

const MOST_CALLS = 3;
const BACKOFF_MS = 50;
/** A longer key is none, and would fill a batch. */
const MAX_KEY = 1024;
/** A connection that says nothing for so long, while questions wait, is replaced: the other end may be gone without a word. */
const SILENCE_MS = 2_000;

export interface ClientOptions {
  /** apikeyd, as `host:port` or `https://host:port`. */
  readonly address: string;
  /** A file with the guard's own key, which needs the scope `apikeys:validate`. Read again when it changes. */
  readonly keyFile: string;
  /** Everything about one question ends within this many milliseconds: 1 to 60 000; 500. */
  readonly deadlineMs?: number;
  /** Ask the questions of one turn of the event loop in one call. */
  readonly batch?: boolean;
  /** Of node:tls: the CA of an `https` address (`ca`), a client certificate (`cert` and `key`). */
  readonly tls?: SecureClientSessionOptions;
}

/** Asks apikeyd: with a deadline, again where that is safe, as the calling key of the file. */
export class KeyClient {
  readonly #ownKey: OwnKey;
  readonly #sessions: Http2SessionManager;
  readonly #auth: Client<typeof ApiKeyAuth>;
  readonly #deadlineMs: number;
  readonly #batcher: Batcher | undefined;
  /** When the connection last said something. */
  #heard = performance.now();

  /** @throws TypeError for an option that is wrong, Error for a file without a key */
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
    if (this.#batcher !== undefined && request.key.length <= MAX_KEY) return this.#batcher.ask(request, end);
    return this.#call((options) => this.#auth.validateKey(request, options), end);
  }

  /** Ends the connection, and what is under way on it. */
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
      // gRPC has no fractions of a unit.
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
