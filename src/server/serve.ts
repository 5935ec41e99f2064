import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import packageJson from '../../package.json' with { type: 'json' };
import { type Config, parseAddress, type SettingName } from '../config.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { StartError } from '../store/store.ts';
import { ConsolePages } from '../transport/console-pages.ts';
import type { TlsFiles } from '../transport/listener.ts';
import { bootstrap } from './bootstrap.ts';
import { compose } from './compose.ts';
import { openConfiguredStore } from './configured-store.ts';
import { Metrics } from './metrics.ts';
import { shownStore } from './neighbour.ts';
import { checkAnchor } from './proof.ts';
import { reconcile } from './reconcile.ts';
import { openRevocations } from './revocations.ts';
import { checkTls, readTls } from './setting-files.ts';
import type { AddressName, Logger } from './telemetry.ts';

const DRAIN_MS = 9_000;
const RELEASE_MS = 4_000;

export interface Running {
  /** Bound ports; a port of 0 in the settings requests any free one. */
  readonly ports: { readonly grpc: number; readonly http: number; readonly metrics: number };
  /** The bound ports with their hosts. */
  readonly addresses: Readonly<Record<AddressName, string>>;
  /** Reads the TLS files again, for new connections. */
  readCertificates(): Promise<void>;
  /** Completes calls in flight, for at most 10 s, then closes everything. */
  stop(): Promise<void>;
}

export const systemClock: Clock = { now: () => Date.now(), monotonic: () => performance.now() };

/** Callbacks of the process around the server. */
export interface Host {
  /** The number of log lines that could not be written. */
  readonly droppedLines?: () => number;
  /** Called when this process can never decide again and must be replaced. */
  readonly broken?: (error: unknown) => void;
}

/** Builds and starts the whole server. @throws ConfigError, StartError */
export async function serve(
  config: Config,
  given: Logger,
  clock: Clock = systemClock,
  { droppedLines = () => 0, broken = () => {} }: Host = {},
): Promise<Running> {
  const tls = await readTls(config);
  if (tls !== undefined) checkTls(tls);
  let breaks = (error: unknown) => broken(error);
  const watched = await openWatched(config, given, clock, { droppedLines, broken: (error) => breaks(error) });
  const { store, telemetry, tracing, logger } = watched;
  const revocations = await openRevocations(config, store, clock, logger, telemetry);
  const console = await readConsole(config, logger);
  const parts = compose({ config, clock, tls, console, revocations, ...watched }, store);
  const { keys, apply, manageKeys, callPipeline, lastUses, health, watch, anchor, redis } = parts;
  const { grpc, http, metrics, certificates, backups, syncKeys } = parts;
  breaks = (error) => {
    health.break();
    broken(error);
  };
  const release = async () => {
    for (const part of [certificates, syncKeys, telemetry, health]) part?.stop();
    grpc.close();
    http.close();
    metrics.close();
    // Pending counts are written if the store accepts them; an unavailable store does not delay the shutdown.
    const written = Promise.all([watch.stop(), lastUses.flush(), backups.stop()]);
    const last = written.then(() => anchor?.stop());
    await Promise.race([last, delay(RELEASE_MS, undefined, { ref: false })]);
    redis?.close();
    const rest = Promise.all([revocations?.stop(), tracing?.stop()]);
    await Promise.race([rest, delay(RELEASE_MS, undefined, { ref: false })]);
    await store.close();
  };
  const ports = { grpc: 0, http: 0, metrics: 0 };
  try {
    await checkAnchor(anchor, config);
    await reconcile(store, revocations?.log, clock, logger);
    await store.sharing?.start(apply);
    await bootstrap(config, keys, manageKeys, clock, logger);
    const listen = listener(config, tls, logger);
    ports.grpc = await listen('GRPC_ADDR', (host, port) => grpc.listen(host, port));
    ports.http = await listen('HTTP_ADDR', (host, port) => http.listen(host, port));
    if (config.CONSOLE) logger.info({ url: consoleUrl(config, ports.http, tls) }, 'console');
    ports.metrics = await listen('METRICS_ADDR', (host, port) => listenPlain(metrics, host, port));
  } catch (error) {
    await release();
    throw error;
  }
  const addresses = addressesOf(config, ports);
  telemetry.listening(packageJson.version, shownStore(config.STORE_URL), addresses);
  await health.start();
  watch.start();
  syncKeys.start();
  anchor?.start();
  revocations?.start();
  certificates?.start();
  const stop = async () => {
    health.stop();
    syncKeys.stop();
    watch.endStreams();
    await Promise.race([
      Promise.all([callPipeline.idle(), grpc.drain(), http.drain()]),
      delay(DRAIN_MS, undefined, { ref: false }),
    ]);
    await release();
  };
  const readCertificates = async () => certificates?.lookAgain();
  return { ports, addresses, readCertificates, stop };
}

