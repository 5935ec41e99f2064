import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type LostRange, restoredEntries } from '../audit/checkpoint.ts';
import { AuditVerifier } from '../audit/verify.ts';
import { CliError, EXIT } from '../cli/client.ts';
import type { Config } from '../config.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { openReplacement } from '../store/open-store.ts';
import type { RevocationLog } from '../store/revocation-log.ts';
import { type PresentStore, StartError, type Store, type StoreReplacement } from '../store/store.ts';
import { checksumFileOf, isAsWritten } from './checksum.ts';
import { openConfiguredStore } from './configured-store.ts';
import { anchorOf, unreadableAnchor } from './proof.ts';
import { REVISION_GAP } from './reconcile.ts';
import { openConfiguredLog } from './revocations.ts';
import type { Logger } from './telemetry.ts';

/** The stage of a restore; progress is in bytes copied or in events verified. */
export type RestoreStage = 'copying' | 'verifying';

export interface RestoreParts {
  readonly config: Config;
  readonly file: string;
  /** Continue even if the revocation log does not reach back to the backup. */
  readonly withoutLog: boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Receives the progress; `total` is 0 when unknown. */
  readonly told: (stage: RestoreStage, done: number, total: number) => void;
}

export interface Restored {
  /** The backup's revision. */
  readonly revision: number;
  readonly checkedEvents: number;
  /** Events known to have existed that the backup lacks. */
  readonly lostEvents: number;
  /** Keys whose last standing the next start compares with the log; undefined without a log. */
  readonly keysToCheck: number | undefined;
  /** The path of the replaced store; undefined when there was none. */
  readonly before: string | undefined;
}

/**
 * Replaces the embedded store with a backup. The store is not touched until every check has passed.
 * @throws CliError, StartError, ConfigError
 */
export async function restore(parts: RestoreParts): Promise<Restored> {
  const { config, file, told } = parts;
  if (!config.STORE_URL.startsWith('sqlite:'))
    throw new StartError(
      78,
      'STORE_URL: a store on MongoDB is restored with its own tools: docs/runbooks.md, "Restore"',
    );
  const replacement = await openReplacement(config.STORE_URL);
  try {
    const present = replacement.present();
    await checkChecksum(parts);
    await replacement
      .copyIn(file, (done, total) => told('copying', done, total))
      .catch((error: Error) => {
        throw refused(`${file} cannot be restored: ${error.message}`);
      });
    return await restoreCopy(parts, replacement, present);
  } finally {
    await replacement.close();
  }
}

async function checkChecksum({ file, logger }: RestoreParts): Promise<void> {
  const right = await isAsWritten(file).catch((error: Error) => {
    throw refused(`${file} cannot be restored: ${error.message}`);
  });
  if (right === false)
    throw refused(`${file} cannot be restored: it is not what ${checksumFileOf(file)} says`);
  if (right === undefined)
    logger.warn({ file: checksumFileOf(file) }, 'the backup has no checksum beside it');
}

async function restoreCopy(
  parts: RestoreParts,
  replacement: StoreReplacement,
  present: PresentStore | undefined,
): Promise<Restored> {
  const { config, clock, logger } = parts;
  const store = await openConfiguredStore({ ...config, STORE_URL: replacement.copyUrl }, clock, logger);
  let log: RevocationLog | undefined;
  try {
    const checkedEvents = await verified(parts, store);
    const revision = await store.keys.revision();
    log = await openConfiguredLog(config, store, clock, logger);
    const reach = await log?.reach();
    if (!parts.withoutLog) requireReach(reach?.begins, revision);
    const anchor = anchorOf(config, store, clock, logger);
    const anchored = await anchor?.read();
    if (anchor !== undefined && anchored === undefined) throw unreadableAnchor(config);
    const known = [present?.places ?? new Map(), await log?.places(), placesOf(anchored ?? [])];
    const lost = lostRanges(known, placesOf(await store.chainLog.heads()));
    const next = Math.max(revision, present?.revision ?? 0, reach?.highest ?? 0) + REVISION_GAP;
    await store.recovery.begin(revision, next);
    if (reach === undefined) await store.recovery.end();
    for (const entry of restoredEntries(lost, clock.now())) await store.audit.record(entry);
    const keysToCheck = reach === undefined ? undefined : ((await log?.since(revision))?.size ?? 0);
    const heads = await store.chainLog.heads();
    await store.close();
    const time = new Date(clock.now()).toISOString().replaceAll(/[-:]|\.\d+/g, '');
    const path = resolve(config.STORE_URL.replace(/^sqlite:(\/\/)?/, ''));
    await lapsed(present?.longestLeaseMs ?? 0);
    const before = await replacement.put(`${path}.before-restore-${time}`);
    // The recorded event accounts for the events lost up to this point.
    await anchor?.beginAnew(heads.filter(({ sequence }) => sequence > 0));
    const lostEvents = lost.reduce((sum, { from, to }) => sum + to - from + 1, 0);
    return { revision, checkedEvents, lostEvents, keysToCheck, before };
  } catch (error) {
    await store.close().catch(() => {});
    throw error;
  } finally {
    await log?.close();
  }
}

/** The backup may not know of leases that guards still hold: no server starts until they are over. */
async function lapsed(longestLeaseMs: number): Promise<void> {
  if (longestLeaseMs > 0) await delay(longestLeaseMs * 1.2 + 20);
}

async function verified({ file, clock, told }: RestoreParts, store: Store): Promise<number> {
  const { chainLog: log, chain } = store;
  const total = await store.audit.count();
  const verifier = new AuditVerifier({ log, chain, clock, told: (done) => told('verifying', done, total) });
  const { checkedEvents, defect } = await verifier.verify();
  if (defect === undefined) return checkedEvents;
  const { kind, processId, sequence } = defect;
  throw refused(
    `${file} cannot be restored: its audit is not intact, or AUDIT_CHAIN_KEY_FILE is another one (${kind}, chain ${processId}, place ${sequence})`,
  );
}

function refused(text: string): CliError {
  return new CliError(EXIT.denied, `${text}; nothing was changed`);
}

/** @param begins undefined without a log */
function requireReach(begins: number | undefined, revision: number): void {
  if (begins !== undefined && begins <= revision) return;
  const why =
    begins === undefined
      ? 'there is no log of what was revoked since'
      : `it begins at revision ${begins}, and the backup ends at ${revision}`;
  throw refused(
    `REVOCATION_LOG: ${why}: name the log that was kept, or restore with --without-log, and revoke again by hand what was revoked since the backup`,
  );
}

function placesOf(
  places: readonly { readonly processId: string; readonly sequence: number }[],
): Map<string, number> {
  return new Map(places.map(({ processId, sequence }) => [processId, sequence]));
}

/** Ranges of events that the chains are known to have had and the backup lacks. */
function lostRanges(
  known: readonly (ReadonlyMap<string, number> | undefined)[],
  stands: ReadonlyMap<string, number>,
): LostRange[] {
  const ends = new Map<string, number>();
  for (const places of known)
    for (const [processId, to] of places ?? []) ends.set(processId, Math.max(to, ends.get(processId) ?? 0));
  return [...ends].flatMap(([processId, to]) => {
    const from = (stands.get(processId) ?? 0) + 1;
    return from <= to ? [{ processId, from, to }] : [];
  });
}
