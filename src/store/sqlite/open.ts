import { randomBytes } from 'node:crypto';
import { Chain } from '../../audit/chain.ts';
import { RETIRED_MS } from '../../keys/rotation.ts';
import type { Store, StoreOptions } from '../store.ts';
import { SqliteAlertLog } from './alerts.ts';
import { SqliteAnomalyLog } from './anomalies.ts';
import { SqliteAuditLog } from './audit-log.ts';
import { copyStore } from './backup.ts';
import { chainBeginning, SqliteChainLog } from './chain-log.ts';
import { Committer } from './committer.ts';
import { SqliteDatabase } from './database.ts';
import { DeferredRows } from './deferred-rows.ts';
import { SqliteKeyStore } from './key-store.ts';
import { DROP_LOCAL_USES, KEEP_LOCAL_USES_MS, SqliteLending, SqliteLocalUses } from './lending.ts';
import { SqliteLockout } from './lockout.ts';
import { SqliteQuota } from './quota.ts';
import { SqliteRecovery } from './recovery.ts';
import { SqliteRemoteKeyLog } from './remote-keys.ts';
import { SqliteRotationLog } from './rotations.ts';
import type { Statement } from './thread-messages.ts';
import { SqliteUsageLog } from './usage.ts';

/** What a sweep drops. */
function drops(now: number): Statement[] {
  return [
    { sql: 'DELETE FROM api_key_lockouts WHERE expire < ?', params: [now] },
    { sql: 'DELETE FROM api_key_retired_secrets WHERE retire_time < ?', params: [now - RETIRED_MS] },
    { sql: DROP_LOCAL_USES, params: [now - KEEP_LOCAL_USES_MS] },
  ];
}

/** Opens `sqlite:PATH` and creates a missing file and folder. One process per file. */
export async function openSqliteStore({
  url,
  clock,
  lockout,
  lease,
  chainKey,
  broken = () => {},
  observer,
}: StoreOptions): Promise<Store> {
  const path = url.replace(/^sqlite:(\/\/)?/, '');
  const processId = randomBytes(8).toString('hex');
  const database = SqliteDatabase.open(path, processId, chainKey, broken);
  const lockTaken = clock.monotonic();
  const chain = new Chain(chainKey);
  const deferred = new DeferredRows(database);
  const committer = new Committer(
    database,
    deferred,
    clock,
    () => chainBeginning(database, chain, processId, clock.now()),
    (events, ms) => observer?.wroteEvents(events, ms),
  );
  const audit = new SqliteAuditLog(database, committer, clock);
  const usage = new SqliteUsageLog(database, committer);
  const keys = new SqliteKeyStore(database, committer, deferred.lastUses);
  return {
    keys,
    quota: new SqliteQuota(deferred.quotas, clock),
    lockout: await SqliteLockout.open(lockout, committer, database, clock),
    audit,
    chain,
    chainLog: new SqliteChainLog(database, committer, chain, processId),
    rotations: new SqliteRotationLog(database, committer),
    anomalies: new SqliteAnomalyLog(database, committer),
    alerts: new SqliteAlertLog(database, committer),
    usage,
    giteaTokens: new SqliteRemoteKeyLog('gitea_tokens', database, committer),
    n8nApiKeys: new SqliteRemoteKeyLog('n8n_api_keys', database, committer),
    // Only one process uses the file, so the sweep lease is always free.
    sweepLease: { take: async () => true, release: async () => {} },
    recovery: new SqliteRecovery(database, committer, (revision) => keys.skipTo(revision)),
    copyTo: (file, told) => copyStore(path, file, told),
    sharing: undefined,
    lending: new SqliteLending({
      database,
      committer,
      recent: keys.recent,
      leaseMs: lease.leaseMs,
      lockTaken,
    }),
    localUses: new SqliteLocalUses(committer, clock),
    auditBacklog: () => audit.backlog,
    seenTime: await newestTime(database),
    // A transaction without a change shows that the writer thread is alive and can commit.
    ping: async () => void (await committer.write([{ sql: 'SELECT 1', params: [] }])),
    sweep: async (dropOld = true) => {
      if (dropOld) await committer.write(drops(clock.now()));
    },
    close: async () => {
      await audit.flushGaps();
      await committer.drained();
      await usage.flush().catch(() => {
        // Unwritten counts are counted again from the log at the next start.
      });
      await database.close();
    },
  };
}

/** The newest time among the last 1 000 events: calls end in another order than they began. */
async function newestTime(database: SqliteDatabase): Promise<number | undefined> {
  const latest = 'SELECT time FROM api_key_audit_log ORDER BY row DESC LIMIT 1000';
  const [row] = await database.query(`SELECT max(time) AS time FROM (${latest})`, []);
  return typeof row?.time === 'number' ? row.time : undefined;
}