/** The store and its observers: metrics, and traces if enabled. */
async function openWatched(
  config: Config,
  given: Logger,
  clock: Clock,
  { droppedLines, broken }: Required<Host>,
) {
  const traces = config.OTEL_EXPORTER_OTLP_ENDPOINT === '' ? undefined : await import('./tracing.ts');
  const tracing = traces?.openTracing(config, packageJson.version, clock, given);
  const logger = tracing?.logger(given) ?? given;
  const telemetry = new Metrics(logger, droppedLines);
  const observer = tracing?.ofStore(telemetry) ?? telemetry;
  const opened = await openConfiguredStore(config, clock, logger, broken, observer);
  const store = tracing === undefined ? opened : { ...opened, audit: tracing.ofAudit(opened.audit) };
  return { store, telemetry, tracing, logger };
}

/** The configured addresses with the ports that were bound. */
function addressesOf(config: Config, { grpc, http, metrics }: Running['ports']): Running['addresses'] {
  const withPort = (name: AddressName, port: number) => {
    const { host } = parseAddress(name, config[name]);
    return `${host.includes(':') ? `[${host}]` : host}:${port}`;
  };
  return {
    GRPC_ADDR: withPort('GRPC_ADDR', grpc),
    HTTP_ADDR: withPort('HTTP_ADDR', http),
    METRICS_ADDR: withPort('METRICS_ADDR', metrics),
  };
}

type Bind = (host: string, port: number) => Promise<number>;

/** Binds the address of a setting and logs it; an error names the setting. */
function listener(config: Config, tls: TlsFiles | undefined, logger: Logger) {
  return async (name: SettingName & `${string}_ADDR`, bind: Bind): Promise<number> => {
    const { host, port } = parseAddress(name, config[name]);
    const loopback = host === 'localhost' || host === '::1' || host.startsWith('127.');
    if (!loopback && tls === undefined && name !== 'METRICS_ADDR') {
      logger.warn(
        { [name]: config[name] },
        'listening beyond this machine without TLS: keys travel readable',
      );
    }
    try {
      const bound = await bind(host, port);
      logger.info({ address: `${host}:${bound}` }, `${name} listening`);
      return bound;
    } catch (error) {
      const reason = (error as Error).message;
      throw new StartError(69, `${name}: cannot listen on ${config[name]}: ${reason}`, error);
    }
  };
}

function listenPlain(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve((server.address() as AddressInfo).port));
  });
}

/** build/console is a sibling of `src` in a clone, and of `dist` in a package. */
function readConsole({ CONSOLE }: Config, logger: Logger): Promise<ConsolePages | undefined> {
  if (!CONSOLE) return Promise.resolve(undefined);
  const compiled = import.meta.dirname.endsWith(join('dist', 'src', 'server'));
  const root = join(import.meta.dirname, compiled ? '../../..' : '../..');
  return ConsolePages.read(join(root, 'build', 'console')).then((pages) => {
    if (pages === undefined) logger.warn('the console is not built: npm run build:console');
    return pages;
  });
}

function consoleUrl(config: Config, port: number, tls: TlsFiles | undefined): string {
  const { host } = parseAddress('HTTP_ADDR', config.HTTP_ADDR);
  const name = host === '0.0.0.0' || host === '::' ? 'localhost' : host.includes(':') ? `[${host}]` : host;
  return `${tls === undefined ? 'http' : 'https'}://${name}:${port}/console/`;
}
