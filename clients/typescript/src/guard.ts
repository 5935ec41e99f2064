import { create } from '@bufbuild/protobuf';
import {
  type ValidateKeyRequest,
  ValidateKeyRequestSchema,
  type ValidateKeyResponse,
} from '../../../gen/apikey/v1/auth_pb.ts';
import { type ClientOptions, KeyClient } from './client.ts';
import { noDecision } from './failure.ts';
import { KeySync, type Send } from './key-sync.ts';
import { LocalKeys } from './local-keys.ts';
import {
  addressFromRight,
  addressIn,
  checkRoute,
  type HeaderOf,
  keyIn,
  type Route,
  requestIdIn,
} from './question.ts';
import { type Outcome, type Verdict, verdict, verdictOn } from './verdict.ts';

const KEY_HEADERS = ['authorization', 'x-api-key'];
const MAX_USER_AGENT = 512;
const MAX_HOPS = 16;
const MAX_LOCAL_KEYS = 1_000_000;

/** The outcome of one request, for metrics. Contains no key. */
export interface Decided {
  readonly outcome: Outcome;
  readonly status: number;
  readonly scope: string | undefined;
  /** The guard decided by itself. */
  readonly local: boolean;
  /** From the question to the verdict, in milliseconds. */
  readonly durationMs: number;
  /** Why there was no decision: a gRPC code and apikeyd's reason, or a text of the guard. */
  readonly detail: string;
}

export interface GuardOptions extends ClientOptions {
  /** Headers that may hold the client's key; the first one present counts. `authorization` (as Bearer), `x-api-key`. */
  readonly keyHeaders?: readonly string[];
  /**
   * How many of your proxies append to `x-forwarded-for` on the way here: the client's address is that entry from the
   * right. 0: the peer is the client. At most 16.
   */
  readonly trustedHops?: number;
  /**
   * Decide by itself about keys with local_validation while a lease holds: no network hop, and RevokeKey still waits for
   * this guard. Its decisions are in the audit within a lease instead of before the response. Call `close` at the end.
   */
  readonly local?: boolean;
  /** With `local`: how many secrets are kept, as hashes; 1 to 1 000 000, default 10 000. */
  readonly localKeys?: number;
  /** Called for each request. An exception in it is ignored. */
  readonly onDecided?: (decided: Decided) => void;
}

/** A request to decide about. */
export interface Asked {
  readonly header: HeaderOf;
  /** The address of the peer; undefined when unknown: lockouts and allow-lists then have no address. */
  readonly peer: string | undefined;
}

/** Decides about requests by asking apikeyd. Without a decision a request is denied. */
export class Guard {
  readonly #client: KeyClient;
  readonly #local: LocalKeys | undefined;
  readonly #sync: KeySync | undefined;
  readonly #keyHeaders: readonly string[];
  readonly #trustedHops: number;
  readonly #onDecided: (decided: Decided) => void;

  /** @throws TypeError for an invalid option, Error for a key file without a key */
  constructor(options: GuardOptions) {
    const { keyHeaders = KEY_HEADERS, trustedHops = 0, onDecided = warnOnce() } = options;
    if (!Number.isInteger(trustedHops) || trustedHops < 0 || trustedHops > MAX_HOPS)
      throw new TypeError(`trustedHops: a whole number from 0 to ${MAX_HOPS}`);
    if (keyHeaders.length === 0) throw new TypeError('keyHeaders: at least one');
    this.#keyHeaders = keyHeaders.map((name) => name.toLowerCase());
    this.#trustedHops = trustedHops;
    this.#onDecided = onDecided;
    const { local = false, localKeys = 10_000, deadlineMs = 500 } = options;
    if (!Number.isInteger(localKeys) || localKeys < 1 || localKeys > MAX_LOCAL_KEYS)
      throw new TypeError(`localKeys: a whole number from 1 to ${MAX_LOCAL_KEYS}`);
    this.#client = new KeyClient(options);
    if (!local) return;
    this.#local = new LocalKeys(localKeys);
    const send: Send = (request, timeoutMs) => this.#client.sync(request, timeoutMs);
    this.#sync = new KeySync(this.#local, send, deadlineMs);
  }

