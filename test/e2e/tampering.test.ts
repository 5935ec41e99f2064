// If this fails, operators are told that a tampered audit is intact, or not where it was tampered with.
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AuditDefectKindSchema } from '../../gen/apikey/v1/audit_pb.ts';
import { nameOf } from '../../src/cli/values.ts';
import { openSqliteStore } from '../../src/store/sqlite/open.ts';
import { LEASE, LOCKOUT } from '../store/contract/harness.ts';
import { Stage } from '../store/contract/tampering.ts';
import { copyOf, type Ledger } from '../store/tampering/ledger.ts';
import type { Scene } from '../store/tampering/scene.ts';
import { LIST_TAMPERINGS, sqliteLedger } from '../store/tampering/sqlite-ledger.ts';
import { TAMPERINGS } from '../store/tampering/table.ts';
import { apikeyd } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-tampered-'));
const key = randomBytes(32);
const keyFile = join(folder, 'chain.key');
const stage = new Stage(
  {
    freshUrl: () => `sqlite:${folder}/whole.db`,
    open: (url, clock, chainKey) =>
      openSqliteStore({ url, clock, lockout: LOCKOUT, lease: LEASE, chainKey, warn: () => {} }),
  },
  sqliteLedger,
  key,
);
let copies = 0;

/** A copy of the whole store to which something was done. */
class Copy {
  readonly #folder = join(folder, String(copies++));
  readonly file = join(this.#folder, 'x.db');

  async tamper(how: (ledger: Ledger, scene: Scene) => void): Promise<this> {
    mkdirSync(this.#folder);
    copyFileSync(join(folder, 'whole.db'), this.file);
    const ledger = copyOf(stage.full);
    how(ledger, stage.scene);
    await sqliteLedger.write(`sqlite:${this.file}`, ledger);
    return this;
  }

  /** What VerifyAudit says of it, and `audit verify` where that is asked for. */
  async told(byCommand = true) {
    const settings = { AUDIT_CHAIN_KEY_FILE: keyFile, AUDIT_ANCHOR_FILE: 'off' };
    const server = await startServer(`sqlite:${this.file}`, this.#folder, settings);
    const { intact, firstDefect } = await server.clients('grpc').admin.verifyAudit({});
    const env = {
      APIKEYD_ADDRESS: `127.0.0.1:${server.running.ports.grpc}`,
      APIKEYD_KEY_FILE: join(this.#folder, 'admin.key'),
    };
    const command = byCommand ? await apikeyd(['audit', 'verify'], { env }) : undefined;
    await server.stop();
    return { intact, kind: nameOf(AuditDefectKindSchema, firstDefect?.kind ?? 0), command };
  }

  reindex() {
    const env = { STORE_URL: `sqlite:${this.file}`, AUDIT_CHAIN_KEY_FILE: keyFile };
    return apikeyd(['audit', 'reindex'], { env });
  }
}

beforeAll(async () => {
  writeFileSync(keyFile, key);
  await stage.set();
});
afterAll(() => rmSync(folder, { recursive: true }));

const DONE = TAMPERINGS.filter(({ withKey, only }) => withKey.includes('store') && only !== 'mongo');
/** One of each kind of defect but UNLISTED. */
const SOME = [
  ['a field of an event is changed', 'CHANGED'],
  ['an event is taken out of the middle', 'MISSING'],
  ['a row is numbered below zero', 'INSERTED'],
  ['the rows of a chain are gone', 'TRUNCATED'],
  ['a note is gone', 'NOTE'],
] as const;

describe('a store that was tampered with', () => {
  it.each(SOME)('%s: VerifyAudit says %s', async (name, kind) => {
    const tampering = DONE.find((each) => each.name === name);
    if (tampering === undefined) throw new Error(`no ${name}`);
    const copy = await new Copy().tamper(tampering.do);
    const byCommand = kind === 'CHANGED';
    const { command, ...said } = await copy.told(byCommand);
    expect(said).toEqual({ intact: false, kind });
    if (byCommand)
      expect(command).toMatchObject({ code: 1, stdout: expect.stringMatching(`^${kind}: chain `) });
  });

  it('lists that hide events: VerifyAudit says UNLISTED, and nothing is wrong after "audit reindex"', async () => {
    const copy = await new Copy().tamper(() => {});
    const built = { code: 0, stdout: expect.stringMatching(/^built anew for \d+ events\n$/) };
    expect(await copy.reindex()).toMatchObject(built);
    const db = new DatabaseSync(copy.file);
    db.exec(LIST_TAMPERINGS[2]?.sql ?? '');
    db.close();
    expect(await copy.told(false)).toMatchObject({ intact: false, kind: 'UNLISTED' });
    expect(await copy.reindex()).toMatchObject(built);
    expect(await copy.told(false)).toMatchObject({ intact: true });
  });

  if (process.env.LONG) {
    it.each(DONE)('$name', async ({ do: how }) => {
      const copy = await new Copy().tamper(how);
      expect(await copy.told()).toMatchObject({ intact: false, command: { code: 1 } });
    });

    it('nothing was done', async () => {
      const copy = await new Copy().tamper(() => {});
      expect(await copy.told()).toMatchObject({ intact: true, command: { code: 0 } });
    });
  }
});
