// If this fails, operators do not learn that a store is behind its anchor, or an unwritable anchor stops the server.
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Chain } from '../../src/audit/chain.ts';
import { readConfig } from '../../src/config.ts';
import type { ChainPlace } from '../../src/keys/ports/audit.ts';
import { Metrics } from '../../src/server/metrics.ts';
import { checkAnchor, composeProof } from '../../src/server/proof.ts';
import { createLogger } from '../../src/server/telemetry.ts';
import type { Store } from '../../src/store/store.ts';
import { TestClock } from '../support/clock.ts';
import { apikeyd, spawnServer } from '../support/process.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'apikeyd-anchored-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A server's proof over a store that holds one chain. */
function composed(settings: Record<string, string>, own: ChainPlace) {
  const lines: string[] = [];
  const logger = createLogger('info', 'json', { write: (line: string) => void lines.push(line) });
  const metrics = new Metrics(logger);
  const chainLog = { ownHead: async () => own, heads: async () => [], hashesAt: async () => new Map() };
  const audit = { list: async () => ({ items: [], next: undefined }) };
  const store = { audit, chainLog, chain: new Chain(undefined) } as unknown as Store;
  const config = readConfig({ STORE_URL: `sqlite:${folder}/x.db`, ...settings });
  const { anchor } = composeProof(config, store, new TestClock(), logger, metrics);
  return { anchor, config, lines, metrics };
}

const OWN = { processId: 'p', sequence: 3, hash: 'a'.repeat(64) };

describe('AUDIT_ANCHOR_FILE', () => {
  it.each<[string, Record<string, string>, string | undefined]>([
    ['unset, without a chain key', {}, undefined],
    ['unset, with a chain key', { AUDIT_CHAIN_KEY_FILE: 'KEY' }, 'KEY.anchor'],
    ['off, with a chain key', { AUDIT_CHAIN_KEY_FILE: 'KEY', AUDIT_ANCHOR_FILE: 'off' }, undefined],
    ['given, without a chain key', { AUDIT_ANCHOR_FILE: 'FILE' }, 'FILE'],
    ['given, with a chain key', { AUDIT_CHAIN_KEY_FILE: 'KEY', AUDIT_ANCHOR_FILE: 'FILE' }, 'FILE'],
  ])('%s', async (_, settings, file) => {
    const inFolder = (name: string) => (name === 'off' ? name : join(folder, name));
    const placed = Object.fromEntries(
      Object.entries(settings).map(([name, value]) => [name, inFolder(value)]),
    );
    const { anchor, config } = composed(placed, OWN);
    await anchor?.write();
    for (const name of ['KEY.anchor', 'FILE'])
      expect(existsSync(join(folder, name)), name).toBe(name === file);
    // The double's chain is gone as soon as its process is.
    if (file === undefined) await checkAnchor(anchor, config);
    else
      await expect(checkAnchor(anchor, config)).rejects.toMatchObject({
        exitCode: 69,
        message: expect.stringContaining(`${join(folder, file)} names (chain p, place 3)`),
      });
  });

  it('that cannot be written causes a warning with its name, and a metric', async () => {
    const file = join(folder, 'none', 'anchor');
    const { anchor, lines, metrics } = composed({ AUDIT_ANCHOR_FILE: file }, OWN);
    await anchor?.write();
    await anchor?.write();
    const warned = lines.map((line) => JSON.parse(line));
    expect(warned).toEqual([expect.objectContaining({ level: 'warn', file })]);
    expect(warned[0].msg).toBe('AUDIT_ANCHOR_FILE cannot be written, trying again');
    expect(await metrics.registry.metrics()).toContain('\napikeyd_audit_anchor_failures_total 2\n');
  });
});

describe('a server with an anchor', () => {
  it('does not start with an earlier copy of its store, and starts after the step that the error names', async () => {
    const [key, db] = [join(folder, 'chain.key'), join(folder, 'x.db')];
    writeFileSync(key, 'k'.repeat(32));
    const settings = { AUDIT_CHAIN_KEY_FILE: key };
    const server = await spawnServer(`sqlite:${db}`, folder, settings);
    expect(await server.end('SIGTERM')).toBe(0);
    const anchor = `${key}.anchor`;
    const { heads } = JSON.parse(readFileSync(anchor, 'utf8'));
    expect(heads).toHaveLength(1);
    // Of before the first event.
    for (const end of ['', '-wal', '-shm']) rmSync(`${db}${end}`, { force: true });
    const env = {
      ...settings,
      STORE_URL: `sqlite:${db}`,
      APIKEYD_KEY_FILE: join(folder, 'admin.key'),
      GRPC_ADDR: '127.0.0.1:0',
      HTTP_ADDR: '127.0.0.1:0',
      METRICS_ADDR: '127.0.0.1:0',
    };
    // A start that goes past the anchor writes a first key.
    rmSync(env.APIKEYD_KEY_FILE, { force: true });
    const killWhen = () => existsSync(env.APIKEYD_KEY_FILE);
    const refused = await apikeyd(['serve'], { env, killWhen });
    expect(refused.code).toBe(69);
    expect(refused.stderr).toContain(
      `AUDIT_ANCHOR_FILE: the store lacks audit events that ${anchor} names (chain ${heads[0].processId}, place ${heads[0].sequence})`,
    );
    expect(refused.stderr).toContain('To go on without these events, move the file away');

    const kept = readFileSync(anchor, 'utf8');
    writeFileSync(anchor, kept.replace('"sequence":', '"sequence":1'));
    const changed = await apikeyd(['serve'], { env, killWhen });
    expect(changed.code).toBe(69);
    expect(changed.stderr).toContain(`AUDIT_ANCHOR_FILE: ${anchor} is not what was written there`);
    // A start that was refused leaves the evidence as it was.
    expect(readFileSync(anchor, 'utf8')).toBe(kept.replace('"sequence":', '"sequence":1'));

    renameSync(anchor, `${anchor}.away`);
    const again = await spawnServer(`sqlite:${db}`, folder, settings);
    expect(await again.end('SIGTERM')).toBe(0);
    expect(existsSync(anchor)).toBe(true);
  });

  it('serves and stops when the file cannot be written, and logs that', async () => {
    const file = join(folder, 'none', 'anchor');
    const server = await spawnServer(`sqlite:${folder}/x.db`, folder, { AUDIT_ANCHOR_FILE: file });
    expect(await server.end('SIGTERM')).toBe(0);
    expect(server.output()).toContain('AUDIT_ANCHOR_FILE cannot be written, trying again');
  });
});
