import type { RetiredHash, Standing } from '../narrowing.ts';

/** The standing of a key after a change. */
export interface RevocationRecord {
  readonly keyId: string;
  /** The store's revision of the change. */
  readonly revision: number;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** How far the chain of the process that made the change had come, including its event; absent if unknown. */
  readonly chain?: { readonly processId: string; readonly sequence: number };
  readonly standing: Standing;
  /** Secrets that were retired by this change or an earlier one. */
  readonly retired: readonly RetiredHash[];
}

/** Receives changes of keys after they are committed and before they are answered. */
export interface Revocations {
  /** Rejects, before any change, when the log cannot be written now. */
  ready(): Promise<void>;
  /** Resolves when the record is durable in the log, outside the store. */
  note(record: Omit<RevocationRecord, 'chain'>): Promise<void>;
}
