// If this fails, docs/guarantees.md promises operators what VerifyAudit does not find, or says less than it does.
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Finder, Tampering } from './tampering/scene.ts';
import { LIST_TAMPERINGS } from './tampering/sqlite-ledger.ts';
import { TAMPERINGS } from './tampering/table.ts';

const PAGE = 'docs/guarantees.md';
const [BEGIN, END] = ['<!-- tamperings -->\n', '<!-- /tamperings -->'];

/** What each must have to find it. */
function needed(finders: readonly Finder[]): string {
  if (finders.includes('store')) return 'found';
  return finders.length === 0
    ? 'not found'
    : `found with ${finders.map((name) => NEEDED[name]).join(' or ')}`;
}

const NEEDED: Record<Finder, string> = { store: '', anchor: 'the anchor', heads: 'kept heads' };
const STORES = { sqlite: 'embedded', mongo: 'MongoDB' };

function row({ name, without, withKey, only }: Tampering): string {
  const where = only === undefined ? '' : ` (${STORES[only]})`;
  return `| ${name}${where} | ${needed(without)} | ${needed(withKey)} |`;
}

const table = [
  '| Somebody who can write to the store does so that | without a chain key | with a chain key |',
  '|---|---|---|',
  ...TAMPERINGS.map(row),
  ...LIST_TAMPERINGS.map(({ name }) => `| ${name} (embedded) | found | found |`),
  '',
].join('\n');

describe('the table of tamperings', () => {
  it('holds 25 for each store at least, none of them twice', () => {
    for (const store of ['sqlite', 'mongo'])
      expect(TAMPERINGS.filter(({ only }) => only === undefined || only === store).length).toBeGreaterThan(
        25,
      );
    expect(new Set(TAMPERINGS.map(({ name }) => name)).size).toBe(TAMPERINGS.length);
  });

  it('stands in docs/guarantees.md as the test has it (UPDATE_REFERENCE=1 writes it)', () => {
    const page = readFileSync(PAGE, 'utf8');
    const [before = '', rest = ''] = page.split(BEGIN);
    const [, after = ''] = rest.split(END);
    if (process.env.UPDATE_REFERENCE === '1') writeFileSync(PAGE, `${before}${BEGIN}${table}${END}${after}`);
    expect(rest.split(END)[0]).toBe(table);
  });
});