  /** The question of one route. @throws TypeError for an invalid option */
  route(route: Route = {}): (asked: Asked) => Promise<Verdict> {
    checkRoute(route);
    return async (asked) => {
      const begun = performance.now();
      const decided = this.#decide(asked, route);
      // A local decision takes no turn of the loop.
      const reached = decided instanceof Promise ? await decided : decided;
      const { outcome, status, detail, local } = reached;
      try {
        const durationMs = performance.now() - begun;
        this.#onDecided({ outcome, status, scope: route.scope, local, durationMs, detail });
      } catch {
        // An error of the metrics hook changes no verdict.
      }
      return reached;
    };
  }

  /** Gives a lease back, with the decisions that were not reported yet, and ends the connection to apikeyd. */
  async close(): Promise<void> {
    await this.#sync?.close();
    this.#client.close();
  }

  /** Neither throws nor rejects. */
  #decide({ header, peer }: Asked, { scope, cost = 1 }: Route): Verdict | Promise<Verdict> {
    try {
      const key = keyIn(header, this.#keyHeaders);
      if (key === undefined) return verdict('NO_KEY', scope);
      const clientIp = this.#addressOf(header, peer);
      if (clientIp === undefined) return verdict('MISCONFIGURED', scope, { detail: 'no client address' });
      const decided = this.#local?.decide(key, scope, clientIp);
      if (decided !== undefined) return decided;
      const question = create(ValidateKeyRequestSchema, {
        key: key.toWellFormed(),
        clientIp,
        userAgent: (header('user-agent') ?? '').slice(0, MAX_USER_AGENT).toWellFormed(),
        requestId: requestIdIn(header),
        cost: BigInt(cost),
      });
      if (scope !== undefined) question.requiredScope = scope;
      return this.#verdictOf(question, scope);
    } catch (error) {
      return undecided(error, scope);
    }
  }

  /** Never rejects. */
  async #verdictOf(question: ValidateKeyRequest, scope: string | undefined): Promise<Verdict> {
    try {
      const answer = await this.#ask(question);
      return verdictOn(answer, scope) ?? verdict('UNAVAILABLE', scope, { detail: 'an unknown decision' });
    } catch (error) {
      return undecided(error, scope);
    }
  }

  /** Asks the server, and keeps the facts that a guard with a lease may have. */
  async #ask(question: ValidateKeyRequest): Promise<ValidateKeyResponse> {
    const local = this.#local;
    if (local === undefined || !local.holds) return this.#client.ask(question);
    const sent = local.generation;
    try {
      const answer = await this.#client.ask({ ...question, wantFacts: true, minRevision: local.revision });
      local.keep(question.key, answer, sent);
      return answer;
    } catch (error) {
      // The server that answers is behind the one of the lease: its decision counts, its facts do not.
      if (!noDecision(error).detail.endsWith('REVISION_NOT_REACHED')) throw error;
      return this.#client.ask(question);
    }
  }

  /** '' for unknown; undefined when the proxies do not match `trustedHops`. */
  #addressOf(header: HeaderOf, peer: string | undefined): string | undefined {
    if (this.#trustedHops > 0) return addressFromRight(header('x-forwarded-for') ?? '', this.#trustedHops);
    return peer === undefined ? '' : addressIn(peer);
  }
}

function undecided(error: unknown, scope: string | undefined): Verdict {
  const { outcome, detail, retryAfterMs } = noDecision(error);
  return verdict(outcome, scope, { detail, retryAfterMs });
}

/** The default of `onDecided`: warns once of each misconfiguration of the guard. */
function warnOnce(): (decided: Decided) => void {
  const told = new Set<string>();
  return ({ outcome, detail }) => {
    if (outcome !== 'MISCONFIGURED' || told.has(detail)) return;
    told.add(detail);
    process.emitWarning(`apikeyd cannot be asked: ${detail}`);
  };
}
