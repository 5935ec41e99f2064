// If this fails, the image starts as root, loses SIGTERM, lacks a part of the program, or has a setting that is none.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { readConfig } from '../../src/config.ts';
import { ROOT } from '../support/tools.ts';

/** The instructions after the last FROM, continued lines joined. */
const stages = readFileSync(join(ROOT, 'Containerfile'), 'utf8')
  .replaceAll(/^#.*\n/gm, '')
  .replaceAll(/\\\n\s*/g, '')
  .split(/^FROM /m);
const build = stages.at(-2) ?? '';
const last = (stages.at(-1) ?? '').split('\n').map((line) => line.trim());
const of = (instruction: string) =>
  last.filter((line) => line.startsWith(`${instruction} `)).map((line) => line.slice(instruction.length + 1));

describe('Containerfile', () => {
  it('takes both bases from arguments', () => {
    expect(stages.map((stage) => stage.split('\n')[0]).slice(1)).toEqual([
      `\${BUILDER} AS build`,
      `\${RUNTIME}`,
    ]);
  });

  it('ends as uid 65532 with node as process 1, which gets SIGTERM', () => {
    expect(of('USER')).toEqual(['65532:65532']);
    expect(of('STOPSIGNAL')).toEqual(['SIGTERM']);
    expect(of('VOLUME')).toEqual(['/data']);
    const [entry = ''] = of('ENTRYPOINT');
    expect(JSON.parse(entry)).toEqual([
      'node',
      '--disable-warning=ExperimentalWarning',
      `/app/${packageJson.bin.apikeyd}`,
    ]);
  });

  it('runs nothing in the last stage, whose base has no shell', () => {
    expect(of('RUN')).toEqual([]);
  });

  it('has each part of the package that a server reads', () => {
    const copied = of('COPY').map((line) => line.split(' ').slice(0, -1).join(' '));
    const folders = packageJson.files.filter((name) => !/\.(md|proto)$/.test(name));
    expect(folders.filter((name) => !copied.some((line) => line.endsWith(`/app/${name}`)))).toEqual([]);
    expect(build).toContain('npm run build');
    expect(packageJson.scripts).toHaveProperty('build');
  });

  it('has only settings in its environment, and values that are within bounds', () => {
    const env = Object.fromEntries(
      of('ENV')
        .flatMap((line) => line.split(/\s+/))
        .map((pair) => pair.split('=')),
    );
    const { PATH, SQLITE_TMPDIR, ...settings } = env;
    expect([PATH, SQLITE_TMPDIR]).toEqual(['/nodejs/bin:/usr/local/bin:/usr/bin:/bin', '/data']);
    const config: Record<string, unknown> = readConfig(settings);
    expect(Object.keys(settings).filter((name) => config[name] !== settings[name])).toEqual([]);
  });
});
