import { createClient } from '@redis/client';
import type { Alert } from '../keys/notices.ts';
import type { AlertSink } from './alert-raiser.ts';

/** Fixed, since dashboards subscribe to this channel. */
export const REDIS_CHANNEL = 'momentry:anomaly:alerts';

const CONNECT_MS = 3_000;
const PUBLISH_MS = 3_000;
const MAX_RECONNECT_MS = 5_000;

/** Publishes alerts as JSON on a Redis channel. Logs an outage once and reconnects by itself. */
export class RedisAlerts implements AlertSink {
  readonly #client: ReturnType<typeof createClient>;
  readonly #warn: (text: string, error: unknown) => void;
  #away = false;

  constructor(url: string, warn: (text: string, error: unknown) => void) {
    this.#warn = warn;
    this.#client = createClient({
      url,
      disableOfflineQueue: true,
      commandOptions: { timeout: PUBLISH_MS },
      socket: {
        connectTimeout: CONNECT_MS,
        reconnectStrategy: (retries) =>
          Math.min(50 * 2 ** Math.min(retries, 10), MAX_RECONNECT_MS) * (0.5 + Math.random() / 2),
      },
    });
    this.#client.on('error', (error) => this.#isAway(error));
    this.#client.on('ready', () => {
      this.#away = false;
    });
    // The client keeps trying; the handler above logs its errors.
    void this.#client.connect().catch(() => {});
  }

  async publish(alert: Alert): Promise<void> {
    try {
      await this.#client.publish(REDIS_CHANNEL, JSON.stringify(messageOf(alert)));
    } catch (error) {
      // Before the first connection there is no outage to report.
      if (this.#client.isReady) this.#isAway(error);
      throw error;
    }
  }

  close(): void {
    this.#client.destroy();
  }

  #isAway(error: unknown): void {
    if (!this.#away) this.#warn('REDIS_URL: Redis is away; alerts are published when it is back', error);
    this.#away = true;
  }
}

function messageOf({ id, type, time, keyId, clientIp, text, detail }: Alert) {
  return { id, type, time: new Date(time).toISOString(), key_id: keyId, client_ip: clientIp, text, detail };
}
