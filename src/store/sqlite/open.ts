import { randomBytes } from 'node:crypto';
import type { Store, StoreOptions } from '../store.ts';
import { SqliteAuditLog } from './audit-log.ts';
import { Committer } from './committer.ts';
import { SqliteDatabase } from './database.ts';
import { SqliteKeyStore } from './key-store.ts';
import { LimitRows } from './limit-rows.ts';
import { SqliteLockout } from './lockout.ts';
import { SqliteQuota } from './quota.ts';

/** Opens `sqlite:PATH`, making the file and its folder when they are not there. One process a file. */
export async function openSqliteStore({ url, clock, lockout }: StoreOptions): Promise<Store> {
  const path = url.replace(/^sqlite:(\/\/)?/, '');
  const database = SqliteDatabase.open(path, randomBytes(8).toString('hex'));
  const rows = new LimitRows(database);
  const committer = new Committer(database, rows, clock);
  const audit = new SqliteAuditLog(database, committer, clock);
  const dropOver = 'DELETE FROM api_key_limits WHERE expire_time < ?';
  return {
    keys: new SqliteKeyStore(database, committer),
    quota: new SqliteQuota(rows, clock),
    lockout: await SqliteLockout.open(lockout, rows, database, clock),
    audit,
    // An empty transaction: shows that the writer thread lives and can write.
    ping: async () => void (await committer.write([{ sql: 'SELECT 1', params: [] }])),
    sweep: async () => void (await committer.write([{ sql: dropOver, params: [clock.now()] }])),
    close: async () => {
      await audit.flushGaps();
      await committer.drained();
      await database.close();
    },
  };
}
