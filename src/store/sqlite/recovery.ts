import { randomBytes } from 'node:crypto';
import type { Recovery } from '../store.ts';
import type { Committer } from './committer.ts';
import type { PointRead, SqliteDatabase } from './database.ts';

const READ = 'SELECT value FROM api_key_meta WHERE id = ?';
const BEHIND = 'behind_since';

/** Keeps the state in api_key_meta of the file itself, so that every copy contains it. */
export class SqliteRecovery implements Recovery {
  readonly #committer: Committer;
  readonly #read: PointRead;
  readonly #skipTo: (revision: number) => void;
  #epoch: string;

  /** @param skipTo called with the revision to continue from */
  constructor(database: SqliteDatabase, committer: Committer, skipTo: (revision: number) => void) {
    this.#committer = committer;
    this.#skipTo = skipTo;
    this.#read = database.pointRead(READ);
    this.#epoch = String(this.#read('epoch')?.[0]);
  }

  get epoch(): string {
    return this.#epoch;
  }

  async behindSince(): Promise<number | undefined> {
    const [revision] = this.#read(BEHIND) ?? [];
    return revision === undefined ? undefined : Number(revision);
  }

  async begin(revision: number, next: number): Promise<void> {
    const epoch = randomBytes(8).toString('hex');
    await this.#committer.write([
      { sql: 'INSERT OR IGNORE INTO api_key_meta VALUES (?, ?)', params: [BEHIND, revision] },
      { sql: "UPDATE api_key_meta SET value = max(value, ?) WHERE id = 'revision'", params: [next] },
      { sql: "UPDATE api_key_meta SET value = ? WHERE id = 'epoch'", params: [epoch] },
    ]);
    this.#epoch = epoch;
    this.#skipTo(next);
  }

  async end(): Promise<void> {
    await this.#committer.write([{ sql: 'DELETE FROM api_key_meta WHERE id = ?', params: [BEHIND] }]);
  }
}
