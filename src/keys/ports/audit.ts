import type { SecretSlot } from '../key.ts';
import type { Page, Paged } from './page.ts';

/** What every event says about the call it records. */
export interface CallOrigin {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly arriveTime: number;
  readonly arriveMonotonic: number;
  /** The calling backend's address, normalised. */
  readonly peerIp: string;
  readonly callerKeyId: string;
  /** The caller's grants: what it may hand on. */
  readonly callerScopes: readonly string[];
  readonly requestId: string;
}

/** What the audit keeps of one call; '' means not known. Times in milliseconds since 1970. */
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
}

/** An entry as the log keeps it. */
export interface AuditRecord extends AuditEntry {
  readonly id: string;
  /** The process that wrote it, and its place there. */
  readonly processId: string;
  readonly sequence: number;
  /** The process that served the call; '' when it is the writing one. */
  readonly servedBy: string;
  /** Over the event and the hash before it, 64 lower-case hex. */
  readonly hash: string;
}

/** A place in the chain of a process, and the hash there. */
export interface ChainPlace {
  readonly processId: string;
  readonly sequence: number;
  readonly hash: string;
}

/** Where a process's chain of events ends, as was noted beside the log. */
export interface ChainHead extends ChainPlace {
  /** The process has ended cleanly: nothing comes after it. */
  readonly closed: boolean;
  /** Written by a release whose chains did not name each other. */
  readonly older?: boolean;
  /** With a chain key the proof that the note is what was written (Chain.noteMac). */
  readonly mac?: string;
  /** Up to where retention has deleted it, when that was said last, and the proof of it. */
  readonly cut?: {
    readonly sequence: number;
    readonly hash: string;
    readonly time: number;
    readonly mac: string;
  };
  /** Up to where other chains name it, and the proof of it. */
  readonly listed?: { readonly sequence: number; readonly mac: string };
}

/** A row of the log as it stands, whatever was done to it. */
export interface ChainRow extends ChainPlace {
  readonly id: string;
  readonly servedBy: string;
  readonly time: number;
  /** The event, as it is hashed. */
  readonly text: string;
  /** CHANGED: more, or other things, than an event is made of. UNLISTED: lists do not show it. */
  readonly flaw?: 'CHANGED' | 'UNLISTED';
  /** To be given as `after` for what comes behind it. */
  readonly cursor: readonly (string | number)[];
}

/** The beginning of a chain, up to and with this place. */
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
  /** Resolves when the event is durable. AUDIT_OVERLOADED when the queue is full, AUDIT_UNAVAILABLE when the log is away. */
  record(entry: AuditEntry): Promise<void>;
  /** Counts a call that was refused without an event; the count becomes one gap event when the log is back. */
  countRefused(calls: number): void;
  /** Newest first. */
  list(filter: AuditFilter, page: Page): Promise<Paged<AuditRecord>>;
  count(): Promise<number>;
  /** Events by outcome from `since` on. */
  countByOutcome(since: number): Promise<ReadonlyMap<string, number>>;
}

/** What the audit's chains are made of: for those who prove, keep and shorten them. */
export interface ChainLog {
  /** Whose chain this process writes. */
  readonly processId: string;
  /** WRITTEN: in the order of writing, and each note is exact. CHAINS: chain by chain; notes of living ones may lag. */
  readonly order: 'WRITTEN' | 'CHAINS';
  /** Every row there is, those of one process in the order of their sequence. */
  readChains(page: Page): Promise<Paged<ChainRow>>;
  /** Whether the tables that lists use lead anywhere they should not; in parts. */
  checkLists(after: Page['after']): Promise<{ readonly stray: boolean; readonly next: Page['after'] }>;
  /** Builds what lists go by anew; returns for how many events. While no server runs. */
  rebuildLists(): Promise<number>;
  /** The hashes at these places of a chain. */
  hashesAt(processId: string, sequences: readonly number[]): Promise<ReadonlyMap<number, string>>;
  heads(): Promise<readonly ChainHead[]>;
  /** Where this process's chain ends; undefined while it has not begun. */
  ownHead(): Promise<ChainPlace | undefined>;
  /** Notes that events name these ends. */
  noteListed(heads: readonly ChainPlace[]): Promise<void>;
  /** The beginnings of chains that lie before `time`, with about `limit` events in all. */
  expiredPrefixes(time: number, limit: number): Promise<readonly ChainPrefix[]>;
  /** Notes that an event has said at `time` where the chain begins. */
  noteCut(place: ChainPlace, time: number): Promise<void>;
  /** The same, then deletes what is before. */
  cut(prefix: ChainPrefix, time: number): Promise<void>;
}
