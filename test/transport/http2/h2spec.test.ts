// If this fails, the server breaks a rule of HTTP/2 or HPACK that clients rely on.
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { LIMITS } from '../../../src/rpc/limits.ts';
import {
  ResponseHeaders,
  type ServerConnection,
  type ServerStream,
} from '../../../src/transport/http2/transport.ts';
import { HTTP2_SERVER_NAMES, HTTP2_SERVERS, type Http2ServerName } from '../../support/http2.ts';
import { run } from '../../support/process.ts';
import { requires } from '../../support/requires.ts';
import { tool } from '../../support/tools.ts';

const OK = new ResponseHeaders([[':status', '200']]);
const h2spec = tool('h2spec');

/** Cases that fail. nghttp2 drops frames of streams that are over, where h2spec wants an error: docs/design/http2.md. */
const FAILED: Record<Http2ServerName, readonly string[]> = {
  own: [],
  node: [
    'closed: Sends a DATA frame after sending RST_STREAM frame',
    'closed: Sends a HEADERS frame after sending RST_STREAM frame',
    'closed: Sends a DATA frame',
    'closed: Sends a HEADERS frame',
    'Sends stream identifier that is numerically smaller than previous',
    'Sends PRIORITY frame that depend on itself',
    'Sends a PRIORITY frame with 0x0 stream identifier',
    'Sends a PING frame with ACK',
    // The connection ends, where h2spec wants the stream alone to be reset.
    'Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream',
  ],
};

/** Answers when the request is whole. */
function begin(stream: ServerStream) {
  const end = () => {
    stream.respond(OK);
    stream.send(Buffer.from('hello'));
    stream.end();
  };
  return { data: () => {}, end, closed: () => {} };
}

for (const http2 of HTTP2_SERVER_NAMES)
  requires('h2spec').it(
    `h2spec finds nothing that is not listed, with HTTP2_SERVER=${http2}`,
    { timeout: 120_000 },
    async () => {
      const around = {
        begin,
        failed: (error: unknown) => expect.fail(String(error)),
        holdUnread: () => true,
      };
      const connections: ServerConnection[] = [];
      const server = createServer((socket) => {
        connections.push(new HTTP2_SERVERS[http2](socket, '', LIMITS, around, 0));
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
      ).toEqual(FAILED[http2]);
      for (const connection of connections) connection.destroy();
      server.close();
      rmSync(folder, { recursive: true });
    },
  );
