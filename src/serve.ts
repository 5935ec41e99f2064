import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { ApiKeyAdmin } from '../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth } from '../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../gen/apikey/v1/integrations_pb.ts';
import { Health as HealthService } from '../gen/grpc/health/v1/health_pb.ts';
import { AuditVerifier } from './audit/verify.ts';
import { bootstrap, localOrigin } from './bootstrap.ts';
import { type Config, ConfigError, parseAddress, parseQuietHours, type SettingName } from './config.ts';
import type { ServerStream } from './http2/stream.ts';
import { Gitea } from './integrations/gitea.ts';
import { N8n } from './integrations/n8n.ts';
import { Remote } from './integrations/remote.ts';
import { ImportKeys } from './keys/import-keys.ts';
import { ManageKeys } from './keys/manage-keys.ts';
import { ManageRemoteKeys } from './keys/manage-remote-keys.ts';
import type { Clock } from './keys/ports.ts';
import { secretTest } from './keys/secret.ts';
import { ValidateKey } from './keys/validate-key.ts';
import { adminService } from './rpc/admin-service.ts';
import { authService } from './rpc/auth-service.ts';
import { Authenticator } from './rpc/authenticate.ts';
import { CallServer } from './rpc/call-server.ts';
import { ConnectMount, type Exchange } from './rpc/connect-mount.ts';
import { GrpcMount } from './rpc/grpc-mount.ts';
import { Health } from './rpc/health.ts';
import { HttpServer, type TlsFiles } from './rpc/http-server.ts';
import { integrationsService } from './rpc/integrations-service.ts';
import { type Mounted, mounted } from './rpc/method.ts';
import { PlainPages } from './rpc/plain-pages.ts';
import { addReflection } from './rpc/reflection.ts';
import { RequestExchange } from './rpc/request-exchange.ts';
import { StreamExchange } from './rpc/stream-exchange.ts';
import { StreamThrottle } from './rpc/stream-throttle.ts';
import { CachedKeyStore } from './store/cached-key-store.ts';
import { BufferedLastUses } from './store/last-uses.ts';
import { openStore } from './store/open-store.ts';
import { type Changes, StartError, type Store } from './store/store.ts';
import { type Logger, Metrics, watchLogger } from './telemetry.ts';
import { RedisAlerts } from './watch/redis-alerts.ts';
import { Watch } from './watch/watch.ts';

const DRAIN_MS = 9_000;
const RELEASE_MS = 4_000;

export interface Running {
  /** Bound ports; a port of 0 in the settings asks for any. */
  readonly ports: { readonly grpc: number; readonly http: number; readonly metrics: number };
  /** Answers what is under way, within 10 s, and lets everything go. */
  stop(): Promise<void>;
}

export const systemClock: Clock = { now: () => Date.now(), monotonic: () => performance.now() };

/** Opens the store that the settings name, with the logger told of background failures. */
export function openConfiguredStore(config: Config, clock: Clock, logger: Logger): Promise<Store> {
  return openStore({
    url: config.STORE_URL,
    clock,
    lockout: { maxAttempts: config.RATE_LIMIT_MAX_ATTEMPTS, windowSeconds: config.RATE_LIMIT_WINDOW_SECONDS },
    lease: { pollMs: config.REVISION_POLL_MS, leaseMs: config.REVISION_LEASE_MS, caches: caches(config) },
    chainKey: readChainKey(config),
    warn: (text, err) => logger.warn({ err }, text),
  });
}

const MIN_CHAIN_KEY_BYTES = 32;

function readChainKey(config: Config): Uint8Array | undefined {
  const key = readFileOf(config, 'AUDIT_CHAIN_KEY_FILE');
  if (key !== undefined && key.length < MIN_CHAIN_KEY_BYTES) {
    throw new ConfigError(`AUDIT_CHAIN_KEY_FILE: holds fewer than ${MIN_CHAIN_KEY_BYTES} bytes`);
  }
  return key;
}

