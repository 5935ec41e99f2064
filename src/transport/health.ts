import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect';
import {
  HealthCheckResponse_ServingStatus,
  Health as HealthService,
} from '../../gen/grpc/health/v1/health_pb.ts';
import { ApiError } from '../keys/errors.ts';

const CHECK_MS = 1_000;
const ANSWER_MS = 2_000;

/** The service that is SERVING until only a restart would help: an unavailable store alone does not change it. */
const LIVENESS = 'liveness';

const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;

/** Whether this process can make decisions: SERVING while the store answers, otherwise NOT_SERVING. */
export class Health {
  readonly #services: ReadonlySet<string>;
  readonly #ping: () => Promise<void>;
  readonly #changed: (serving: boolean) => void;
  readonly #watchers = new Set<() => void>();
  #serving = false;
  #stopped = false;
  #broken = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param ping rejects when no decision can be made; no response within 2 s counts as a rejection. */
  constructor(services: readonly string[], ping: () => Promise<void>, changed: (serving: boolean) => void) {
    this.#services = new Set(['', LIVENESS, HealthService.typeName, ...services]);
    this.#ping = ping;
    this.#changed = changed;
  }

  get serving(): boolean {
    return this.#serving;
  }

  /** Adds grpc.health.v1.Health, which needs no credential. */
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

  /** Yields the state and each new state; a slow reader skips to the newest. Ends with the process. */
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

  /** Checks now, and then every second. */
  async start(): Promise<void> {
    await this.#check();
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.start(), CHECK_MS).unref();
  }

  /** False when this process can never make decisions again. */
  get alive(): boolean {
    return !this.#broken;
  }

  /** The process is broken and about to exit. */
  break(): void {
    this.#broken = true;
    this.stop();
  }

  /** Stays NOT_SERVING from now on: the process is shutting down. */
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
      // The failing operation reports its own reason; here only the failure counts.
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
