import { type ChildProcess, spawn } from 'node:child_process';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';

const ROOT = new URL('../..', import.meta.url).pathname;
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning'];
/** The variables of this environment that a process of the program inherits; the cache is from vitest.config.ts. */
const KEPT = ['PATH', 'NODE_COMPILE_CACHE'];

/** A real `apikeyd serve` process. */
export interface ServerProcess {
  readonly ports: { grpc: number; http: number; metrics: number };
  readonly child: ChildProcess;
  /** Everything it has printed. */
  output(): string;
  /** Sends the signal; resolves to the exit code, or null after a kill. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

export async function spawnServer(
  url: string,
  folder: string,
  settings: Record<string, string> = {},
  cwd = ROOT,
): Promise<ServerProcess> {
  const child = spawn(process.execPath, [...NODE_FLAGS, join(ROOT, 'src/main.ts'), 'serve'], {
    env: {
      ...Object.fromEntries(KEPT.map((name) => [name, process.env[name]])),
      STORE_URL: url,
      GRPC_ADDR: '127.0.0.1:0',
      HTTP_ADDR: '127.0.0.1:0',
      METRICS_ADDR: '127.0.0.1:0',
      APIKEYD_KEY_FILE: join(folder, 'admin.key'),
      ...settings,
    },
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  const serving = new Promise<void>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        if (output.includes('"msg":"serving"')) resolve();
      });
    }
  });
  const ended = await Promise.race([serving.then(() => false), exited.then(() => true)]);
  if (ended) throw new Error(`the server ended: ${output}`);
  const port = (name: string) =>
    Number(new RegExp(`"address":"127.0.0.1:(\\d+)","msg":"${name} listening"`).exec(output)?.[1]);
  return {
    child,
    ports: { grpc: port('GRPC_ADDR'), http: port('HTTP_ADDR'), metrics: port('METRICS_ADDR') },
    output: () => output,
    end: (signal) => {
      child.kill(signal);
      return exited;
    },
  };
}

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string;
  readonly env?: Record<string, string | undefined>;
  readonly cwd?: string;
  /** Asked again and again; true kills it. */
  readonly killWhen?: (output: string) => boolean | Promise<boolean>;
}

/** Runs a command to its end, with `input` on its standard input. */
export function run(command: string, args: string[], options: RunOptions = {}): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...options.env },
      cwd: options.cwd ?? ROOT,
      stdio: 'pipe',
    });
    let stdout = '';
    let stderr = '';
    // Whole characters, wherever a part ends.
    child.stdout.setEncoding('utf8').on('data', (part: string) => (stdout += part));
    child.stderr.setEncoding('utf8').on('data', (part: string) => (stderr += part));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
    // A question that fails is the failure of the run, and leaves no process behind.
    if (options.killWhen !== undefined)
      killWhen(child, () => options.killWhen?.(stdout) ?? true).catch((error: unknown) => {
        child.kill('SIGKILL');
        reject(error);
      });
    // A command that does not read its input may end before it is written.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

async function killWhen(child: ChildProcess, holds: () => boolean | Promise<boolean>): Promise<void> {
  while (child.exitCode === null && child.signalCode === null) {
    if (await holds()) child.kill('SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Runs `apikeyd` with these arguments and nothing of this process's environment but KEPT. */
export function apikeyd(args: string[], options: RunOptions = {}): Promise<Finished> {
  const main = join(ROOT, 'src/main.ts');
  const cleared = Object.fromEntries(
    Object.keys(process.env)
      .filter((name) => !KEPT.includes(name))
      .map((name) => [name, undefined]),
  );
  return run(process.execPath, [...NODE_FLAGS, main, ...args], {
    ...options,
    env: { ...cleared, ...options.env },
  });
}

/** A currently unused port, for a program that cannot choose one itself. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
