import type { IncomingMessage, ServerResponse } from 'node:http';
import { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../../gen/apikey/v1/integrations_pb.ts';
import { Health as HealthService } from '../../gen/grpc/health/v1/health_pb.ts';
import type { AuditVerifier } from '../audit/verify.ts';
import { type Config, parseQuietHours } from '../config.ts';
import type { Door } from '../gateways/door.ts';
import { Gitea } from '../integrations/gitea.ts';
import { N8n } from '../integrations/n8n.ts';
import { Remote } from '../integrations/remote.ts';
import { ImportKeys } from '../keys/import-keys.ts';
import { ManageKeys } from '../keys/manage-keys.ts';
import { ManageRemoteKeys } from '../keys/manage-remote-keys.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { KeyStore } from '../keys/ports/key-store.ts';
import type { Revocations } from '../keys/ports/revocations.ts';
import { secretTest } from '../keys/secret.ts';
import { SeenClock } from '../keys/seen-clock.ts';
import { ValidateKey } from '../keys/validate-key.ts';
import type { SyncKeys } from '../leases/sync-keys.ts';
import { adminService } from '../rpc/admin-service.ts';
import { authService } from '../rpc/auth-service.ts';
import { Authenticator } from '../rpc/authenticate.ts';
import { type CallObserver, CallPipeline } from '../rpc/call-pipeline.ts';
import { integrationsService } from '../rpc/integrations-service.ts';
import { type BoundService, bindService } from '../rpc/method.ts';
import { CachedKeyStore } from '../store/cached-key-store.ts';
import { BufferedLastUses } from '../store/last-uses.ts';
import type { Changes, Store } from '../store/store.ts';
import { ConnectMount } from '../transport/connect-mount.ts';
import type { ConsolePages } from '../transport/console-pages.ts';
import { type Exchange, RequestExchange, StreamExchange } from '../transport/exchange.ts';
import { GatewayMount } from '../transport/gateway-mount.ts';
import { GrpcMount, type Incoming } from '../transport/grpc-mount.ts';
import { Health } from '../transport/health.ts';
import { Http2Connection } from '../transport/http2/connection.ts';
import type { ServerStream } from '../transport/http2/transport.ts';
import { HttpServer, type TlsFiles } from '../transport/listener.ts';
import { NodeHttp2Connection } from '../transport/node-http2.ts';
import { PlainPages } from '../transport/plain-pages.ts';
import { addReflection } from '../transport/reflection.ts';
import { StreamThrottle } from '../transport/stream-throttle.ts';
import { UnfinishedMessages } from '../transport/unfinished.ts';
import { Unpacking } from '../transport/unpacking.ts';
import { RedisAlerts } from '../watch/redis-alerts.ts';
import { UsageReport } from '../watch/usage-report.ts';
import { Watch } from '../watch/watch.ts';
import { BackupFolder } from './backup-folder.ts';
import { localOrigin } from './bootstrap.ts';
import { Certificates } from './certificates.ts';
import { composeGateways } from './compose-gateways.ts';
import { composeLeases } from './compose-leases.ts';
import { caches } from './configured-store.ts';
import type { Sources } from './counts.ts';
import type { Metrics } from './metrics.ts';
import { metricsServer } from './metrics-server.ts';
import { composeProof } from './proof.ts';
import { readTls } from './setting-files.ts';
import { storeSpace } from './store-space.ts';
import { type Logger, loggingCalls, watchLogger } from './telemetry.ts';
import type { Tracing } from './tracing.ts';

interface Surroundings {
  readonly config: Config;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly tls: TlsFiles | undefined;
  /** Pages served on HTTP_ADDR. */
  readonly console: ConsolePages | undefined;
  readonly telemetry: Metrics;
  readonly tracing: Tracing | undefined;
  readonly revocations: Revocations | undefined;
}

/** Creates and connects all parts of the server; starts none. */
export function compose(around: Surroundings, store: Store) {
  const { config, logger, clock, telemetry, tracing, revocations } = around;
  const warn = (text: string, err: unknown) => logger.warn({ err }, text);
  const { keys, apply, counts } = cached(store, config, clock);
  const judging = new SeenClock(clock, store.seenTime);
  const { quota, lockout, audit } = store;
  const redis = config.REDIS_URL === '' ? undefined : new RedisAlerts(config.REDIS_URL, warn);
  const disable = (keyId: string) => manageKeys.disable(keyId, localOrigin('apikeyd/anomaly', clock));
  const watch: Watch = new Watch({
    store,
    keys,
    sinks: redis === undefined ? [] : [redis],
    logger: watchLogger(logger, (type) => telemetry.alerted(type)),
    counted: (decision) => telemetry.decided(decision),
    complete: (key) => manageKeys.completeIfOver(key, localOrigin('apikeyd/sweep', clock)),
    disable: config.ANOMALY_ACTION === 'disable' ? disable : undefined,
    clock,
    ...watchSettings(config),
  });
  const lastUses = new BufferedLastUses(keys, warn);
  const { syncKeys, guards } = composeLeases(config, store, { keys, lastUses, clock: judging, warn });
  const mayBeSecret = secretTest(config.ACCEPT_IMPORTED_SHAPES);
  const manageKeys = new ManageKeys({
    keys,
    clock: judging,
    graceBounds: graceBounds(config),
    observer: watch,
    mayBeSecret,
    revocations,
    guards,
  });
  const observer = tracing?.ofDecisions(watch) ?? watch;
  const deciding = { keys, quota, lockout, lastUses, clock: judging, observer, mayBeSecret };
  const validateKey = new ValidateKey({ ...deciding, audit });
  const authenticator = new Authenticator(deciding);
  const throttle = new StreamThrottle();
  const callPipeline = new CallPipeline({
    authenticator,
    audit,
    clock,
    observer: callObserver(around),
    shed: () => throttle.refused(),
    traced: tracing?.traced,
  });
  const gateways = composeGateways(config, logger, validateKey, callPipeline);
  const { anchor, verifier } = composeProof(config, store, clock, logger, telemetry);
  const backups = new BackupFolder({ folder: config.BACKUP_DIR, copyTo: store.copyTo, clock });
  const useCases = { validateKey, manageKeys, authenticator, syncKeys, keys, watch, verifier, backups };
  const services = [...bindServices({ config, store, clock }, useCases), gateways.service];
  const health = composeHealth(services, store, telemetry, logger);
  const incoming = { unfinished: new UnfinishedMessages(), unpacking: new Unpacking() };
  const ports = { health, throttle, incoming };
  const [grpc, http] = createListeners(callPipeline, services, gateways.doors, ports, around);
  const certificates = composeCertificates(around, [grpc, http]);
  tellOf(around, store, { callPipeline, incoming, grpc, http, counts, certificates });
  const serving = { health, watch, anchor, backups, redis, certificates, grpc, http };
  const metrics = metricsServer(telemetry, health);
  return { ...serving, keys, apply, manageKeys, callPipeline, syncKeys, lastUses, metrics };
}

interface Counting {
  readonly callPipeline: CallPipeline;
  readonly incoming: Incoming;
  readonly grpc: HttpServer;
  readonly http: HttpServer;
  readonly counts: Sources['cache'];
  readonly certificates: Certificates | undefined;
}

/** Gives the metrics access to the numbers that the parts count. */
function tellOf(
  { config, telemetry }: Surroundings,
  { auditBacklog, sharing }: Store,
  { callPipeline, incoming, grpc, http, counts, certificates }: Counting,
): void {
  telemetry.readFrom({
    auditBacklog,
    callsUnderWay: () => callPipeline.underWay,
    unfinished: incoming.unfinished,
    connections: () => ({ GRPC_ADDR: grpc.connections, HTTP_ADDR: http.connections }),
    cache: counts,
    sharing,
    certificateSeconds: certificates && (() => certificates.secondsLeft),
    space: () => storeSpace(config.STORE_URL),
  });
}

/** The observers of calls: the metrics, traces if enabled, and the access log if enabled. */
function callObserver({ config, logger, telemetry, tracing }: Surroundings): CallObserver {
  const observer = config.ACCESS_LOG ? loggingCalls(telemetry, logger) : telemetry;
  return tracing?.ofCalls(observer) ?? observer;
}

function composeHealth(
  services: readonly BoundService[],
  store: Store,
  telemetry: Metrics,
  logger: Logger,
): Health {
  return new Health(
    services.map(({ service }) => service.typeName),
    () => store.ping(),
    (serving) => {
      telemetry.serving(serving);
      logger[serving ? 'info' : 'warn'](serving ? 'serving' : 'not serving: the store does not answer');
    },
  );
}

interface UseCases {
  readonly validateKey: ValidateKey;
  readonly manageKeys: ManageKeys;
  readonly authenticator: Authenticator;
  readonly syncKeys: SyncKeys;
  readonly keys: KeyStore;
  readonly watch: Watch;
  readonly verifier: AuditVerifier;
  readonly backups: BackupFolder;
}

/** The services of this program's own protos. */
function bindServices(
  { config, store, clock }: { config: Config; store: Store; clock: Clock },
  { validateKey, manageKeys, authenticator, syncKeys, keys, watch, verifier, backups }: UseCases,
): BoundService[] {
  const { audit, quota, lockout, rotations, anomalies } = store;
  const { alertFeed, keyFeed } = watch;
  const auth = {
    validateKey,
    manageKeys,
    authenticator,
    keyFeed,
    syncKeys,
    lendsLeases: config.GUARD_LEASES,
    epoch: () => store.recovery.epoch,
    allowAnonymous: config.ALLOW_ANONYMOUS_VALIDATE,
  };
  const admin = {
    manageKeys,
    importKeys: new ImportKeys(keys, clock),
    keys,
    audit,
    verifier,
    lockout,
    quota,
    rotations,
    anomalies,
    usageReport: new UsageReport(store.usage, audit, clock),
    alertFeed,
    backups,
    clock,
  };
  return [
    bindService(ApiKeyAuth, authService(auth)),
    bindService(ApiKeyAdmin, adminService(admin)),
    bindService(ApiKeyIntegrations, integrationsService(remoteKeys(config, store, clock))),
  ];
}

function composeCertificates(
  { config, logger, clock, tls }: Surroundings,
  servers: readonly HttpServer[],
): Certificates | undefined {
  if (tls === undefined) return undefined;
  const use = (files: TlsFiles) => {
    for (const server of servers) server.useTls(files);
  };
  return new Certificates({ tls, read: () => readTls(config), use, clock, logger });
}

interface Listening {
  readonly health: Health;
  readonly throttle: StreamThrottle;
  readonly incoming: Incoming;
}

/** Both ports serve every protocol, so that each can be opened to a different network. */
function createListeners(
  callPipeline: CallPipeline,
  services: readonly BoundService[],
  doors: readonly Door[],
  { health, throttle, incoming }: Listening,
  { config, clock, tls, console, telemetry }: Surroundings,
): readonly [grpc: HttpServer, http: HttpServer] {
  const failed = (error: unknown) => telemetry.failed('transport', error);
  const unary = new GrpcMount(callPipeline, services, incoming);
  const connect = new ConnectMount(callPipeline, services, incoming, (router) => {
    health.addTo(router);
    addReflection(router, [...services.map(({ service }) => service), HealthService]);
  });
  const gateways = new GatewayMount(doors);
  const pages = new PlainPages(health, clock);
  const handlersOf = (console: ConsolePages | undefined) => {
    const respondWeb = async (exchange: Exchange) => {
      try {
        if ((await connect.handle(exchange)) || (await gateways.handle(exchange))) return;
        if (!(await console?.handle(exchange))) await pages.handle(exchange);
      } catch (error) {
        failed(error);
        exchange.abort();
      }
    };
    return {
      stream: (stream: ServerStream) => {
        const call = unary.begin(stream);
        if (call !== undefined) return call;
        const exchange = new StreamExchange(stream, incoming.unfinished);
        void respondWeb(exchange);
        return exchange;
      },
      request: (request: IncomingMessage, response: ServerResponse) =>
        respondWeb(new RequestExchange(request, response, incoming.unfinished)),
      failed,
    };
  };
  const http2 = config.HTTP2_SERVER === 'node' ? NodeHttp2Connection : Http2Connection;
  return [
    new HttpServer(handlersOf(undefined), throttle, tls, http2),
    new HttpServer(handlersOf(console), throttle, tls, http2),
  ];
}

/** Clients of the other systems that are configured. Without a setting, no code exists that could send a packet. */
function remoteKeys({ GITEA_URL, N8N_URL }: Config, { giteaTokens, n8nApiKeys }: Store, clock: Clock) {
  const gitea = GITEA_URL === '' ? undefined : new Gitea(new Remote('Gitea', GITEA_URL));
  const n8n = N8N_URL === '' ? undefined : new N8n(new Remote('n8n', N8N_URL), clock);
  return {
    giteaTokens: new ManageRemoteKeys({ system: gitea, setting: 'GITEA_URL', log: giteaTokens, clock }),
    n8nApiKeys: new ManageRemoteKeys({ system: n8n, setting: 'N8N_URL', log: n8nApiKeys, clock }),
    clock,
  };
}

/** The bounds of a rotation's grace in the settings. */
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
    usageRetentionDays: config.USAGE_RETENTION_DAYS,
  };
}

/** The store's keys, cached in memory if enabled; `apply` passes on the changes of other processes. */
function cached(store: Store, config: Config, clock: Clock) {
  if (!caches(config)) return { keys: store.keys, apply: () => {}, counts: undefined };
  const ttlMs = config.CACHE_TTL_SECONDS * 1000;
  const maxRecords = config.CACHE_MAX_CAPACITY;
  const keys = new CachedKeyStore(store.keys, { ttlMs, maxRecords }, clock, store.sharing?.lease);
  return { keys, apply: (changes: Changes) => keys.apply(changes), counts: () => keys.counts };
}
