/** A store with many keys: rows like those of the server, with secrets that follow from their number. */
import { hash } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import { create, toBinary } from '@bufbuild/protobuf';
import { ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { rowIdFromHash } from '../../src/store/sqlite/row-id.ts';
import { frame } from '../support/raw.ts';

export function secretOf(i: number): string {
  return `audit_v1_${hash('sha256', `key ${i}`, 'base64url').slice(0, 22)}`;
}

/** Adds `count` copies of the newest key to a file that no server has open. */
export function addKeys(path: string, count: number): void {
  const db = new DatabaseSync(path);
  db.exec('PRAGMA synchronous = OFF; BEGIN');
  const template =
    db.prepare('SELECT * FROM api_keys ORDER BY create_time DESC, id DESC LIMIT 1').get() ?? {};
  const names = Object.keys(template);
  const key = db.prepare(`INSERT INTO api_keys (${names}) VALUES (${names.map(() => '?')})`);
  const secret = db.prepare('INSERT INTO api_key_secrets VALUES (?, ?)');
  // In the order of the hashes, as the table has them: so a page is written once.
  const hashes = Array.from({ length: count }, (_, i) => hash('sha256', secretOf(i), 'hex')).sort();
  for (const [i, digest] of hashes.entries()) {
    const id = `uid-apikey-${i.toString(16).padStart(16, '0')}`;
    const secrets = JSON.stringify([{ hash: digest, createTime: 1 }]);
    const row = {
      ...template,
      row: rowIdFromHash(digest) ?? null,
      id,
      secrets,
      rate_limit_bucket: id,
      request_id: null,
    };
    key.run(...names.map((name) => (row as Record<string, string | number | null>)[name] ?? null));
    secret.run(digest, id);
  }
  db.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)');
  db.close();
}

/** A frame that asks for key number i. */
export function askFor(i: number): Buffer {
  const request = create(ValidateKeyRequestSchema, {
    key: secretOf(i),
    requiredScope: 'traces:read',
    clientIp: `10.1.${i % 200}.3`,
  });
  return frame(toBinary(ValidateKeyRequestSchema, request));
}

/** Key numbers: all alike often, or the k-th as often as 1/k, as keys are used. */
export function numbers(count: number, keys: number, how: 'uniform' | 'zipf'): Uint32Array {
  let state = 42;
  const random = () => {
    // mulberry32: the same numbers in every run.
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Uint32Array.from({ length: count }, () =>
    how === 'uniform' ? Math.floor(random() * keys) : Math.min(keys - 1, Math.floor(keys ** random()) - 1),
  );
}
