/** The programs of the benchmarks: servers on core 0, the load on core 1. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import type { CreateKeyRequestSchema } from '../../gen/apikey/v1/admin_pb.ts';
import { ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { frame } from '../support/raw.ts';
import { type Clients, clientsOf } from '../support/server.ts';
import type { LoadTarget } from './load-client.ts';

export const ROOT = new URL('../..', import.meta.url).pathname;
export const VALIDATE = '/apikey.v1.ApiKeyAuth/ValidateKey';

export interface Server {
  readonly name: string;
  readonly child: ChildProcess;
  readonly port: number;
  /** Of the metrics; 0 where there are none. */
  readonly metricsPort: number;
  /** '' where no credential is sent. */
  readonly admin: string;
  readonly clients: Clients;
  /** A file with the call's frame, for h2load. */
  readonly request: string;
  readonly tls: boolean;
  stop(): Promise<void>;
}

interface Program {
  readonly root?: string;
  readonly script: string;
  readonly env?: Record<string, string>;
  readonly ready: RegExp;
}

/** Starts a process on core 0 and waits for a line of its output. */
function pinned({ root = ROOT, script, env = {}, ready }: Program) {
  const node = ['-c', '0', process.execPath, '--disable-warning=ExperimentalWarning', join(root, script)];
  const args = script === 'src/main.ts' ? ['serve'] : [];
  const child = spawn('taskset', [...node, ...args], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: root,
  });
  return new Promise<{ child: ChildProcess; output: string }>((resolve, reject) => {
    let output = '';
    child.once('exit', () => reject(new Error(output)));
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        if (ready.test(output)) resolve({ child, output });
      });
    }
  });
}

function stopper(child: ChildProcess) {
  return async () => {
    child.removeAllListeners('exit');
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  };
}

/** Processor time that a server's threads have used, in ms, to the kernel's tick of 10 ms. */
export function cpuMs({ child }: Server): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** For servers that are started again on their store. */
export const ADMIN = 'audit_v1_benchbenchbenchbenchbe';
const SOME_SECRET = 'audit_v1_0123456789012345678901';

/** @param kind `empty` is on grpc-js, `bare` on node:http2: the messages of ValidateKey and no work; `empty` may speak TLS. */
export async function handler(
  kind: 'empty' | 'bare',
  folder: string,
  { certFile = '', keyFile = '' } = {},
): Promise<Server> {
  const tls = certFile !== '';
  const env = { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile };
  const { child, output } = await pinned({ script: `test/bench/${kind}-handler.ts`, env, ready: /^\d+\n/ });
  const port = Number(output.trim());
  const file = requestFile(folder, `${kind}.request`, {
    key: SOME_SECRET,
    requiredScope: 'traces:read',
    clientIp: '10.1.2.3',
  });
  const name = `${kind === 'empty' ? 'empty grpc-js handler' : 'bare node:http2 handler'}${tls ? ', TLS' : ''}`;
  const clients = clientsOf({ grpc: port, http: 0 }, 'grpc', '');
  return { name, child, port, metricsPort: 0, admin: '', clients, request: file, tls, stop: stopper(child) };
}

export interface Setup {
  readonly name: string;
  readonly storeUrl: string;
  readonly folder: string;
  readonly settings?: Record<string, string>;
  readonly key?: Partial<MessageInitShape<typeof CreateKeyRequestSchema>>;
  readonly request?: Omit<MessageInitShape<typeof ValidateKeyRequestSchema>, 'key'>;
  /** Without a calling key. */
  readonly anonymous?: boolean;
  /** Another checkout. */
  readonly root?: string;
}

export const ALL_ON = {
  key: { rateLimits: [{ name: 'm', limit: 1_000_000_000n, window: { seconds: 86_400n } }] },
  request: { requiredScope: 'traces:read', clientIp: '10.1.2.3' },
};

