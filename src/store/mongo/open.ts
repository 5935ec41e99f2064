import { randomBytes } from 'node:crypto';
import { Chain } from '../../audit/chain.ts';
import { EventFactory } from '../../audit/event.ts';
import { Lease } from '../lease.ts';
import type { Store, StoreOptions } from '../store.ts';
import { StartError } from '../store.ts';
import { MongoAlertLog } from './alerts.ts';
import { MongoAnomalyLog } from './anomalies.ts';
import { MongoAuditLog } from './audit-log.ts';
import { MongoChainLog } from './chain-log.ts';
import { MongoDatabase } from './database.ts';
import { FreshReads } from './fresh-reads.ts';
import { MongoKeyStore } from './key-store.ts';
import { guardSecret, MongoLocalUses } from './local-uses.ts';
import { MongoLockout } from './lockout.ts';
import { migrate } from './migrations.ts';
import { MongoQuota } from './quota.ts';
import { MongoRecovery } from './recovery.ts';
import { Registry } from './registry.ts';
import { MongoRemoteKeyLog } from './remote-keys.ts';
import { MongoRotationLog } from './rotations.ts';
import { MongoSharing } from './sharing.ts';
import { MongoSweepLease } from './sweep-lease.ts';
import { MongoUsageLog } from './usage.ts';

const CLOSE_WAIT_MS = 3_000;
/** The time limit of a schema command: building an index over many events takes longer than a call may. */
const SCHEMA_MS = 3_600_000;

/** Opens `mongodb://…`: connects, migrates the schema and waits for its indexes. */
export async function openMongoStore({
  url,
  clock,
  lockout,
  lease,
  chainKey,
  warn,
  observer,
}: StoreOptions): Promise<Store> {
  const database = await MongoDatabase.connect(url);
  try {
    await prepare(url, new Chain(chainKey));
    return await storeOn(database, { clock, lockout, lease, chainKey, warn, observer });
  } catch (error) {
    await database.close();
    if (error instanceof StartError) throw error;
    throw new StartError(69, `STORE_URL: the store cannot be prepared: ${(error as Error).message}`, error);
  }
}

/** Migrates the schema on a connection of its own, with a longer time limit. */
async function prepare(url: string, chain: Chain): Promise<void> {
  const database = await MongoDatabase.connect(url, 'STORE_URL', SCHEMA_MS);
  try {
    await migrate(database, chain);
  } finally {
    await database.close();
  }
}

async function storeOn(
  database: MongoDatabase,
  { clock, lockout, lease, chainKey, warn, observer }: Omit<StoreOptions, 'url'>,
): Promise<Store> {
  const chain = new Chain(chainKey);
  const processId = randomBytes(8).toString('hex');
  const registry = new Registry(database, processId, lease.leaseMs, lease.caches, clock, (ms) =>
    observer?.took('wait_for_leases', ms),
  );
  const usage = new MongoUsageLog(database, processId, registry);
  const wrote = (events: number, ms: number) => observer?.wroteEvents(events, ms);
  const audit = new MongoAuditLog(database, new EventFactory(processId), chain, clock, warn, usage, wrote);
  const held = new Lease(clock, lease.leaseMs);
  const reads = new FreshReads(database, held);
  const keys = new MongoKeyStore({ database, audit, registry, reads, clock });
  const anomalies = new MongoAnomalyLog(database, audit);
  const remoteKeys = {
    giteaTokens: new MongoRemoteKeyLog(() => database.giteaTokens, audit),
    n8nApiKeys: new MongoRemoteKeyLog(() => database.n8nApiKeys, audit),
  };
  const locks = await MongoLockout.open(database, lockout, held, clock);
  const polling = { lease: held, pollMs: lease.pollMs, guardSecret: await guardSecret(database) };
  const parts = { database, registry, keys, reads, audit, usage, clock, warn };
  const sharing = new MongoSharing({ ...parts, ...polling, lockout: locks });
  return {
    keys,
    quota: new MongoQuota(database, processId),
    lockout: locks,
    audit,
    chain,
    chainLog: new MongoChainLog(database, audit, chain, (id) => usage.reachOf(id)),
    rotations: new MongoRotationLog(database),
    anomalies,
    alerts: new MongoAlertLog(database),
    usage,
    ...remoteKeys,
    sweepLease: new MongoSweepLease(database, processId),
    recovery: await MongoRecovery.open(database),
    sharing,
    lending: sharing,
    localUses: new MongoLocalUses(audit),
    auditBacklog: () => audit.backlog,
    ping: async () => {
      await keys.revision();
      await sharing.healthy();
    },
    // Work that crashes cut short; TTL indexes drop counters.
    sweep: async () => {
      await keys.finishAbandoned();
      for (const log of [anomalies, ...Object.values(remoteKeys)]) await log.finishAbandoned(clock.now());
      await usage.countAbandoned();
    },
    close: async () => {
      await sharing.stop();
      await audit.close(CLOSE_WAIT_MS);
      // Another process counts unwritten counts from the log.
      await usage.flush().catch((error) => warn('counts of decisions are left to another process', error));
      await database.close();
    },
  };
}
