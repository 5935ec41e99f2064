import { auditEntry } from '../keys/audit-entry.ts';
import type { Key } from '../keys/key.ts';
import { type Correction, correctionOf, standingOf } from '../keys/narrowing.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { RevocationRecord } from '../keys/ports/revocations.ts';
import { mintEtag } from '../keys/secret.ts';
import type { LogReach, RevocationLog } from '../store/revocation-log.ts';
import { StartError, type Store } from '../store/store.ts';
import { localOrigin } from './bootstrap.ts';
import type { Logger } from './telemetry.ts';

/** Revisions skipped after a restore: no client has seen a number this far beyond the log's. */
export const REVISION_GAP = 1_000_000;
/** How many changes the stores remember. */
const REMEMBERED = 1_000;
/** How many keys are corrected at once. */
const AT_ONCE = 64;
const PAGE = 1_000;
const MAX_STEPS = 32;

export type ReconciledStore = Pick<Store, 'keys' | 'recovery'>;

export interface Reconciled {
  /** Changes of the log that were applied again. */
  readonly again: number;
  /** Keys in the log but not in the store: they were created after the backup. */
  readonly unknown: number;
  /** Keys whose last change was only in the store. */
  readonly added: number;
}

/**
 * Before the first response, applies changes that the log has and the store lacks, each with its event, and records
 * changes that the store has and the log lacks. @throws StartError
 */
export async function reconcile(
  { keys, recovery }: ReconciledStore,
  log: RevocationLog | undefined,
  clock: Clock,
  logger: Logger,
): Promise<Reconciled> {
  const nothing = { again: 0, unknown: 0, added: 0 };
  let behind = await recovery.behindSince();
  if (log === undefined) {
    if (behind !== undefined) throw unfinished('is off');
    return nothing;
  }
  let reach = await log.reach();
  // Read after the log, so that the store contains everything that others have logged until then.
  const revision = await keys.revision();
  if (reach === undefined) {
    if (behind !== undefined) throw unfinished('is empty');
    await log.begin(revision);
    if (revision > 0) logger.warn({ revision }, 'REVOCATION_LOG begins: backups from before are not covered');
    reach = { begins: revision, covered: revision, highest: revision };
  }
  if (behind === undefined && reach.highest > revision) {
    behind = revision;
    logger.warn({ revision, log: reach.highest }, 'the store is behind REVOCATION_LOG: an earlier copy');
    await recovery.begin(revision, reach.highest + REVISION_GAP);
  }
  const made = behind === undefined ? nothing : await makeAgain(keys, log, behind, clock, logger);
  if (behind !== undefined) await recovery.end();
  const added = await addMissing(keys, log, reach, clock);
  await log.cover(await keys.revision());
  if (added > 0) logger.info({ keys: added }, 'noted in REVOCATION_LOG what a crash had kept from it');
  return { ...made, added };
}

function unfinished(how: string): StartError {
  return new StartError(
    69,
    `REVOCATION_LOG: ${how}, and the store was restored: what was revoked since its backup would work again. Name the log that was kept, or restore with --without-log`,
  );
}

async function makeAgain(
  keys: Store['keys'],
  log: RevocationLog,
  behind: number,
  clock: Clock,
  logger: Logger,
): Promise<Pick<Reconciled, 'again' | 'unknown'> & { added: number }> {
  let again = 0;
  let unknown = 0;
  const records = [...(await log.since(behind)).values()];
  const one = async (record: RevocationRecord) => {
    const steps = await putRight(keys, record, log, clock);
    if (steps === undefined) unknown++;
    else again += steps;
  };
  for (let at = 0; at < records.length; at += AT_ONCE)
    await Promise.all(records.slice(at, at + AT_ONCE).map(one));
  logger.warn(
    { changes: again, unknown_keys: unknown },
    'applied again the revocations, narrowings and rotations that the store lacked',
  );
  return { again, unknown, added: 0 };
}

/** The number of changes made; undefined when the store does not have the key. */
async function putRight(
  keys: Store['keys'],
  record: RevocationRecord,
  log: RevocationLog,
  clock: Clock,
): Promise<number | undefined> {
  let key = await keys.get(record.keyId);
  if (key === undefined) return undefined;
  let steps = 0;
  for (let tries = 0; tries < MAX_STEPS; tries++) {
    const correction: Correction | undefined = correctionOf(key, record.standing, record.retired);
    if (correction === undefined) {
      if (steps > 0) await log.append(recordOf(key, clock, record.retired));
      return steps;
    }
    // Newer and logged: another process has corrected the key and serves calls already. Else a crash came in between.
    if (steps === 0 && key.revision > record.revision && (await isNoted(log, record))) return 0;
    const stored: Key | undefined = await keys.replace(
      { ...correction.key, etag: mintEtag() },
      key.etag,
      correction.change,
      eventOf(correction, record, clock),
      correction.effects,
    );
    if (stored !== undefined) steps++;
    // Another starting process was faster.
    key = stored ?? (await keys.get(record.keyId)) ?? key;
  }
  throw new StartError(69, `REVOCATION_LOG: key ${record.keyId} cannot be restored to its last state`);
}

function eventOf({ facet, key }: Correction, { revision }: RevocationRecord, clock: Clock) {
  const reason = `${facet} again after a restore, as of revision ${revision}`;
  return auditEntry(localOrigin('apikeyd/reconcile', clock), clock, { outcome: 'OK', keyId: key.id, reason });
}

async function isNoted(log: RevocationLog, { keyId, revision }: RevocationRecord): Promise<boolean> {
  return ((await log.revisionsOf(new Set([keyId]))).get(keyId) ?? 0) > revision;
}

function recordOf(key: Key, clock: Clock, retired: RevocationRecord['retired'] = []): RevocationRecord {
  return { keyId: key.id, revision: key.revision, time: clock.now(), standing: standingOf(key), retired };
}

/** Logs changes committed without a record, before a crash or while the log was off. Returns the number of keys. */
async function addMissing(
  keys: Store['keys'],
  log: RevocationLog,
  { begins, covered }: LogReach,
  clock: Clock,
): Promise<number> {
  const revision = await keys.revision();
  const from = Math.max(begins, Math.min(covered, revision) - REMEMBERED / 2);
  const { changes } = await keys.changesSince(from);
  const changed = changes?.filter(({ change }) => change !== 'CREATED').map(({ keyId }) => keyId);
  let added = 0;
  for await (const some of changed === undefined ? allSince(keys, covered) : [await read(keys, changed)]) {
    const noted = await log.revisionsOf(new Set(some.map(({ id }) => id)));
    const missing = some.filter((key) => key.revision > (noted.get(key.id) ?? 0));
    await Promise.all(missing.map((key) => log.append(recordOf(key, clock))));
    added += missing.length;
  }
  return added;
}

async function read(keys: Store['keys'], ids: readonly string[]): Promise<Key[]> {
  const found = await Promise.all([...new Set(ids)].map((id) => keys.get(id)));
  return found.filter((key) => key !== undefined);
}

async function* allSince(keys: Store['keys'], revision: number): AsyncGenerator<Key[]> {
  let after: readonly (string | number)[] | undefined;
  do {
    const page = await keys.list({}, { size: PAGE, after });
    const changed = page.items.filter((key) => key.revision > revision);
    if (changed.length > 0) yield changed;
    after = page.next;
  } while (after !== undefined);
}
