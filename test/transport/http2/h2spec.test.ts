// If this fails, the server breaks a rule of HTTP/2 or HPACK that clients rely on.
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { LIMITS } from '../../../src/rpc/limits.ts';
import {
  AnswerHeaders,
  type ServerConnection,
  type ServerStream,
} from '../../../src/transport/http2/transport.ts';
import { HTTP2_SERVERS } from '../../support/http2.ts';
import { run } from '../../support/process.ts';
import { requires } from '../../support/requires.ts';
import { tool } from '../../support/tools.ts';

const OK = new AnswerHeaders([[':status', '200']]);
const h2spec = tool('h2spec');

/** Answers when the request is whole. */
function begin(stream: ServerStream) {
  const end = () => {
    stream.respond(OK);
    stream.send(Buffer.from('hello'));
    stream.end();
  };
  return { data: () => {}, end, closed: () => {} };
}

for (const http2 of ['own'] as const)
  requires('h2spec').it(
    `h2spec finds nothing, with HTTP2_SERVER=${http2}`,
    { timeout: 120_000 },
    async () => {
      const connections: ServerConnection[] = [];
      const server = createServer((socket) => {
        connections.push(new HTTP2_SERVERS[http2](socket, '', LIMITS, begin, 0));
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const folder = mkdtempSync(join(tmpdir(), 'h2spec-'));
      const report = join(folder, 'report.xml');
      const port = String((server.address() as AddressInfo).port);
      const { stdout } = await run(h2spec, ['-h', '127.0.0.1', '-p', port, '-j', report, '-o', '5']);
      const cases = [
        ...readFileSync(report, 'utf8').matchAll(
          /<testcase [^>]*classname="([^"]*)"[^>]*?(?:\/>|>(.*?)<\/testcase>)/gs,
        ),
      ];
      expect(cases.length).toBeGreaterThan(140);
      const failed = cases.filter(([, , result]) => /<(failure|error)/.test(result ?? ''));
      expect(
        failed.map(([, name]) => name),
        stdout,
      ).toEqual([]);
      for (const connection of connections) connection.destroy();
      server.close();
      rmSync(folder, { recursive: true });
    },
  );