/** Puts the whole server together and starts it. @throws ConfigError, StartError */
export async function serve(config: Config, logger: Logger, clock: Clock = systemClock): Promise<Running> {
  const tls = readTls(config);
  const store = await openConfiguredStore(config, clock, logger);
  const { keys, apply, manageKeys, callServer, lastUses, health, watch, redis, grpc, http, metrics } =
    compose({ config, logger, clock, tls }, store);
  const release = async () => {
    health.stop();
    grpc.close();
    http.close();
    metrics.close();
    // What was counted is written if the store takes it; one that is away does not hold up the end.
    const written = Promise.all([watch.stop(), lastUses.flush()]);
    await Promise.race([written, delay(RELEASE_MS, undefined, { ref: false })]);
    redis?.close();
    await store.close();
  };
  const ports = { grpc: 0, http: 0, metrics: 0 };
  try {
    await store.sharing?.start(apply);
    await bootstrap(config, keys, manageKeys, clock, logger);
    const listen = listener(config, tls, logger);
    ports.grpc = await listen('GRPC_ADDR', (host, port) => grpc.listen(host, port));
    ports.http = await listen('HTTP_ADDR', (host, port) => http.listen(host, port));
    ports.metrics = await listen('METRICS_ADDR', (host, port) => listenPlain(metrics, host, port));
  } catch (error) {
    await release();
    throw error;
  }
  await health.start();
  watch.start();
  const stop = async () => {
    health.stop();
    watch.endStreams();
    await Promise.race([
      Promise.all([callServer.idle(), grpc.drain(), http.drain()]),
      delay(DRAIN_MS, undefined, { ref: false }),
    ]);
    await release();
  };
  return { ports, stop };
}

interface Surroundings {
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly tls: TlsFiles | undefined;
}

/** Every part, made and given what it needs; nothing is started. */
function compose({ config, logger, clock, tls }: Surroundings, store: Store) {
  const warn = (text: string, err: unknown) => logger.warn({ err }, text);
  const { keys, apply } = cached(store, config, clock);
  const { quota, lockout, audit, rotations, anomalies } = store;
  const telemetry = new Metrics(logger);
  const redis = config.REDIS_URL === '' ? undefined : new RedisAlerts(config.REDIS_URL, warn);
  const disable = (keyId: string) => manageKeys.disable(keyId, localOrigin('apikeyd/anomaly', clock));
  const watch: Watch = new Watch({
    store,
    keys,
    sinks: redis === undefined ? [] : [redis],
    logger: watchLogger(logger, telemetry),
    counted: (decision) => telemetry.decided(decision),
    complete: (key) => manageKeys.completeIfOver(key, localOrigin('apikeyd/sweep', clock)),
    disable: config.ANOMALY_ACTION === 'disable' ? disable : undefined,
    clock,
    ...watchSettings(config),
  });
  const lastUses = new BufferedLastUses(keys, warn);
  const mayBeSecret = secretTest(config.ACCEPT_IMPORTED_SHAPES);
  const manageKeys = new ManageKeys({
    keys,
    clock,
    graceBounds: graceBounds(config),
    observer: watch,
    mayBeSecret,
  });
  const deciding = { keys, quota, lockout, lastUses, clock, observer: watch, mayBeSecret };
  const validateKey = new ValidateKey({ ...deciding, audit });
  const authenticator = new Authenticator(deciding);
  const throttle = new StreamThrottle();
  const callServer = new CallServer({
    authenticator,
    audit,
    clock,
    observer: telemetry,
    shed: () => throttle.refused(),
  });
  const allowAnonymous = config.ALLOW_ANONYMOUS_VALIDATE;
  const { alertFeed, keyFeed } = watch;
  const verifier = new AuditVerifier(audit, store.chain);
  const importKeys = new ImportKeys(keys, clock);
  const admin = {
    manageKeys,
    importKeys,
    keys,
    audit,
    verifier,
    lockout,
    rotations,
    anomalies,
    alertFeed,
    clock,
  };
  const services = [
    mounted(ApiKeyAuth, authService({ validateKey, manageKeys, authenticator, keyFeed, allowAnonymous })),
    mounted(ApiKeyAdmin, adminService(admin)),
    mounted(ApiKeyIntegrations, integrationsService(remoteKeys(config, store, clock))),
  ];
  const names = services.map(({ service }) => service.typeName);
  const health = new Health(
    names,
    () => store.ping(),
    (serving) => {
      telemetry.serving(serving);
      logger[serving ? 'info' : 'warn'](serving ? 'serving' : 'not serving: the store does not answer');
    },
  );
  const [grpc, http] = doors(callServer, services, health, throttle, tls);
  const metrics = createServer((_request, response) => {
    telemetry.shared(store.sharing?.skewMs ?? 0, store.sharing?.lease.holds ?? true);
    void telemetry.registry.metrics().then((text) => {
      response.writeHead(200, { 'content-type': telemetry.registry.contentType }).end(text);
    });
  });
  return { keys, apply, manageKeys, callServer, lastUses, health, watch, redis, grpc, http, metrics };
}

