import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect';
import {
  HealthCheckResponse_ServingStatus,
  Health as HealthService,
} from '../../gen/grpc/health/v1/health_pb.ts';
import { ApiError } from '../keys/errors.ts';

const CHECK_MS = 1_000;
const ANSWER_MS = 2_000;

/** The service that is SERVING for as long as only a new process could do better: a store that is away is waited for. */
const LIVENESS = 'liveness';

const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;

/** Whether this process can decide: SERVING while the store answers, NOT_SERVING again when it does not. */
export class Health {
  readonly #services: ReadonlySet<string>;
  readonly #ping: () => Promise<void>;
  readonly #changed: (serving: boolean) => void;
  readonly #watchers = new Set<() => void>();
  #serving = false;
  #stopped = false;
  #broken = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param ping rejects when no decision could be made now; no response in 2 s counts as that. */
  constructor(services: readonly string[], ping: () => Promise<void>, changed: (serving: boolean) => void) {
    this.#services = new Set(['', LIVENESS, HealthService.typeName, ...services]);
    this.#ping = ping;
    this.#changed = changed;
  }

  get serving(): boolean {
    return this.#serving;
  }

  /** grpc.health.v1.Health, without a credential. */
  addTo(router: ConnectRouter): void {
    router.service(HealthService, {
      check: ({ service }) => {
        if (!this.#services.has(service)) throw new ConnectError('not served here', Code.NotFound);
        return { status: this.#status(service) };
      },
      watch: ({ service }, { signal }) => this.#watch(service, signal),
    });
  }

  #status(service: string): HealthCheckResponse_ServingStatus {
    if (!this.#services.has(service)) return SERVICE_UNKNOWN;
    const well = service === LIVENESS ? this.alive : this.#serving;
    return well ? SERVING : NOT_SERVING;
  }

  /** The state, and each new one; a reader that is slow skips to the newest. Ends with the process. */
  async *#watch(service: string, signal: AbortSignal) {
    let wake = () => {};
    const changed = () => wake();
    this.#watchers.add(changed);
    signal.addEventListener('abort', changed);
    try {
      let told: HealthCheckResponse_ServingStatus | undefined;
      while (!signal.aborted) {
        const status = this.#status(service);
        if (status !== told) {
          told = status;
          yield { status };
        } else if (this.#stopped) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.#watchers.delete(changed);
    }
  }

  /** Checks now and from then on every second. */
  async start(): Promise<void> {
    await this.#check();
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.start(), CHECK_MS).unref();
  }

  /** False when nothing can be decided here any more, whatever is waited for. */
  get alive(): boolean {
    return !this.#broken;
  }

  /** The process is broken, and is about to end. */
  break(): void {
    this.#broken = true;
    this.stop();
  }

  /** NOT_SERVING from now on: the process is ending. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#stopped = true;
    this.#set(false);
    this.#wakeWatchers();
  }

  async #check(): Promise<void> {
    if (this.#stopped) return;
    let overdue: NodeJS.Timeout | undefined;
    try {
      await Promise.race([
        this.#ping(),
        new Promise((_, reject) => {
          const late = new ApiError('STORE_UNAVAILABLE', 'the store does not answer');
          overdue = setTimeout(() => reject(late), ANSWER_MS).unref();
        }),
      ]);
      if (!this.#stopped) this.#set(true);
    } catch {
      // The reason is told where the failing work is done; here only the fact counts.
      this.#set(false);
    } finally {
      clearTimeout(overdue);
    }
  }

  #set(serving: boolean): void {
    if (serving === this.#serving) return;
    this.#serving = serving;
    this.#wakeWatchers();
    if (!this.#stopped) this.#changed(serving);
  }

  #wakeWatchers(): void {
    for (const wake of this.#watchers) wake();
  }
}
