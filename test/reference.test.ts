// If this fails, a page under docs/reference tells operators and callers about RPCs, errors or settings that differ from
// those of the program. Add a row there when you add one to the code.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { ApiKeyAdmin } from '../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth } from '../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../gen/apikey/v1/integrations_pb.ts';
import { apiKeyCommand } from '../src/cli/api-key/group.ts';
import { auditCommand } from '../src/cli/audit.ts';
import { giteaCommand, n8nCommand } from '../src/cli/integrations.ts';
import { alertsCommand, anomaliesCommand } from '../src/cli/notices.ts';
import { SETTINGS } from '../src/config.ts';
import { DECISIONS } from '../src/keys/check.ts';
import { codeName, ERRORS } from '../src/rpc/errors.ts';
import { Metrics } from '../src/server/metrics.ts';

const FOLDER = new URL('../docs/reference/', import.meta.url).pathname;
const page = (name: string) => readFileSync(join(FOLDER, name), 'utf8');

/** The cells of the first table of a page, without its head. */
function rowsOf(name: string): string[][] {
  const [table = ''] = page(name).match(/^\|.*(?:\n\|.*)*/m) ?? [];
  const rows = table.split('\n').slice(2);
  return rows.map((line) =>
    line
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** Compares the lines between two marks with lines generated from the code, or writes them. */
function expectGenerated(name: string, mark: string, lines: readonly string[]): void {
  const text = page(name);
  const marked = new RegExp(`(<!-- ${mark} -->\n)[\\s\\S]*?(<!-- /${mark} -->)`);
  const wanted = text.replace(
    marked,
    (_all, begin: string, end: string) => `${begin}${lines.join('\n')}\n${end}`,
  );
  if (process.env.UPDATE_REFERENCE) writeFileSync(join(FOLDER, name), wanted);
  else expect(text).toBe(wanted);
}

describe('docs/reference', () => {
  it('settings.md has the table of src/config.ts (UPDATE_REFERENCE=1 writes it)', () => {
    const rows = SETTINGS.map((row) => {
      const bounds =
        row.kind === 'integer' || row.kind === 'number'
          ? `${row.min} to ${row.max} ${'unit' in row ? row.unit : ''}`.trim()
          : row.kind === 'boolean'
            ? '`true` or `false`'
            : '';
      return `| \`${row.name}\` | ${row.default === '' ? '' : `\`${row.default}\``} | ${bounds} | ${row.about} |`;
    });
    const head = ['| name | default | bounds | what it does |', '|---|---|---|---|'];
    expectGenerated('settings.md', 'settings', [...head, ...rows]);
  });

  it('metrics.md has every metric of the program (UPDATE_REFERENCE=1 writes it)', () => {
    const metrics = new Metrics(pino({ level: 'silent' })).registry.getMetricsAsArray();
    const rows = metrics.map((metric) => {
      const {
        name,
        help,
        type,
        labelNames = [],
      } = metric as unknown as Record<string, string> & {
        labelNames?: readonly string[];
      };
      const labels = labelNames.map((label) => `\`${label}\``).join(', ');
      return `| \`${name}\` | ${type} | ${labels} | ${help} |`;
    });
    const head = ['| name | type | labels | what it measures |', '|---|---|---|---|'];
    expectGenerated('metrics.md', 'metrics', [...head, ...rows]);
  });

  it('rpcs.md lists every RPC, and no other', () => {
    const rpcs = [ApiKeyAuth, ApiKeyAdmin, ApiKeyIntegrations].flatMap((service) =>
      service.methods.map(({ name }) => `${service.name}/${name}`),
    );
    expect(rowsOf('rpcs.md').map(([name]) => name)).toEqual(rpcs);
  });

  it('decisions.md lists every decision in the order of precedence', () => {
    expect(rowsOf('decisions.md').map(([name]) => name)).toEqual([...DECISIONS]);
  });

  it('errors.md lists every error with its gRPC code and what to do about it', () => {
    const errors = Object.entries(ERRORS).map(([reason, { status }]) => [reason, codeName(status)]);
    expect(rowsOf('errors.md').map(([reason, code]) => [reason, code])).toEqual(errors);
    expect(rowsOf('errors.md').filter(([, , advice]) => advice === '')).toEqual([]);
  });

  it('commands.md names every verb of every group of commands', () => {
    const login = { name: '', password: '', oneTimePassword: '' };
    const defaults = { address: '', keyFile: '', owner: '', gitea: login, n8n: login };
    const groups = [apiKeyCommand, auditCommand, anomaliesCommand, alertsCommand, giteaCommand, n8nCommand];
    const missing = groups
      .map((group) =>
        group(
          defaults,
          () => {},
          () => {},
        ),
      )
      .flatMap((group) => {
        const [, verbs = ''] =
          rowsOf('commands.md').find(([names = '']) => names.includes(group.name())) ?? [];
        return group.commands
          .filter((verb) => !verbs.includes(`\`${verb.name()}\``))
          .map((verb) => `${group.name()} ${verb.name()}`);
      });
    expect(missing).toEqual([]);
  });
});
