import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { freePort } from '../support/process.ts';
import { tool } from '../support/tools.ts';

const PAGE = readFileSync(new URL('../../docs/gateways.md', import.meta.url), 'utf8');

/** The configuration on the page with this file name. */
export function printed(name: string): string {
  const [, text] = new RegExp(`<!-- file ${name} -->\\n\`\`\`\\w+\\n([\\s\\S]*?)\`\`\``).exec(PAGE) ?? [];
  if (text === undefined) throw new Error(`docs/gateways.md has no ${name}`);
  return text;
}

export const PROXIES = ['envoy', 'nginx', 'traefik', 'caddy'] as const;
export type ProxyName = (typeof PROXIES)[number];

/** A service that returns the request that it got. */
export class Upstream {
  readonly #server: Server;
  readonly seen: { readonly url: string; readonly headers: IncomingHttpHeaders }[] = [];

  constructor() {
    this.#server = createServer(({ url = '', headers }, response) => {
      this.seen.push({ url, headers });
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ url, headers }));
    });
  }

  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.#server.listen(0, '127.0.0.1', () => resolve((this.#server.address() as AddressInfo).port));
    });
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

interface Surroundings {
  readonly folder: string;
  readonly grpc: number;
  readonly http: number;
  readonly upstream: number;
  /** The proxy's own key. */
  readonly key: string;
}

export interface RunningProxy {
  readonly pid: number | undefined;
  readonly port: number;
  /** Everything that it has logged. */
  log(): string;
  stop(): Promise<void>;
}

/** The proxy with the configuration of docs/gateways.md; only ports and places are others. */
export async function startProxy(name: ProxyName, around: Surroundings): Promise<RunningProxy> {
  const port = await freePort();
  const folder = join(around.folder, name);
  mkdirSync(folder, { recursive: true });
  const accessLog = join(folder, 'access.log');
  const moved: readonly (readonly [string, string])[] = [
    ['127.0.0.1:8080', `127.0.0.1:${around.http}`],
    ['127.0.0.1:9000', `127.0.0.1:${around.upstream}`],
    ['port_value: 50051', `port_value: ${around.grpc}`],
    ['port_value: 9000', `port_value: ${around.upstream}`],
    ['10000', String(port)],
    ['/etc/nginx', folder],
    ['/etc/traefik', folder],
    ['/etc/caddy', folder],
    ['/var/log/nginx/access.log', accessLog],
  ];
  const write = (file: string, change = (text: string) => text) => {
    const text = moved.reduce((text, [from, to]) => text.replaceAll(from, to), printed(file));
    writeFileSync(join(folder, file), change(text));
    return join(folder, file);
  };
  const command = commandOf(name, folder, write, around.key);
  const child = spawn(tool(name), command, {
    env: { PATH: process.env.PATH, HOME: folder, APIKEYD_KEY: around.key },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  await listening(child, port, () => output);
  return {
    pid: child.pid,
    port,
    log: () => output + (name === 'nginx' ? readFileSync(accessLog, 'utf8') : ''),
    stop: () => ended(child),
  };
}

function commandOf(
  name: ProxyName,
  folder: string,
  write: (file: string, change?: (text: string) => string) => string,
  key: string,
): string[] {
  switch (name) {
    case 'envoy':
      return ['-c', write('envoy.yaml'), '--concurrency', '1', '--use-dynamic-base-id', '-l', 'warn'];
    case 'nginx': {
      write('apikeyd.conf', (text) => text.replace('KEY', key));
      const own = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (kind) => `${kind}_temp_path ${folder};`,
      );
      const file = write('nginx.conf', (text) => text.replace('http {', `http { ${own.join(' ')}`));
      const here = `daemon off; master_process off; pid ${folder}/pid;`;
      return ['-p', folder, '-e', 'stderr', '-c', file, '-g', here];
    }
    case 'traefik': {
      write('dynamic.yaml');
      const quiet = 'global: { checkNewVersion: false, sendAnonymousUsage: false }\n';
      return [`--configFile=${write('traefik.yaml', (text) => quiet + text)}`];
    }
    case 'caddy': {
      writeFileSync(join(folder, 'apikeyd.key'), key);
      const file = write('Caddyfile', (text) => `{\n\tadmin off\n\tauto_https off\n}\n${text}`);
      return ['run', '--config', file, '--adapter', 'caddyfile'];
    }
  }
}

function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill('SIGTERM');
  });
}

/** Resolves when the unguarded route is served: a proxy may listen before it knows its routes. */
async function listening(child: ChildProcess, port: number, output: () => string): Promise<void> {
  while (child.exitCode === null) {
    const status = await fetch(`http://127.0.0.1:${port}/health`).then(
      (response) => response.status,
      () => 0,
    );
    if (status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`the proxy ended: ${output()}`);
}

/** Sends a request that no client would send; returns the status of the response. */
export function rawStatus(port: number, head: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(head));
    socket.on('data', (part: Buffer) => {
      answer += part.toString('latin1');
      const [, status] = /^HTTP\/1\.1 (\d{3})/.exec(answer) ?? [];
      if (status === undefined) return;
      resolve(Number(status));
      socket.destroy();
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(0));
  });
}
