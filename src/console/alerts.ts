import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { signal } from '@preact/signals';
import type { Alert } from '../../gen/apikey/v1/watch_pb.ts';
import { serverNow } from './server-clock.ts';
import { type Clients, endIfRefused } from './session.ts';

const KEPT = 200;
const DAY_MS = 86_400_000;
const SHOW_EVERY_MS = 250;
const WAIT_MS = { first: 500, most: 15_000 };

/** The newest alerts, and how many came while the page of alerts was not shown. */
export const alerts = signal<{ list: readonly Alert[]; unseen: number }>({ list: [], unseen: 0 });

export function alertsSeen(): void {
  if (alerts.value.unseen > 0) alerts.value = { ...alerts.value, unseen: 0 };
}

/**
 * Follows the alerts, from a day ago on, and reconnects when the stream ends. The server ends the stream of a key that
 * no longer works, so the session ends within a second. Alerts are shown in batches, four times a second.
 */
export function watchAlerts(clients: Clients): () => void {
  const stop = new AbortController();
  const seen = new Set<string>();
  let waiting: Alert[] = [];
  const begun = serverNow();
  let since = begun - DAY_MS;
  const show = setInterval(() => {
    if (waiting.length === 0) return;
    const live = waiting.filter(
      ({ time }) => time !== undefined && Number(time.seconds) * 1000 >= begun - 1_000,
    );
    alerts.value = {
      list: [...waiting.toReversed(), ...alerts.value.list].slice(0, KEPT),
      unseen: alerts.value.unseen + live.length,
    };
    waiting = [];
  }, SHOW_EVERY_MS);
  const follow = async () => {
    for (let wait = WAIT_MS.first; !stop.signal.aborted; wait = Math.min(2 * wait, WAIT_MS.most)) {
      try {
        const sinceTime = timestampFromMs(since);
        for await (const { alert } of clients.admin.watchAlerts({ sinceTime }, { signal: stop.signal })) {
          wait = WAIT_MS.first;
          if (alert === undefined || seen.has(alert.id)) continue;
          seen.add(alert.id);
          if (seen.size > 10 * KEPT) for (const oldest of seen) if (seen.delete(oldest)) break;
          if (alert.time !== undefined) since = Math.max(since, Number(alert.time.seconds) * 1000);
          waiting.push(alert);
          if (waiting.length > KEPT) waiting.shift();
        }
      } catch (error) {
        // The server is unreachable or has ended the stream: reconnect.
        endIfRefused(error);
      }
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
    }
  };
  alerts.value = { list: [], unseen: 0 };
  void follow();
  return () => {
    stop.abort();
    clearInterval(show);
  };
}
