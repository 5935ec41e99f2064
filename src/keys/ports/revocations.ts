import type { RetiredHash, Standing } from '../narrowing.ts';

/** How a key stood after a change of what decides about it. */
export interface RevocationRecord {
  readonly keyId: string;
  /** The store's revision of the change. */
  readonly revision: number;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Where the chain of the process that made the change had come to, the change's event included; absent if unknown. */
  readonly chain?: { readonly processId: string; readonly sequence: number };
  readonly standing: Standing;
  /** Secrets that this change, or one before it, has retired. */
  readonly retired: readonly RetiredHash[];
}

/** Told of changes of keys after they are committed and before they are answered. */
export interface Revocations {
  /** Rejects, with nothing done, when no change should be begun: the log cannot be written now. */
  ready(): Promise<void>;
  /** Resolves when the record is durable in the log, outside the store. */
  note(record: Omit<RevocationRecord, 'chain'>): Promise<void>;
}
