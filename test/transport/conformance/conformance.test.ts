// If this fails, clients of Connect, gRPC or gRPC-Web are answered otherwise than their protocols say.
import { join } from 'node:path';
import { expect } from 'vitest';
import { HTTP2_SERVER_NAMES } from '../../support/http2.ts';
import { run } from '../../support/process.ts';
import { requires } from '../../support/requires.ts';
import { tool, toolsFolder } from '../../support/tools.ts';

const FOLDER = new URL('.', import.meta.url).pathname;
const judge = tool('connectconformance');
/** All of them take more than a minute. */
const SOME = ['--run', '**/HTTPVersion:2/**/Compression:COMPRESSION_GZIP/TLS:false/**'];

for (const http2 of HTTP2_SERVER_NAMES)
  requires('connectconformance').it(
    `connectconformance finds nothing, with HTTP2_SERVER=${http2}`,
    { timeout: 600_000 },
    async () => {
      const server = [process.execPath, '--disable-warning=ExperimentalWarning', join(FOLDER, 'server.ts')];
      const { code, stdout } = await run(judge, [
        ...['--mode', 'server', '--conf', join(FOLDER, 'config.yaml'), '--max-servers', '2'],
        ...(process.env.LONG ? [] : SOME),
        // Node's own HTTP/1.1 server resets a connection now and then under this judge, also without us.
        ...['--known-flaky', '**/HTTPVersion:1/**'],
        ...['--', ...server, join(toolsFolder, 'conformance.binpb'), http2],
      ]);
      expect(code, stdout).toBe(0);
      expect(Number(/Total cases: (\d+)/.exec(stdout)?.[1])).toBeGreaterThan(100);
    },
  );
