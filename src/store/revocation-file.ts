import { type FileHandle, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Chain, GENESIS } from '../audit/chain.ts';
import { GroupCommit } from '../audit/group-commit.ts';
import { synced } from '../audit/synced.ts';
import type { RetiredHash } from '../keys/narrowing.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { RevocationRecord } from '../keys/ports/revocations.ts';
import { RETIRED_MS } from '../keys/rotation.ts';
import { compacted, mergedRetired, sealed, writeAll } from './revocation-compaction.ts';
import { type Line, readLines } from './revocation-lines.ts';
import { type LogReach, notNoted, type RevocationLog } from './revocation-log.ts';
import { StartError, type Warn } from './store.ts';

const MAX_QUEUED = 20_000;
const MAX_BATCH = 1_000;
const WAIT_LIMIT_MS = 5_000;
/** Compaction starts only above this size. */
const COMPACT_FROM_BYTES = 1_048_576;
const NAME = 'REVOCATION_LOG';

export interface RevocationFileParts {
  readonly file: string;
  readonly chain: Chain;
  readonly clock: Clock;
  readonly warn: Warn;
  /** Called after each write with its success. */
  readonly written: (ok: boolean) => void;
}

interface Scanned {
  readonly reach: LogReach | undefined;
  readonly size: number;
  readonly seal: string;
  readonly lines: number;
  readonly keys: number;
}

/**
 * The log as an append-only file with group commit: one fsync for all lines that arrived during the last one. The file
 * is compacted to the newest line of each key when it exceeds twice their size plus 1 MiB.
 */
export class RevocationFile implements RevocationLog {
  readonly #parts: RevocationFileParts;
  readonly #group: GroupCommit<Line | undefined>;
  /** Lines that could not be written yet, the newest of each key. */
  #owed = new Map<string, Line>();
  #handle: FileHandle;
  #reach: LogReach | undefined;
  #size: number;
  #seal: string;
  /** The approximate size of one line for each key, in bytes. */
  #live: number;

