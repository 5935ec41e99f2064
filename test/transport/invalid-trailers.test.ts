// If this fails, anybody can abort a server with HTTP2_SERVER=node by sending trailers that do not end.
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { run } from '../support/process.ts';
import { ROOT } from '../support/tools.ts';

const FLOOD = join(ROOT, 'test/transport/invalid-trailers.ts');

it("Node's HTTP/2 outlives a flood of trailers that do not end, and the collection of its garbage", async () => {
  const args = ['--expose-gc', '--disable-warning=ExperimentalWarning', FLOOD];
  const { code, stdout, stderr } = await run(process.execPath, args);
  expect(stderr).toBe('');
  expect(stdout).toBe('80 connections ended');
  expect(code).toBe(0);
}, 60_000);
