import { Anchor } from '../audit/anchor.ts';
import { AuditVerifier, type Defect } from '../audit/verify.ts';
import type { Config } from '../config.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { StartError, type Store } from '../store/store.ts';
import type { Metrics } from './metrics.ts';
import type { Logger } from './telemetry.ts';

/** The file that holds the ends of the audit's chains; undefined when none is configured. */
function anchorFileOf({
  AUDIT_ANCHOR_FILE: file,
  AUDIT_CHAIN_KEY_FILE: keyFile,
}: Config): string | undefined {
  if (file === 'off') return undefined;
  if (file !== '') return file;
  return keyFile === '' ? undefined : `${keyFile}.anchor`;
}

/** The parts that prove the audit: the verifier, and the anchor that it compares with. */
export function composeProof(
  config: Config,
  store: Store,
  clock: Clock,
  logger: Logger,
  metrics: Metrics,
): { anchor: Anchor | undefined; verifier: AuditVerifier } {
  const anchor = anchorOf(config, store, clock, logger, (ok) => metrics.anchorWritten(ok));
  const anchored = anchor && (() => anchor.read());
  const found = (defect: Defect) => {
    metrics.defectFound();
    logger.error({ defect }, 'the audit has a defect');
  };
  const { chainLog: log, chain } = store;
  const verifier = new AuditVerifier({ log, chain, clock, anchored, found });
  return { anchor, verifier };
}

/** The configured anchor. */
export function anchorOf(
  config: Config,
  { audit, chainLog, chain }: Store,
  clock: Clock,
  logger: Logger,
  written: (ok: boolean) => void = () => {},
): Anchor | undefined {
  const file = anchorFileOf(config);
  if (file === undefined) return undefined;
  return new Anchor({
    file,
    log: audit,
    chains: chainLog,
    chain,
    clock,
    warn: (text, err) => logger.warn({ err, file }, text),
    written,
  });
}

export function unreadableAnchor(config: Config): StartError {
  return new StartError(
    69,
    `AUDIT_ANCHOR_FILE: ${anchorFileOf(config)} is not what was written there, was written with another chain key, or cannot be read; to begin a new one, move it away`,
  );
}

/** Called before the first response. @throws StartError when the store is behind its anchor */
export async function checkAnchor(anchor: Anchor | undefined, config: Config): Promise<void> {
  const lacking = await anchor?.firstLacking();
  if (lacking === undefined) return;
  const file = anchorFileOf(config);
  if (lacking === 'UNREADABLE') throw unreadableAnchor(config);
  throw new StartError(
    69,
    `AUDIT_ANCHOR_FILE: the store lacks audit events that ${file} names (chain ${lacking.processId}, place ${lacking.sequence}): it was tampered with, or it is an earlier copy. A backup is put in place with "apikeyd restore FILE", which records the loss. To go on without these events, move the file away`,
  );
}
