import type { Chain } from '../audit/chain.ts';
import type { AlertLog, AnomalyLog, SweepLease } from '../keys/notices.ts';
import type { AuditLog, ChainLog } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { Lending, LocalUses } from '../keys/ports/guards.ts';
import type { KeyStore } from '../keys/ports/key-store.ts';
import type { Lockout, QuotaLimiter } from '../keys/ports/limits.ts';
import type { RotationLog } from '../keys/ports/rotations.ts';
import type { UsageLog } from '../keys/ports/usage.ts';
import type { RemoteKeyLog } from '../keys/remote-keys.ts';

/** The changes of other processes since the last poll. */
export interface Changes {
  readonly revision: number;
  /** Undefined when the store no longer holds all changes since then: any key may have changed. */
  readonly keyIds: readonly string[] | undefined;
}

/** For a database that several processes share: a process may use its cached records while it holds the lease. */
export interface Sharing {
  readonly lease: { readonly holds: boolean; readonly ageMs: number };
  /** Starts to poll for changes; resolves after the first poll. */
  start(applied: (changes: Changes) => void): Promise<void>;
  /** How far the store's clock is ahead of this process's. */
  readonly skewMs: number;
}

/** The state after a restore: revisions continue above all that clients have seen, and lost changes are made again. */
export interface Recovery {
  /** Random and new after each restore: revisions and cursors of another epoch are not comparable. */
  readonly epoch: string;
  /** The revision after which changes are lost and must be made again; undefined when none are. */
  behindSince(): Promise<number | undefined>;
  /** Records that the store holds changes only up to `revision`, and continues from `next` in a new epoch. */
  begin(revision: number, next: number): Promise<void>;
  /** Records that every lost change was made again or given up. */
  end(): Promise<void>;
}

/** Called with the progress of a copy; an error it throws ends the copy. */
export type CopyTold = (doneBytes: number, totalBytes: number) => void;

export interface CopiedStore {
  /** The revision of the store in the copy. */
  readonly revision: number;
}

/** The readable state of a store that is to be replaced. */
export interface PresentStore {
  readonly revision: number;
  /** The longest lease that it ever lent to a guard, in ms. */
  readonly longestLeaseMs: number;
  /** The last sequence of each audit chain. */
  readonly places: ReadonlyMap<string, number>;
}

/** Replaces an embedded store by another file. Until `put` the store is not touched. */
export interface StoreReplacement {
  /** The STORE_URL of the copy. */
  readonly copyUrl: string;
  /** Undefined where there is no store, or it is unreadable. */
  present(): PresentStore | undefined;
  /** @throws Error when the file cannot be copied, or is not a store of this program. */
  copyIn(file: string, told: CopyTold): Promise<void>;
  /** Puts the copy in the store's place; returns where the previous store is kept, if there was one. */
  put(keepAs: string): Promise<string | undefined>;
  /** Releases the store and deletes a copy that was not put in place. */
  close(): Promise<void>;
}

/** The interface of a database adapter; one contract suite tests both adapters. */
export interface Store {
  readonly keys: KeyStore;
  readonly quota: QuotaLimiter;
  readonly lockout: Lockout;
  readonly audit: AuditLog;
  /** The hash chains of the audit events. */
  readonly chainLog: ChainLog;
  /** Links the audit events; a verifier recomputes the links with the same object. */
  readonly chain: Chain;
  readonly rotations: RotationLog;
  readonly anomalies: AnomalyLog;
  readonly alerts: AlertLog;
  readonly usage: UsageLog;
  readonly giteaTokens: RemoteKeyLog;
  readonly n8nApiKeys: RemoteKeyLog;
  readonly sweepLease: SweepLease;
  readonly recovery: Recovery;
  /** Copies the current store into this empty file; undefined where the database has its own backup tools. */
  readonly copyTo?: ((file: string, told: CopyTold) => Promise<CopiedStore>) | undefined;
  /** Lends leases to guards, and records the decisions that they made by themselves. */
  readonly lending: Lending;
  readonly localUses: LocalUses;
  /** Undefined where only one process uses the database. */
  readonly sharing: Sharing | undefined;
  auditBacklog(): AuditBacklog;
  /** Rejects with STORE_UNAVAILABLE when the store cannot be read or written. */
  ping(): Promise<void>;
  /** Finishes work that crashes cut short; with dropOld also drops expired counters. Several processes may run it. */
  sweep(dropOld?: boolean): Promise<void>;
  /** The latest time in the store when it was opened; undefined where the store has a clock of its own to compare. */
  readonly seenTime?: number | undefined;
  /** Waits for pending work, then closes. Nothing may be called afterwards. */
  close(): Promise<void>;
}

export interface LockoutSettings {
  /** How many failures within the window lock an address. */
  readonly maxAttempts: number;
  /** The length of the window and of the lock. */
  readonly windowSeconds: number;
}

export interface LeaseSettings {
  readonly pollMs: number;
  readonly leaseMs: number;
  /** Whether this process caches records, so that other processes must wait for its lease. */
  readonly caches: boolean;
}

/** The audit events that are not durable yet. */
export interface AuditBacklog {
  readonly waiting: number;
  /** The most waiting events; a further one is refused. */
  readonly limit: number;
  /** Calls since the start that ended without an event of their own; gap events count them. */
  readonly unrecorded: number;
}

/** Receives durations in milliseconds; look-ups that memory answers are not measured. */
export interface StoreObserver {
  took(operation: StoreOperation, ms: number): void;
  /** Called when a batch of events and the writes of its transaction are durable. */
  wroteEvents(events: number, ms: number): void;
}

export const STORE_OPERATIONS = [
  'find_key',
  'get_key',
  'list_keys',
  'insert_keys',
  'replace_key',
  'read_changes',
  'take_quota',
  'count_failure',
  'write_events',
  'wait_for_leases',
  'ping',
] as const;
export type StoreOperation = (typeof STORE_OPERATIONS)[number];

/** Reports a failure of background work; the text holds no secret. */
export type Warn = (text: string, error: unknown) => void;

export interface StoreOptions {
  readonly url: string;
  readonly clock: Clock;
  readonly lockout: LockoutSettings;
  readonly lease: LeaseSettings;
  /** The key that makes the audit's hash chain an HMAC. */
  readonly chainKey?: Uint8Array | undefined;
  readonly warn: Warn;
  /** Called when this process can never use the store again: it must be restarted. */
  readonly broken?: (error: unknown) => void;
  readonly observer?: StoreObserver | undefined;
}

/** The result of one inspection. */
export interface Finding {
  readonly what: string;
  readonly ok: boolean;
  /** What was found, or what to do about it. */
  readonly text: string;
}

/** A process cannot start: it exits with this code (69 unavailable, 78 configuration) and prints the message. */
export class StartError extends Error {
  readonly exitCode: 69 | 78;

  constructor(exitCode: 69 | 78, text: string, cause?: unknown) {
    super(text, { cause });
    this.name = 'StartError';
    this.exitCode = exitCode;
  }
}
