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

/** Where a process's chain of events ends, as was noted beside the log. */
export interface ChainHead {
  readonly processId: string;
  readonly sequence: number;
  readonly hash: string;
  /** The process has ended cleanly: nothing comes after it. */
  readonly closed: boolean;
  /** Up to where retention has deleted it, and the request_id of the checkpoint that says so. */
  readonly cut?: { readonly sequence: number; readonly hash: string; readonly token: string };
}

/** The beginning of a chain, up to and with this place. */
export interface ChainPrefix {
  readonly processId: string;
  readonly sequence: number;
  readonly hash: string;
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
  /** Every event, those of one process together or apart, but in the order of their sequence. */
  readChains(page: Page): Promise<Paged<AuditRecord>>;
  heads(): Promise<readonly ChainHead[]>;
  /** The beginnings of chains that lie before `time`, with about `limit` events in all. */
  expiredPrefixes(time: number, limit: number): Promise<readonly ChainPrefix[]>;
  /** Notes where the chain begins from now on, then deletes what is before. */
  cut(prefix: ChainPrefix, token: string): Promise<void>;
}