/** Both ports speak every protocol; two of them can be opened to different networks. */
function doors(
  callServer: CallServer,
  services: readonly Mounted[],
  health: Health,
  throttle: StreamThrottle,
  tls: TlsFiles | undefined,
): readonly [grpc: HttpServer, http: HttpServer] {
  const unary = new GrpcMount(callServer, services);
  const connect = new ConnectMount(callServer, services, (router) => {
    health.addTo(router);
    addReflection(router, [...services.map(({ service }) => service), HealthService]);
  });
  const pages = new PlainPages(health);
  const answerWeb = async (exchange: Exchange) => {
    if (!(await connect.handle(exchange))) await pages.answer(exchange);
  };
  const handlers = {
    stream: (stream: ServerStream) => {
      const call = unary.begin(stream);
      if (call !== undefined) return call;
      const exchange = new StreamExchange(stream);
      void answerWeb(exchange);
      return exchange;
    },
    request: (request: IncomingMessage, response: ServerResponse) =>
      answerWeb(new RequestExchange(request, response)),
  };
  return [new HttpServer(handlers, throttle, tls), new HttpServer(handlers, throttle, tls)];
}

/** The other systems, each where its setting says; without one, nothing that could send a packet is there. */
function remoteKeys({ GITEA_URL, N8N_URL }: Config, { giteaTokens, n8nApiKeys }: Store, clock: Clock) {
  const gitea = GITEA_URL === '' ? undefined : new Gitea(new Remote('Gitea', GITEA_URL));
  const n8n = N8N_URL === '' ? undefined : new N8n(new Remote('n8n', N8N_URL));
  return {
    giteaTokens: new ManageRemoteKeys({ system: gitea, setting: 'GITEA_URL', log: giteaTokens, clock }),
    n8nApiKeys: new ManageRemoteKeys({ system: n8n, setting: 'N8N_URL', log: n8nApiKeys, clock }),
    clock,
  };
}

/** What the settings bound a rotation's grace to. */
export function graceBounds(config: Config) {
  return {
    minMs: config.ROTATION_MIN_GRACE_SECONDS * 1000,
    maxMs: config.ROTATION_MAX_GRACE_SECONDS * 1000,
  };
}

function watchSettings(config: Config) {
  const orNever = (threshold: number) => (threshold === 0 ? Number.POSITIVE_INFINITY : threshold);
  return {
    thresholds: {
      maxRequestsPerMinute: orNever(config.ANOMALY_MAX_REQUESTS_PER_MINUTE),
      maxErrorRatio: orNever(config.ANOMALY_MAX_ERROR_RATIO),
      minSamples: config.ANOMALY_MIN_SAMPLES,
      maxIpsPerHour: orNever(config.ANOMALY_MAX_IPS_PER_HOUR),
      quietHours: parseQuietHours(config.ANOMALY_QUIET_HOURS),
    },
    autoCleanup: config.ROTATION_AUTO_CLEANUP,
    sweepIntervalMs: config.SWEEP_INTERVAL_SECONDS * 1000,
    retentionDays: config.AUDIT_RETENTION_DAYS,
  };
}

function caches(config: Config): boolean {
  return config.CACHE_TTL_SECONDS > 0 && config.CACHE_MAX_CAPACITY > 0;
}

/** The store's keys, with their records kept in memory where that is wanted; `apply` is told what others changed. */
function cached(store: Store, config: Config, clock: Clock) {
  if (!caches(config)) return { keys: store.keys, apply: () => {} };
  const ttlMs = config.CACHE_TTL_SECONDS * 1000;
  const maxRecords = config.CACHE_MAX_CAPACITY;
  const keys = new CachedKeyStore(store.keys, { ttlMs, maxRecords }, clock, store.sharing?.lease);
  return { keys, apply: (changes: Changes) => keys.apply(changes) };
}

type Bind = (host: string, port: number) => Promise<number>;

/** Binds the address of a setting and says so; a failure names the setting. */
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

function readTls(config: Config): TlsFiles | undefined {
  const cert = readFileOf(config, 'TLS_CERT_FILE');
  const key = readFileOf(config, 'TLS_KEY_FILE');
  const clientCa = readFileOf(config, 'TLS_CLIENT_CA_FILE');
  if (cert === undefined && key === undefined && clientCa === undefined) return undefined;
  if (cert === undefined)
    throw new ConfigError('TLS_CERT_FILE: needed with TLS_KEY_FILE and TLS_CLIENT_CA_FILE');
  if (key === undefined) throw new ConfigError('TLS_KEY_FILE: needed with TLS_CERT_FILE');
  return { cert, key, clientCa };
}

/** The bytes of the file that a setting names; undefined when it names none. */
function readFileOf(config: Config, name: SettingName & `${string}_FILE`): Buffer | undefined {
  if (config[name] === '') return undefined;
  try {
    return readFileSync(config[name]);
  } catch (error) {
    throw new ConfigError(`${name}: cannot be read: ${(error as Error).message}`);
  }
}
