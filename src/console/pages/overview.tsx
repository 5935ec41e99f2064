import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { KeyStatus } from '../../../gen/apikey/v1/key_pb.ts';
import { AnomalyState } from '../../../gen/apikey/v1/watch_pb.ts';
import { version } from '../../../package.json';
import { UsageChart } from '../chart.tsx';
import { Facts, Link, Problem, useLoaded } from '../parts.tsx';
import { askReadiness, serverNow } from '../server-clock.ts';
import type { Session } from '../session.ts';
import { timeOf } from '../words.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** Keys that expire within a week or whose rotation is due, out of the first thousand active ones. */
async function dueKeys({ clients }: Session) {
  const { keys } = await clients.admin.listKeys({ status: KeyStatus.ACTIVE, pageSize: 1_000 });
  const soon = BigInt(Math.floor((serverNow() + 7 * DAY_MS) / 1000));
  return keys
    .filter(
      ({ expireTime, rotationDueTime }) =>
        (expireTime !== undefined && expireTime.seconds < soon) ||
        (rotationDueTime !== undefined && rotationDueTime.seconds < soon),
    )
    .slice(0, 20);
}

export function OverviewPage({ session }: { session: Session }) {
  const now = serverNow();
  const { admin } = session.clients;
  const { data, error } = useLoaded(async () => {
    const [stats, usage, anomalies, lockouts, due, ready] = await Promise.all([
      admin.getStats({}),
      admin.getUsage({ startTime: timestampFromMs(now - DAY_MS), endTime: timestampFromMs(now) }),
      admin.listAnomalies({ state: AnomalyState.OPEN, pageSize: 100 }),
      admin.listLockouts({ pageSize: 100 }),
      dueKeys(session),
      askReadiness(),
    ]);
    return { stats, usage, anomalies, lockouts, due, ready };
  }, 'overview');
  if (data === undefined)
    return error === undefined ? <p class="empty">Loading …</p> : <Problem error={error} />;
  const { stats, usage, anomalies, lockouts, due, ready } = data;
  return (
    <>
      <Problem error={error} />
      <div class="tiles">
        <Link to="keys" class="tile">
          <b>{String(stats.keysByStatus.ACTIVE ?? 0n)}</b> active keys
        </Link>
        <Link to="notices" class={anomalies.anomalies.length > 0 ? 'tile bad' : 'tile'}>
          <b>{anomalies.anomalies.length}</b> open anomalies
        </Link>
        <Link to="notices" class={lockouts.lockouts.length > 0 ? 'tile bad' : 'tile'}>
          <b>{lockouts.lockouts.length}</b> locked out addresses
        </Link>
        <div class={ready ? 'tile' : 'tile bad'}>
          <b>{ready ? 'Serving' : 'Not serving'}</b>{' '}
          {ready ? 'the store answers' : 'the store does not answer'}
        </div>
      </div>
      <section>
        <h2>Decisions in the last 24 hours</h2>
        <UsageChart rows={usage.rows} stepMs={HOUR_MS} from={now - DAY_MS} to={now} />
      </section>
      <section>
        <h2>Keys that need somebody within a week</h2>
        {due.length === 0 ? (
          <p class="empty">No key expires and no rotation is due.</p>
        ) : (
          <ul class="list">
            {due.map((key) => (
              <li key={key.id}>
                <Link to={`keys/${key.id}`}>{key.name}</Link>{' '}
                {key.expireTime !== undefined && `expires ${timeOf(key.expireTime)}`}
                {key.rotationDueTime !== undefined && ` rotation due ${timeOf(key.rotationDueTime)}`}
              </li>
            ))}
          </ul>
        )}
      </section>
      <Facts
        rows={[
          ['Audit events', String(stats.auditEvents)],
          ['Revision', String(stats.revision)],
          ['Revoked keys', String(stats.keysByStatus.REVOKED ?? 0n)],
          ['Version', version],
        ]}
      />
    </>
  );
}
