/** What does TLS cost, what Node's own HTTP/2 server, and what a connection that only waits? */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext } from 'node:tls';
import { type Order, PREFACE, SETTINGS } from '../attacks/attack.ts';
import { selfSigned } from '../support/certificate.ts';
import { HTTP2_SERVER_NAMES } from '../support/http2.ts';
import { type Answered, alternate, type Bench, median, ratio, rounded, spread, table } from './measure.ts';
import { ALL_ON, apikeyd, handler, load, residentMiB, type Server } from './servers.ts';

const CALLS = 60_000;
const ROUNDS = 7;
/** A port holds 10 000, those of the benchmark's own clients among them. */
const IDLE = 9_900;
/** Fewer than the 2 000 that one address may hold. */
const PER_ADDRESS = 1_000;
const HALF_SENT = 'sends all but the last byte of 1 MiB on 6 000 streams';

export async function transports({ folder }: Bench): Promise<Answered> {
  const { certFile, keyFile } = selfSigned(folder);
  const ways = [false, true].flatMap((tls) => HTTP2_SERVER_NAMES.map((http2) => ({ tls, http2 })));
  const start = ({ tls, http2 }: (typeof ways)[number], use: string) =>
    apikeyd({
      ...ALL_ON,
      folder,
      name: `all on, HTTP2_SERVER=${http2}${tls ? ', TLS' : ''}`,
      storeUrl: `sqlite:${folder}/${use}-${http2}-${tls}.db`,
      settings: {
        HTTP2_SERVER: http2,
        ...(tls ? { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile } : {}),
      },
    });
  const servers = [await handler('empty', folder), await handler('empty', folder, { certFile, keyFile })];
  for (const way of ways) servers.push(await start(way, 'speed'));
  for (const server of servers) load(server, CALLS / 2);
  const figures = await alternate(servers, ROUNDS, (server) => load(server, CALLS));
  for (const server of servers) await server.stop();
  const yardstick = (server: Server) => figures[server.tls ? 1 : 0] ?? [];
  const rows = servers.map((server, i) => {
    const of = figures[i] ?? [];
    return [server.name, rounded(median(of)), spread(of), ratio(of, yardstick(server)).toFixed(2)];
  });
  const held: (string | number)[][] = [];
  for (const way of ways) {
    const [waiting, attacked] = [await start(way, 'waiting'), await start(way, 'attacked')];
    for (const server of [waiting, attacked]) load(server, CALLS / 2);
    const [before, idle] = await besideIdle(waiting);
    const most = await underAttack(attacked);
    held.push([waiting.name, before, idle, rounded(((idle - before) * 1024) / IDLE), most]);
    for (const server of [waiting, attacked]) await server.stop();
  }
  return {
    facts: {
      tlsVsEmptyHandler: ratio(figures[4] ?? [], figures[1] ?? []),
      nodeServerVsEmptyHandler: ratio(figures[3] ?? [], figures[0] ?? []),
    },
    text: `## TLS, and Node's own HTTP/2 server

All on. The empty grpc-js handler of the ratio speaks TLS where its subject does (TLS 1.3, a P-256 certificate,
connections that last).

${table(['subject', 'calls/s', 'spread', 'of the empty handler'], rows)}

Resident memory in MiB after ${rounded(CALLS / 2)} calls, with ${IDLE} connections more that have sent their SETTINGS and
wait, and at its highest while a stranger leaves 6 000 messages of 1 MiB one byte short, on 60 connections.

${table(['subject', 'before', `${IDLE} idle`, 'KiB a connection', 'attacked'], held)}`,
  };
}

/** Resident MiB without the idle connections, and with them. */
async function besideIdle(server: Server): Promise<[number, number]> {
  const before = residentMiB(server);
  const sockets = await openIdle(server);
  const idle = residentMiB(server);
  for (const socket of sockets) socket.destroy();
  return [before, idle];
}

async function openIdle({ port, tls }: Server): Promise<Socket[]> {
  const sockets: Socket[] = [];
  const secureContext = createSecureContext();
  const open = async (i: number) => {
    const localAddress = `127.0.0.${100 + Math.floor(i / PER_ADDRESS)}`;
    const to = { port, host: '127.0.0.1', localAddress };
    const socket = tls
      ? connectTls({ ...to, secureContext, rejectUnauthorized: false, ALPNProtocols: ['h2'] })
      : connectTcp(to);
    sockets.push(socket);
    socket.on('error', () => {});
    await once(socket, tls ? 'secureConnect' : 'connect');
    socket.write(Buffer.concat([PREFACE, SETTINGS]));
    // Its SETTINGS: the server has made of the connection all that it will.
    await once(socket, 'data');
  };
  const lanes = Array.from({ length: 50 }, async (_, lane) => {
    for (let i = lane; i < IDLE; i += 50) await open(i);
  });
  await Promise.all(lanes);
  const closed = sockets.filter((socket) => socket.destroyed).length;
  if (closed > 0) throw new Error(`${closed} of ${IDLE} idle connections were closed`);
  return sockets;
}

async function underAttack(server: Server): Promise<number> {
  const attacker: ChildProcess = fork(new URL('../attacks/attacker.ts', import.meta.url), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  let most = 0;
  const watching = setInterval(() => (most = Math.max(most, residentMiB(server))), 50);
  attacker.send({ name: HALF_SENT, port: server.port, tls: server.tls, ms: 10_000 } satisfies Order);
  const [{ failure }] = await once(attacker, 'message');
  clearInterval(watching);
  attacker.kill();
  if (failure !== '') throw new Error(failure);
  return most;
}