  private constructor(parts: RevocationFileParts, handle: FileHandle, scanned: Scanned) {
    this.#parts = parts;
    this.#handle = handle;
    this.#reach = scanned.reach;
    this.#size = scanned.size;
    this.#seal = scanned.seal;
    this.#live = scanned.lines === 0 ? 0 : (scanned.size * scanned.keys) / scanned.lines;
    this.#group = new GroupCommit({
      write: (batch) => this.#write(batch),
      maxQueued: MAX_QUEUED,
      maxBatch: MAX_BATCH,
      waitLimitMs: WAIT_LIMIT_MS,
      clock: parts.clock,
      name: NAME,
    });
  }

  /** Reads and checks the whole file; creates a missing one. @throws StartError */
  static async open(parts: RevocationFileParts): Promise<RevocationFile> {
    const { file, chain, warn } = parts;
    let handle: FileHandle | undefined;
    try {
      handle = await open(file, 'a+', 0o600);
      const scanned = await scan(file, chain);
      const { size } = await handle.stat();
      // A crash cut the last line: its change is in the store, and the call was never answered.
      if (size > scanned.size) {
        if (scanned.lines === 0) await expectBegun(handle, file, size);
        warn(`${NAME}: the last line of ${file} is not whole and is left out`, undefined);
        await handle.truncate(scanned.size);
        await handle.sync();
      }
      // A file opened for appending ignores the write position.
      await handle.close();
      handle = await open(file, 'r+');
      await synced(dirname(file));
      return new RevocationFile(parts, handle, scanned);
    } catch (error) {
      await handle?.close().catch(() => {});
      if (error instanceof StartError) throw error;
      throw new StartError(69, `${NAME}: cannot use ${file}: ${(error as Error).message}`, error);
    }
  }

  async reach(): Promise<LogReach | undefined> {
    return this.#reach;
  }

  begin(revision: number): Promise<void> {
    return this.#group.add({ kind: 'begin', revision });
  }

  append(record: RevocationRecord): Promise<void> {
    return this.#group.add({ kind: 'key', ...record });
  }

  async settled(): Promise<void> {
    if (this.#owed.size > 0) await this.#group.add(undefined);
  }

  async cover(revision: number): Promise<void> {
    if (this.#reach !== undefined && revision > this.#reach.covered)
      await this.#group.add({ kind: 'cover', revision });
  }

  async since(revision: number): Promise<ReadonlyMap<string, RevocationRecord>> {
    const found = new Map<string, RevocationRecord>();
    const retired = new Map<string, readonly RetiredHash[]>();
    for await (const { line } of this.#lines()) {
      if (line.kind !== 'key') continue;
      const all = mergedRetired(retired, line);
      if (line.revision <= revision) continue;
      const { kind: _, ...record } = line;
      const newer = (found.get(line.keyId)?.revision ?? 0) > line.revision;
      found.set(line.keyId, {
        ...(newer ? (found.get(line.keyId) as RevocationRecord) : record),
        retired: all,
      });
    }
    return found;
  }

  async revisionsOf(keyIds: ReadonlySet<string>): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>();
    if (keyIds.size === 0) return found;
    for await (const { line } of this.#lines())
      if (line.kind === 'key' && keyIds.has(line.keyId))
        found.set(line.keyId, Math.max(line.revision, found.get(line.keyId) ?? 0));
    return found;
  }

  async places(): Promise<ReadonlyMap<string, number>> {
    const places = new Map<string, number>();
    for await (const { line } of this.#lines()) {
      if (line.kind !== 'key' || line.chain === undefined) continue;
      const { processId, sequence } = line.chain;
      places.set(processId, Math.max(sequence, places.get(processId) ?? 0));
    }
    return places;
  }

  async close(): Promise<void> {
    await this.#group.drained();
    await this.#handle.close();
  }

  #lines() {
    return readLines(this.#parts.file, this.#parts.chain);
  }

  async #write(batch: (Line | undefined)[]): Promise<void> {
    const { written, warn, file } = this.#parts;
    const lines = batch.filter((line) => line !== undefined);
    const all = [...this.#owed.values(), ...lines];
    try {
      await this.#append(all);
      this.#owed.clear();
      written(true);
    } catch (error) {
      for (const line of lines) if (line.kind === 'key') this.#owe(line);
      warn(`${NAME}: ${file} cannot be written`, error);
      written(false);
      throw notNoted(error);
    }
    const long = this.#size > 2 * this.#live + COMPACT_FROM_BYTES;
    if (long && this.#reach !== undefined) await this.#compact(this.#reach);
  }

  #owe(line: Line & { readonly kind: 'key' }): void {
    const before = this.#owed.get(line.keyId);
    const retired = before?.kind === 'key' ? before.retired : [];
    this.#owed.set(line.keyId, { ...line, retired: [...retired, ...line.retired] });
  }

  async #append(lines: readonly Line[]): Promise<void> {
    if (lines.length === 0) return;
    await this.#expectUntouched();
    const { bytes, seal } = sealed(this.#parts.chain, this.#seal, lines);
    try {
      await writeAll(this.#handle, bytes, this.#size);
      await this.#handle.datasync();
    } catch (error) {
      // An incomplete line must not stay in the middle of the file.
      await this.#handle.truncate(this.#size);
      throw error;
    }
    this.#size += bytes.length;
    this.#seal = seal;
    for (const line of lines) this.#reach = reachWith(this.#reach, line);
  }

  /** One process per file: two would overwrite each other's lines. */
  async #expectUntouched(): Promise<void> {
    const [own, named] = [await this.#handle.stat(), await stat(this.#parts.file)];
    if (own.ino !== named.ino || own.size !== this.#size)
      throw new Error('somebody else has moved, changed or written the file: start this process anew');
  }

  /** A failure leaves the file unchanged. */
  async #compact(reach: LogReach): Promise<void> {
    const { file, chain, clock, warn } = this.#parts;
    try {
      const { handle, size, seal } = await compacted(file, chain, reach, clock.now() - RETIRED_MS);
      const before = this.#handle;
      [this.#handle, this.#size, this.#seal, this.#live] = [handle, size, seal, size];
      await before.close();
      await synced(dirname(file));
    } catch (error) {
      warn(`${NAME}: ${file} cannot be made shorter, later again`, error);
      this.#live = this.#size;
    }
  }
}

/** Longer than any first line. */
const FIRST_LINE_BYTES = 256;
const FIRST_LINE = '{"kind":"begin"';

/** A file without a whole line must hold only a cut first line or zeros; any other content is not this program's. */
async function expectBegun(handle: FileHandle, file: string, size: number): Promise<void> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(FIRST_LINE_BYTES), 0, FIRST_LINE_BYTES, 0);
  const text = buffer.subarray(0, bytesRead).toString('latin1').replace(/\0+$/, '');
  const [seal = '', line = ''] = text.split(/ (.*)/s);
  const sealed = /^[0-9a-f]{0,64}$/.test(seal) && (seal.length === 64 || line === '');
  const begun = sealed && (FIRST_LINE.startsWith(line) || line.startsWith(FIRST_LINE));
  if (size < FIRST_LINE_BYTES && begun) return;
  throw new StartError(69, `${NAME}: ${file} is another file, and no log of revocations`);
}

async function scan(file: string, chain: Chain): Promise<Scanned> {
  let reach: LogReach | undefined;
  let [size, lines, seal] = [0, 0, GENESIS];
  const keys = new Set<string>();
  for await (const read of readLines(file, chain)) {
    reach = reachWith(reach, read.line);
    if (read.line.kind === 'key') keys.add(read.line.keyId);
    ({ end: size, number: lines, seal } = read);
  }
  return { reach, size, seal, lines, keys: keys.size };
}

function reachWith(reach: LogReach | undefined, { kind, revision }: Line): LogReach {
  if (kind === 'begin') return { begins: revision, covered: revision, highest: revision };
  const { begins = 0, covered = 0, highest = 0 } = reach ?? {};
  return {
    begins,
    covered: kind === 'cover' ? Math.max(covered, revision) : covered,
    highest: Math.max(highest, revision),
  };
}
