import { randomBytes } from 'node:crypto';
import type { LocalUse, LocalUses } from '../../keys/ports/guards.ts';
import type { MongoAuditLog } from './audit-log.ts';
import type { MongoDatabase } from './database.ts';
import { guarded } from './errors.ts';

const ID = { _id: 'guards' };

/** The event of a use has the id of the use, so the log itself refuses a second one. */
export class MongoLocalUses implements LocalUses {
  readonly #audit: MongoAuditLog;

  constructor(audit: MongoAuditLog) {
    this.#audit = audit;
  }

  async record(uses: readonly LocalUse[]): Promise<void> {
    const servedBy = this.#audit.events.processId;
    await Promise.all(uses.map(({ id, entry }) => this.#audit.append({ id, entry, servedBy })));
  }
}

/** The key of grant tokens: the first process makes it. */
export async function guardSecret(database: MongoDatabase): Promise<string> {
  const update = { $setOnInsert: { secret: randomBytes(32).toString('hex') } };
  await guarded((limits) => database.meta.updateOne(ID, update, { upsert: true, ...limits })).catch(() => {
    // Another process inserted it at the same moment, or the read below fails, too.
  });
  const doc = await guarded((limits) => database.meta.findOne(ID, limits));
  if (doc?.secret === undefined) throw new Error('no key for the grants of guards');
  return doc.secret;
}
