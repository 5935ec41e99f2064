import type { SecretSlot } from '../key.ts';
import type { Page, Paged } from './page.ts';

/** The facts about a call that every event records. */
export interface CallOrigin {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly arriveTime: number;
  readonly arriveMonotonic: number;
  /** The calling backend's address, normalised. */
  readonly peerIp: string;
  readonly callerKeyId: string;
  /** The caller's grants, the most that it may pass on. */
  readonly callerScopes: readonly string[];
  readonly requestId: string;
}

/** The audit's facts about one call; '' means not known. Times in milliseconds since 1970. */
export interface AuditEntry {
  readonly method: string;
  readonly time: number;
  readonly outcome: string;
  readonly reason: string;
  readonly keyId: string;
  readonly callerKeyId: string;
  readonly keyFingerprint: string;
  readonly requiredScope: string;
  readonly clientIp: string;
  readonly clientIpIsPeer: boolean;
  readonly userAgent: string;
  readonly secretSlot: SecretSlot | '';
  readonly cost: number;
  readonly dryRun: boolean;
  readonly latencyMicros: number;
  readonly requestId: string;
  /** Above 0 in a gap event only: calls refused without an event of their own. */
  readonly refusedCalls: number;
  /** Above 0 for decisions that a guard made by itself: how many calls from `firstTime` to `time`. */
  readonly count: number;
  readonly firstTime: number;
}

/** An entry as stored in the log. */
export interface AuditRecord extends AuditEntry {
  readonly id: string;
  /** The process that wrote the event, and the event's position in its chain. */
  readonly processId: string;
  readonly sequence: number;
  /** The process that served the call; '' when it is the writing process. */
  readonly servedBy: string;
  /** Over the event and the preceding hash, 64 lower-case hex. */
  readonly hash: string;
}

/** A position in the chain of a process, and the hash there. */
export interface ChainPlace {
  readonly processId: string;
  readonly sequence: number;
  readonly hash: string;
}

/** The end of a process's chain, as noted outside the log. */
export interface ChainHead extends ChainPlace {
  /** The process has ended cleanly: no event follows. */
  readonly closed: boolean;
  /** Written by a release whose chains did not refer to each other. */
  readonly older?: boolean;
  /** With a chain key, the proof that the note is genuine (Chain.noteMac). */
  readonly mac?: string;
  /** The position up to which retention has deleted the chain, when an event last said so, and the proof of it. */
  readonly cut?: {
    readonly sequence: number;
    readonly hash: string;
    readonly time: number;
    readonly mac: string;
  };
  /** The position up to which other chains refer to this one, and the proof of it. */
  readonly listed?: { readonly sequence: number; readonly mac: string };
}

/** A row of the log as found, tampered with or not. */
export interface ChainRow extends ChainPlace {
  readonly id: string;
  readonly servedBy: string;
  readonly time: number;
  /** The event, as hashed. */
  readonly text: string;
  /** CHANGED: the row has more or other fields than its event. UNLISTED: lists do not show the row. */
  readonly flaw?: 'CHANGED' | 'UNLISTED';
  /** Pass as `after` to continue behind this row. */
  readonly cursor: readonly (string | number)[];
}

/** The beginning of a chain, up to and including this position. */
export interface ChainPrefix extends ChainPlace {
  readonly events: number;
}

export interface AuditFilter {
  readonly keyId?: string;
  readonly callerKeyId?: string;
  readonly method?: string;
  readonly outcome?: string;
  readonly clientIp?: string;
  readonly secretSlot?: SecretSlot;
  /** Inclusive. */
  readonly startTime?: number;
  /** Exclusive. */
  readonly endTime?: number;
}

export interface AuditLog {
  /** Resolves when the event is durable. AUDIT_OVERLOADED: the queue is full. AUDIT_UNAVAILABLE: the log is down. */
  record(entry: AuditEntry): Promise<void>;
  /** Counts calls refused without an event; the count becomes one gap event when the log is available again. */
  countRefused(calls: number): void;
  /** Newest first. */
  list(filter: AuditFilter, page: Page): Promise<Paged<AuditRecord>>;
  count(): Promise<number>;
  /** Events by outcome since `since`. */
  countByOutcome(since: number): Promise<ReadonlyMap<string, number>>;
}

/** The rows of the audit's chains, for code that verifies, keeps and trims them. */
export interface ChainLog {
  /** The id under which this process writes its chain. */
  readonly processId: string;
  /** WRITTEN: in the order of writing, with exact notes. CHAINS: chain by chain; notes of live chains may lag. */
  readonly order: 'WRITTEN' | 'CHAINS';
  /** All rows, those of one process in the order of their sequence. */
  readChains(page: Page): Promise<Paged<ChainRow>>;
  /** Whether the tables behind lists refer to rows that they should not; checked in parts. */
  checkLists(after: Page['after']): Promise<{ readonly stray: boolean; readonly next: Page['after'] }>;
  /** Rebuilds the tables behind lists; returns the number of events. Only while no server runs. */
  rebuildLists(): Promise<number>;
  /** The hashes at these positions of a chain. */
  hashesAt(processId: string, sequences: readonly number[]): Promise<ReadonlyMap<number, string>>;
  heads(): Promise<readonly ChainHead[]>;
  /** The end of this process's chain; undefined before its first event. */
  ownHead(): Promise<ChainPlace | undefined>;
  /** Notes that events refer to these chain ends. */
  noteListed(heads: readonly ChainPlace[]): Promise<void>;
  /** The beginnings of chains from before `time`, with about `limit` events in all. */
  expiredPrefixes(time: number, limit: number): Promise<readonly ChainPrefix[]>;
  /** Notes that an event has stated at `time` where the chain begins. */
  noteCut(place: ChainPlace, time: number): Promise<void>;
  /** Like noteCut, then deletes the rows before that place. */
  cut(prefix: ChainPrefix, time: number): Promise<void>;
}
