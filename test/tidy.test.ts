// If this fails, the house is losing its order: rooms reach into each other, files grow, code lies about unused.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = new URL('..', import.meta.url).pathname;
const MAX_LINES = 400;

/** Which folder may import which (docs/design/house.md). main.ts, config.ts and config-values.ts are outside of them. */
const MAY_IMPORT: Record<string, { rooms: string[]; packages: RegExp }> = {
  keys: { rooms: ['keys'], packages: /^node:(crypto|net)$/ },
  messages: { rooms: ['messages', 'keys'], packages: /^@bufbuild\/protobuf$/ },
  audit: { rooms: ['audit', 'keys'], packages: /^node:/ },
  watch: { rooms: ['watch', 'keys', 'audit'], packages: /^(node:|lru-cache$|@redis\/client$)/ },
  leases: { rooms: ['leases', 'keys'], packages: /^(node:|lru-cache$)/ },
  integrations: { rooms: ['integrations', 'keys'], packages: /^node:/ },
  rpc: {
    rooms: ['rpc', 'messages', 'keys', 'audit', 'watch', 'leases', 'gen'],
    packages: /^(node:|@bufbuild\/protobuf|@connectrpc\/|lru-cache$)/,
  },
  gateways: { rooms: ['gateways', 'keys', 'rpc', 'gen'], packages: /^(node:|@bufbuild\/protobuf)/ },
  transport: {
    rooms: ['transport', 'rpc', 'messages', 'keys', 'gateways', 'gen'],
    packages: /^(node:|@bufbuild\/protobuf|@connectrpc\/)/,
  },
  'transport/http2': { rooms: ['transport/http2'], packages: /^node:/ },
  store: { rooms: ['store', 'keys', 'audit'], packages: /^(node:|lru-cache$|rate-limiter-flexible$)/ },
  'store/sqlite': {
    rooms: ['store', 'store/sqlite', 'keys', 'audit'],
    packages: /^(node:|lru-cache$|rate-limiter-flexible$)/,
  },
  'store/mongo': {
    rooms: ['store', 'store/mongo', 'keys', 'audit'],
    packages: /^(node:|mongodb$|rate-limiter-flexible$)/,
  },
  cli: {
    rooms: ['cli', 'messages', 'gen'],
    packages: /^(node:|@bufbuild\/protobuf|@connectrpc\/|commander$|csv-parse\/sync$)/,
  },
  console: {
    rooms: ['console', 'gen'],
    packages: /^(preact(\/|$)|@preact\/signals$|@connectrpc\/connect(-web)?$|@bufbuild\/protobuf|vite$)/,
  },
  server: {
    rooms: [
      ...[
        'server',
        'config',
        'keys',
        'messages',
        'audit',
        'watch',
        'leases',
        'rpc',
        'gateways',
        'transport',
        'transport/http2',
      ],
      ...['store', 'integrations', 'cli', 'gen'],
    ],
    packages: /^(node:|pino$|prom-client$|@opentelemetry\/)/,
  },
};
/** The adapters are loaded by name in one place only. */
const LOADS_ADAPTERS = 'src/store/open-store.ts';
const MAX_FUNCTION_LINES = 70;
const ENTRIES = [
  'src/main.ts',
  'src/store/sqlite/thread.ts',
  'src/console/main.tsx',
  'src/console/vite.config.ts',
];

function filesBelow(folder: string): string[] {
  return readdirSync(join(ROOT, folder)).flatMap((name) => {
    const path = join(folder, name);
    return statSync(join(ROOT, path)).isDirectory() ? filesBelow(path) : [path];
  });
}