/** An apikeyd with a key, and the call that asks for it. */
export async function apikeyd(setup: Setup): Promise<Server> {
  const { name, storeUrl, folder, settings = {}, anonymous = false, root } = setup;
  const file = name.replaceAll(/\W+/g, '-');
  const keyFile = join(folder, `${file}.key`);
  const any = '127.0.0.1:0';
  const env: Record<string, string> = {
    STORE_URL: storeUrl,
    GRPC_ADDR: any,
    HTTP_ADDR: any,
    METRICS_ADDR: any,
    APIKEYD_KEY_FILE: keyFile,
    ALLOW_ANONYMOUS_VALIDATE: String(anonymous),
    ...settings,
  };
  const program = { script: 'src/main.ts', env, ready: /"msg":"serving"/ };
  const { child, output } = await pinned(root === undefined ? program : { ...program, root });
  const port = Number(/:(\d+)","msg":"GRPC_ADDR/.exec(output)?.[1]);
  const admin = env.ADMIN_BOOTSTRAP_KEY ?? readFileSync(keyFile, 'utf8').trim();
  const { TLS_CERT_FILE: certFile } = env;
  const ca = certFile === undefined ? undefined : readFileSync(certFile);
  const clients = clientsOf({ grpc: port, http: 0 }, 'grpc', admin, ca);
  const { secret } = await clients.admin.createKey({
    name: 'bench',
    ownerId: 'bench',
    keyType: KeyType.SERVICE,
    scopes: ['traces:read'],
    ...(setup.key as object),
  });
  return {
    name,
    child,
    port,
    metricsPort: Number(/:(\d+)","msg":"METRICS_ADDR/.exec(output)?.[1]),
    admin: anonymous ? '' : admin,
    clients,
    request: requestFile(folder, `${file}.request`, { ...(setup.request as object), key: secret }),
    tls: ca !== undefined,
    stop: stopper(child),
  };
}

function requestFile(
  folder: string,
  name: string,
  fields: MessageInitShape<typeof ValidateKeyRequestSchema>,
): string {
  const file = join(folder, name);
  const request = create(ValidateKeyRequestSchema, fields);
  writeFileSync(file, frame(toBinary(ValidateKeyRequestSchema, request)));
  return file;
}

/** The arguments of h2load for the call. Headers can only be arguments; this key lives only for this run. */
export function callArgs({ admin, request, port, tls }: Server, path = VALIDATE): string[] {
  const headers = ['content-type: application/grpc', 'te: trailers'];
  if (admin !== '') headers.push(`authorization: Bearer ${admin}`);
  return [
    ...headers.flatMap((header) => ['-H', header]),
    '-d',
    request,
    `http${tls ? 's' : ''}://127.0.0.1:${port}${path}`,
  ];
}

/** Calls a second of 10 connections of 32 streams; throws when not every call succeeded. */
export function load(server: Server, calls: number, path = VALIDATE): number {
  return loadWith(callArgs(server, path), calls);
}

/** The arguments of h2load for any request. */
export function loadWith(args: readonly string[], calls: number): number {
  const h2load = ['-c', '1', 'h2load', '-n', String(calls), '-c', '10', '-m', '32', ...args];
  const { stdout } = spawnSync('taskset', h2load, { encoding: 'utf8' });
  if (!stdout.includes(`${calls} succeeded`)) throw new Error(stdout);
  return Number(/([\d.]+) req\/s/.exec(stdout)?.[1]);
}

export function targetOf({ port, admin }: Server, path = VALIDATE): LoadTarget {
  return { port, path, authorization: `Bearer ${admin}` };
}

/** Microseconds of CPU that the process has used, all threads. */
export function cpuMicros({ child }: Server): number {
  let nanos = 0;
  for (const thread of readdirSync(`/proc/${child.pid}/task`))
    nanos += Number(readFileSync(`/proc/${child.pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  return nanos / 1000;
}

export function residentMiB({ child }: Server): number {
  const [, kib] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8')) ?? [];
  return Math.round(Number(kib) / 1024);
}
