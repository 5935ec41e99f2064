/** Floods Node's HTTP/2 with trailers that do not end and collects the garbage: `node --expose-gc`, in a process of its own. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { LIMITS } from '../../src/rpc/limits.ts';
import { FLAG, FRAME } from '../../src/transport/http2/frames.ts';
import { frame, odd, PREFACE, post, SETTINGS } from '../attacks/attack.ts';
import { HTTP2_SERVERS } from '../support/http2.ts';

const ROUNDS = 8;
const CONNECTIONS = 10;
const STREAMS_AT_ONCE = 300;
/** A field that is in no table: its bytes belong to the connection. */
const TRAILERS = Buffer.from([0x40, 1, 0x78, 1, 0x31]);

/** Begins streams and never answers them. */
const around = {
  begin: () => ({ data: () => {}, end: () => {}, closed: () => {} }),
  failed: (error: unknown) => {
    throw error;
  },
  holdUnread: () => true,
};
const server = createServer((socket) => {
  socket.on('error', () => socket.destroy());
  new HTTP2_SERVERS.node(socket, '', LIMITS, around, 0);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address() as AddressInfo;
let ended = 0;

/** Until the server has had enough. */
async function flood(): Promise<void> {
  const socket = connect(port, '127.0.0.1')
    .on('error', () => {})
    .resume();
  socket.write(Buffer.concat([PREFACE, SETTINGS]));
  for (let i = 0; !socket.closed; ) {
    const parts: Buffer[] = [];
    for (const end = i + STREAMS_AT_ONCE; i < end; i++)
      parts.push(
        frame(FRAME.HEADERS, FLAG.END_HEADERS, odd(i), post('/')),
        frame(FRAME.HEADERS, FLAG.END_HEADERS, odd(i), TRAILERS),
      );
    socket.write(Buffer.concat(parts));
    await new Promise((resolve) => setImmediate(resolve));
  }
  ended++;
}

for (let round = 0; round < ROUNDS; round++) {
  await Promise.all(Array.from({ length: CONNECTIONS }, flood));
  // The server's side of the last connection closes in a later turn.
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  globalThis.gc?.();
}
process.stdout.write(`${ended} connections ended`);
process.exit();
