// If this fails, the first thing a newcomer pastes does not work, or a table in the README lies.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ApiKeyAdmin } from '../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth } from '../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../gen/apikey/v1/integrations_pb.ts';
import { SETTINGS } from '../src/config.ts';
import { DECISIONS } from '../src/keys/check.ts';
import { codeName, ERRORS } from '../src/rpc/errors.ts';
import { run, spawnServer, tool } from './support/process.ts';
import { freshDatabase } from './support/server.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const FILE = join(ROOT, 'README.md');
const readme = readFileSync(FILE, 'utf8');

function settingsTable(): string {
  const rows = SETTINGS.map((row) => {
    const bounds =
      row.kind === 'integer' || row.kind === 'number'
        ? `${row.min} to ${row.max} ${'unit' in row ? row.unit : ''}`.trim()
        : row.kind === 'boolean'
          ? '`true` or `false`'
          : '';
    return `| \`${row.name}\` | ${row.default === '' ? '' : `\`${row.default}\``} | ${bounds} | ${row.about} |`;
  });
  return ['| name | default | bounds | what it does |', '|---|---|---|---|', ...rows].join('\n');
}

/** First and second cells of the table below a heading. */
function tableUnder(heading: string): string[][] {
  const section = readme.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  const rows = section
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .slice(1);
  return rows.map((line) =>
    line
      .split('|')
      .slice(1, 3)
      .map((cell) => cell.trim()),
  );
}

/** A command of the README, against a server on other ports. */
function shell(command: string, ports: { grpc: number; http: number }): string {
  return command
    .replaceAll('npx apikeyd', `node --disable-warning=ExperimentalWarning ${ROOT}src/main.ts`)
    .replaceAll('grpcurl', tool('grpcurl'))
    .replaceAll('localhost:50051', `localhost:${ports.grpc}`)
    .replaceAll('localhost:8080', `localhost:${ports.http}`);
}

describe('README', () => {
  it('has the table of settings that the code has (UPDATE_README=1 writes it)', () => {
    const marked = /(<!-- settings -->\n)[\s\S]*?(<!-- \/settings -->)/;
    const wanted = readme.replace(
      marked,
      (_all, begin: string, end: string) => `${begin}${settingsTable()}\n${end}`,
    );
    if (process.env.UPDATE_README) writeFileSync(FILE, wanted);
    else expect(readme).toBe(wanted);
  });

  it('lists every RPC, decision and error, and no other', () => {
    const rpcs = [ApiKeyAuth, ApiKeyAdmin, ApiKeyIntegrations].flatMap((service) =>
      service.methods.map(({ name }) => `${service.name}/${name}`),
    );
    expect(tableUnder('What you can call').map(([name]) => name)).toEqual(rpcs);
    expect(tableUnder('Decisions').map(([name]) => name)).toEqual([...DECISIONS]);
    expect(tableUnder('Errors')).toEqual(
      Object.entries(ERRORS).map(([reason, { status }]) => [reason, codeName(status)]),
    );
  });

  it.each(['planned', 'emergency', 'gradual'])('has a %s rotation that really goes so', async (name) => {
    const database = freshDatabase('sqlite', '');
    const server = await spawnServer('sqlite:./data/apikeyd.db', 'data', {}, database.folder);
    try {
      const address = `127.0.0.1:${server.ports.grpc}`;
      const here = (command: string, env = {}) =>
        run('bash', ['--norc', '-euo', 'pipefail', '-c', shell(command, server.ports)], {
          cwd: database.folder,
          env: { APIKEYD_ADDRESS: address, ...env },
        });
      const key = 'npx apikeyd api-key create it --key-type service --scope a:b --owner me --json';
      const made = JSON.parse((await here(key)).stdout) as { key: { id: string }; secret: string };
      const block = readme.split(`<!-- runbook ${name} -->\n\`\`\`sh\n`)[1]?.split('```')[0] ?? '';
      const ended = await here(block, { ID: made.key.id });
      expect(ended).toMatchObject({ code: 0, stderr: '' });
      const decision = async (secret: string) =>
        (await here(`printf %s ${secret} | npx apikeyd api-key validate - || true`)).stdout.split('\n')[0];
      expect(await decision(made.secret)).toBe('ROTATED');
      const last = name === 'emergency' ? 'newest.txt' : 'new.txt';
      expect(await decision(`"$(cat ${last})"`)).toBe('VALID');
      if (name === 'emergency') expect(await decision('"$(cat new.txt)"')).toBe('ROTATED');
      if (name === 'planned') expect(ended.stdout).toContain('ROTATION_MODE_MANUAL');
    } finally {
      await server.end('SIGTERM');
      await database.drop();
    }
  });
});