function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const found = text.matchAll(
    /(?:^|\n)\s*(?:import|export)\s[^'";]*?from\s+'([^']+)'|import\('([^']+)'\)|(?:^|\n)import '([^']+)'/g,
  );
  return [...found].map(([, a, b, c]) => a ?? b ?? c ?? '');
}

const target = (file: string, specifier: string) => relative(ROOT, resolve(ROOT, dirname(file), specifier));

/** A room's name, `src/store/sqlite/rows.ts` → `store/sqlite`; the file's own name for what lies outside the rooms. */
function roomOf(path: string): string {
  const [top = '', room = '', inner = ''] = path.split('/');
  if (top !== 'src') return top;
  const below = `${room}/${inner}`;
  return MAY_IMPORT[below] === undefined ? room.replace(/\.ts$/, '') : below;
}

const OUTSIDE = ['main', 'config', 'config-leases', 'config-tracing', 'config-values'];
/** `transport/http2` lies inside `transport`, which may use it. The adapters are no part of `store` to others. */
const isInside = (inner: string, outer: string) => inner === 'transport/http2' && outer === 'transport';

const sources = filesBelow('src').filter((path) => /\.tsx?$/.test(path));
const tests = filesBelow('test').filter((path) => path.endsWith('.ts'));

describe('the house', () => {
  it('has only planned folders', () => {
    const rooms = new Set(sources.map(roomOf));
    expect([...rooms].filter((room) => !OUTSIDE.includes(room) && MAY_IMPORT[room] === undefined)).toEqual(
      [],
    );
    const names = [...sources, ...tests].flatMap((path) => path.split('/'));
    expect(names.filter((name) => /^(utils?|common|helpers?|shared|types)(\.ts)?$/.test(name))).toEqual([]);
  });

  it('imports inwards only', () => {
    const wrong = sources
      .filter((file) => !OUTSIDE.includes(roomOf(file)))
      .flatMap((file) => {
        const rule = MAY_IMPORT[roomOf(file)];
        return importsOf(file)
          .filter((specifier) => {
            if (!specifier.startsWith('.')) return rule?.packages.test(specifier) !== true;
            const to = target(file, specifier);
            if (to === 'package.json') return false;
            if (file === LOADS_ADAPTERS && roomOf(to).startsWith('store/')) return false;
            // A room may use the room inside it that it was given.
            return rule?.rooms.includes(roomOf(to)) !== true && !isInside(roomOf(to), roomOf(file));
          })
          .map((specifier) => `${file} imports ${specifier}`);
      });
    expect(wrong).toEqual([]);
  });

  it('has no circle of imports', () => {
    const circles: string[] = [];
    const done = new Set<string>();
    const visit = (file: string, path: readonly string[]) => {
      const seen = path.indexOf(file);
      if (seen >= 0) circles.push([...path.slice(seen), file].join(' → '));
      if (seen >= 0 || done.has(file)) return;
      for (const specifier of importsOf(file))
        if (specifier.startsWith('.') && /\.tsx?$/.test(specifier))
          visit(target(file, specifier), [...path, file]);
      done.add(file);
    };
    for (const file of sources) visit(file, []);
    expect(circles).toEqual([]);
  });

  it(`has no function over ${MAX_FUNCTION_LINES} lines`, () => {
    const { linter } = JSON.parse(readFileSync(join(ROOT, 'biome.json'), 'utf8'));
    // The linter counts; this keeps anybody from telling it to count further.
    expect(linter.rules.complexity.noExcessiveLinesPerFunction).toEqual({
      level: 'error',
      options: { maxLines: MAX_FUNCTION_LINES, skipBlankLines: false },
    });
    // It leaves out nested functions: so those at the top are counted here, by their lines.
    const long = sources
      .filter((file) => roomOf(file) !== 'console')
      .flatMap((file) => {
        const lines = readFileSync(join(ROOT, file), 'utf8').split('\n');
        return lines.flatMap((line, at) => {
          if (!/^(export )?(async )?function/.test(line)) return [];
          const length = lines.slice(at).indexOf('}') + 1;
          return length > MAX_FUNCTION_LINES ? [`${file}: ${line} (${length})`] : [];
        });
      });
    expect(long).toEqual([]);
  });

  it('reads time and random numbers outside of the domain only, and the environment in one place', () => {
    const keys = sources.filter((file) => roomOf(file) === 'keys');
    expect(
      keys.filter((file) =>
        /Date\.now|Math\.random|new Date\(\)|performance\./.test(readFileSync(join(ROOT, file), 'utf8')),
      ),
    ).toEqual([]);
    const environment = sources.filter((file) =>
      readFileSync(join(ROOT, file), 'utf8').includes('process.env'),
    );
    expect(environment).toEqual(['src/main.ts']);
  });

  it(`has no file over ${MAX_LINES} lines`, () => {
    const long = [...sources, ...tests].filter(
      (file) => readFileSync(join(ROOT, file), 'utf8').split('\n').length > MAX_LINES,
    );
    expect(long).toEqual([]);
  });

  it('uses every source file', () => {
    const reached = new Set<string>();
    const visit = (file: string) => {
      if (reached.has(file)) return;
      reached.add(file);
      for (const specifier of importsOf(file))
        if (specifier.startsWith('.') && /\.tsx?$/.test(specifier)) visit(target(file, specifier));
    };
    for (const entry of ENTRIES) visit(entry);
    expect(sources.filter((file) => !reached.has(file))).toEqual([]);
  });

  it('says in each test file what breaks in production if it fails', () => {
    const silent = tests.filter(
      (file) =>
        file.endsWith('.test.ts') && !readFileSync(join(ROOT, file), 'utf8').startsWith('// If this fails,'),
    );
    expect(silent).toEqual([]);
  });

  it('is described by the table in docs/design/house.md', () => {
    const page = readFileSync(join(ROOT, 'docs/design/house.md'), 'utf8');
    const described = [...page.matchAll(/^\| `([\w/]+)` \|.*\| ([^|]+) \|$/gm)].map(
      ([, room, imports = '']) => [
        room,
        imports === 'every room'
          ? imports
          : [...imports.matchAll(/`([\w/]+)`/g)].map(([, name]) => name).sort(),
      ],
    );
    const enforced = Object.entries(MAY_IMPORT).map(([room, { rooms }]) => [
      room,
      room === 'server' ? 'every room' : [...rooms].sort(),
    ]);
    expect(Object.fromEntries(described)).toEqual(Object.fromEntries(enforced));
  });

  it('lists in docs/design/extending.md every file that a new denial reason changes', () => {
    const page = readFileSync(join(ROOT, 'docs/design/extending.md'), 'utf8');
    const list = page.split('\n## A denial reason\n')[1]?.split('\n## ')[0] ?? '';
    const listed = [...list.matchAll(/^\d+\. `([^`]+)`/gm)].map(([, path]) => path);
    // A reason with a distinctive name: a file that has it must also get a new reason.
    const naming = [...sources, ...filesBelow('proto'), ...filesBelow('docs/reference')].filter(
      (path) =>
        !path.endsWith('.binpb') && readFileSync(join(ROOT, path), 'utf8').includes('INSUFFICIENT_SCOPE'),
    );
    expect(listed.sort()).toEqual(naming.sort());
  });

  it('names no host but the public registry in the lock file', () => {
    const lock = readFileSync(join(ROOT, 'package-lock.json'), 'utf8');
    const hosts = new Set([...lock.matchAll(/"resolved": "https?:\/\/([^/]+)/g)].map(([, host]) => host));
    expect([...hosts].filter((host) => host !== 'registry.npmjs.org')).toEqual([]);
  });
});
