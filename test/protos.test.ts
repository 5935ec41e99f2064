// If this fails, a change of the protos can silently break existing clients.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { run } from './support/process.ts';
import { tool } from './support/tools.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const RELEASED = join(ROOT, 'proto/released.binpb');

describe('the protos', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'apikeyd-protos-'));
    for (const name of ['proto', 'buf.yaml'])
      cpSync(join(ROOT, name), join(folder, name), { recursive: true });
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const change = (file: string, from: string | RegExp, to: string) => {
    const path = join(folder, 'proto/apikey/v1', file);
    const text = readFileSync(path, 'utf8');
    expect(text.replace(from, to)).not.toBe(text);
    writeFileSync(path, text.replace(from, to));
  };
  const breaking = () => run(tool('buf'), ['breaking', '--against', RELEASED], { cwd: folder });

  it('do not break clients of the released protos', async () => {
    expect(await breaking()).toMatchObject({ code: 0, stdout: '', stderr: '' });
  });

  it('may gain new fields and methods', async () => {
    change(
      'auth.proto',
      'message ValidateKeyRequest {',
      'message ValidateKeyRequest {\n  // New.\n  string fresh = 1000;',
    );
    expect((await breaking()).code).toBe(0);
  });

  it.each([
    ['a field that is gone', 'auth.proto', /^ {2}bool dry_run = .*$/m, ''],
    ['another type', 'key.proto', /^ {2}string hint = /m, '  bytes hint = '],
    ['another name', 'auth.proto', /^ {2}bool valid = /m, '  bool good = '],
    ['an RPC that is gone', 'admin.proto', /^ {2}rpc RevokeKey\(.*$/m, ''],
    ['another number in an enum', 'key.proto', 'KEY_TYPE_USER = 2', 'KEY_TYPE_USER = 22'],
  ])('are guarded against %s', async (_what, file, from, to) => {
    change(file, from, to);
    expect((await breaking()).code).toBe(100);
  });
});
