/** What the benchmarks measure, and with what: a server on core 0, h2load on core 1. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { KeyType } from '../../gen/apikey/v1/key_pb.ts';
import { frame } from '../support/raw.ts';
import { clientsOf } from '../support/server.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const VALIDATE = '/apikey.v1.ApiKeyAuth/ValidateKey';

export interface Subject {
  readonly name: string;
  readonly url: string;
  readonly args: readonly string[];
  readonly child: ChildProcess;
  readonly figures: number[];
  /** Of the metrics; 0 where there are none. */
  readonly metricsPort: number;
}

/** Starts a process on core 0 and waits for a line of its output. */
function pinned(
  script: string,
  args: string[],
  env: Record<string, string>,
  ready: RegExp,
): Promise<{ child: ChildProcess; output: string }> {
  const node = [
    '-c',
    '0',
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    ...(process.env.BENCH_NODE ?? '').split(' ').filter(Boolean),
    join(ROOT, script),
    ...args,
  ];
  const child = spawn('taskset', node, {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return new Promise((resolve, reject) => {
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

/** @param kind `empty` is on grpc-js, `bare` on node:http2. */
export async function emptyHandler(folder: string, kind: 'empty' | 'bare' = 'empty'): Promise<Subject> {
  const { child, output } = await pinned(`test/bench/${kind}-handler.ts`, [], {}, /^\d+\n/);
  const url = `http://127.0.0.1:${output.trim()}${VALIDATE}`;
  return {
    name: 'empty grpc-js handler',
    url,
    args: ['-d', join(folder, 'request')],
    child,
    figures: [],
    metricsPort: 0,
  };
}

/** apikeyd with a cached record, one limit and the durable audit. */
export async function apikeyd(
  name: string,
  storeUrl: string,
  folder: string,
  requestName: string,
  settings: Record<string, string> = {},
): Promise<Subject> {
  const keyFile = join(folder, `${requestName}.key`);
  const any = '127.0.0.1:0';
  const env = {
    STORE_URL: storeUrl,
    GRPC_ADDR: any,
    HTTP_ADDR: any,
    METRICS_ADDR: any,
    APIKEYD_KEY_FILE: keyFile,
    ...settings,
  };
  const { child, output } = await pinned('src/main.ts', ['serve'], env, /"msg":"serving"/);
  const port = Number(/:(\d+)","msg":"GRPC_ADDR/.exec(output)?.[1]);
  const admin = readFileSync(keyFile, 'utf8').trim();
  const clients = clientsOf({ grpc: port, http: 0 }, 'grpc', admin);
  const { secret } = await clients.admin.createKey({
    name: 'bench',
    ownerId: 'bench',
    keyType: KeyType.SERVICE,
    scopes: ['traces:read'],
    rateLimits: [{ name: 'm', limit: 1_000_000_000n, window: { seconds: 86_400n } }],
  });
  const request = create(ValidateKeyRequestSchema, {
    key: secret,
    requiredScope: 'traces:read',
    clientIp: '10.1.2.3',
  });
  const file = join(folder, requestName);
  writeFileSync(file, frame(toBinary(ValidateKeyRequestSchema, request)));
  // h2load takes headers as arguments only; this key lives as long as this run.
  return {
    name,
    url: `http://127.0.0.1:${port}${VALIDATE}`,
    args: ['-d', file, '-H', `authorization: Bearer ${admin}`],
    child,
    figures: [],
    metricsPort: Number(/:(\d+)","msg":"METRICS_ADDR/.exec(output)?.[1]),
  };
}

/** Calls a second; throws when not every call succeeded. */
export function load({ url, args }: Subject, calls: number): number {
  const headers = ['-H', 'content-type: application/grpc', '-H', 'te: trailers'];
  const h2load = ['-c', '1', 'h2load', '-n', String(calls), '-c', '10', '-m', '32', ...headers, ...args, url];
  const { stdout } = spawnSync('taskset', h2load, { encoding: 'utf8' });
  if (!stdout.includes(`${calls} succeeded`)) throw new Error(stdout);
  return Number(/([\d.]+) req\/s/.exec(stdout)?.[1]);
}
