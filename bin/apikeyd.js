#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
// Finds the program and a Node that can run it: a clone runs its sources, a package what was compiled from them.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const OLDEST_NODE = 24;
const source = new URL('../src/main.ts', import.meta.url);
const program = existsSync(source) ? source : new URL('../dist/src/main.js', import.meta.url);

if (Number.parseInt(process.versions.node, 10) >= OLDEST_NODE) await import(program.href);
else process.exitCode = runWith(newerNode());

/** The Node that comes as a package, for machines whose own is too old. */
function newerNode() {
  const node = packagedNode();
  if (existsSync(node)) return node;
  // npm 12 runs no install script that was not allowed, and this package's puts the program in its place.
  process.stderr.write(
    `apikeyd: needs Node ${OLDEST_NODE}, this is ${process.versions.node}: install it, or let npm bring it: npm install --allow-scripts=node apikeyd\n`,
  );
  process.exit(78);
}

function packagedNode() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('node/package.json')), 'bin/node');
  } catch {
    return '';
  }
}

function runWith(node) {
  const args = ['--disable-warning=ExperimentalWarning', fileURLToPath(program), ...process.argv.slice(2)];
  // The terminal's signals reach both; the program below decides when both end.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => {});
  return spawnSync(node, args, { stdio: 'inherit' }).status ?? 1;
}
