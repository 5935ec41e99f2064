/** THE table of all settings and their bounds. docs/reference/settings.md is generated from it. */

import { LEASE_SETTINGS } from './config-leases.ts';
import { parseTraceHeaders, TRACING_SETTINGS } from './config-tracing.ts';
import {
  ConfigError,
  checkWebAddress,
  parseKeyHeaders,
  parseQuietHours,
  type Row,
  readValue,
} from './config-values.ts';

export { parseTraceHeaders } from './config-tracing.ts';
export { ConfigError, parseAddress, parseKeyHeaders, parseQuietHours } from './config-values.ts';

export const SETTINGS = [
  {
    name: 'STORE_URL',
    kind: 'text',
    default: 'sqlite:./data/apikeyd.db',
    secret: true,
    about: 'Where keys and the audit live: `sqlite:PATH`, `mongodb://…` or `mongodb+srv://…`.',
  },
  {
    name: 'GRPC_ADDR',
    kind: 'text',
    default: '127.0.0.1:50051',
    about: 'gRPC: all services, health, reflection. The protocols of `HTTP_ADDR` are also served here.',
  },
  {
    name: 'HTTP_ADDR',
    kind: 'text',
    default: '127.0.0.1:8080',
    about: 'Connect, gRPC-Web and JSON over HTTP/1.1 and HTTP/2, `/healthz`, `/readyz`, `/openapi.json`.',
  },
  { name: 'METRICS_ADDR', kind: 'text', default: '127.0.0.1:9464', about: 'Prometheus `/metrics`.' },
  {
    name: 'HTTP2_SERVER',
    kind: 'text',
    default: 'own',
    choices: ['own', 'node'],
    about:
      '`own`: the HTTP/2 of this program, the faster; `node`: the one of Node.js (nghttp2), half as fast.',
  },
  {
    name: 'TLS_CERT_FILE',
    kind: 'text',
    default: '',
    about: 'PEM certificate chain; with TLS_KEY_FILE both listeners speak TLS.',
  },
  { name: 'TLS_KEY_FILE', kind: 'text', default: '', about: 'PEM private key.' },
  {
    name: 'TLS_CLIENT_CA_FILE',
    kind: 'text',
    default: '',
    about: 'PEM CA that clients must have a certificate of (mTLS).',
  },
  {
    name: 'ADMIN_BOOTSTRAP_KEY',
    kind: 'text',
    default: '',
    secret: true,
    about:
      'A well-formed secret for the first admin key of an empty store; without it one is generated into APIKEYD_KEY_FILE.',
  },
  {
    name: 'ALLOW_ANONYMOUS_VALIDATE',
    kind: 'boolean',
    default: 'false',
    about: 'Allows ValidateKey, without client_ip and dry_run, to callers without a key.',
  },
  {
    name: 'ACCEPT_IMPORTED_SHAPES',
    kind: 'boolean',
    default: 'false',
    about:
      'Looks up secrets in any format up to 1 024 characters, so that imported keys of other systems work; unknown ones stay MALFORMED.',
  },
  {
    name: 'CONSOLE',
    kind: 'boolean',
    default: 'true',
    about: 'Serves the admin console at /console/ on HTTP_ADDR.',
  },
  {
    name: 'GATEWAY_KEY_HEADERS',
    kind: 'text',
    default: 'authorization,x-api-key',
    about:
      "Gateways: headers that may hold the end client's key; the first one present counts. `authorization` counts only as Bearer.",
  },
  {
    name: 'GATEWAY_REASONS',
    kind: 'boolean',
    default: 'false',
    about: 'Gateways: the response to the end client names the decision.',
  },
  {
    name: 'CACHE_TTL_SECONDS',
    kind: 'integer',
    unit: 's',
    default: '300',
    min: 0,
    max: 86_400,
    about: 'How long a key record may be used from memory; 0 switches the cache off.',
  },
  {
    name: 'CACHE_MAX_CAPACITY',
    kind: 'integer',
    unit: 'records',
    default: '10000',
    min: 0,
    max: 10_000_000,
    about: 'Key records kept in memory; 0 switches the cache off.',
  },
  ...LEASE_SETTINGS,
  {
    name: 'RATE_LIMIT_MAX_ATTEMPTS',
    kind: 'integer',
    unit: 'failures',
    default: '5',
    min: 1,
    max: 1_000_000,
    about: 'Failures of one client address within the window that lock it out.',
  },
  {
    name: 'RATE_LIMIT_WINDOW_SECONDS',
    kind: 'integer',
    unit: 's',
    default: '900',
    min: 1,
    max: 86_400,
    about: 'Length of that window, counted from its first failure, and of the lock, from the last.',
  },
  {
    name: 'ROTATION_MIN_GRACE_SECONDS',
    kind: 'integer',
    unit: 's',
    default: '3600',
    min: 1,
    max: 604_800,
    about: 'The shortest grace of a rotation, but for a grace of 0.',
  },
  {
    name: 'ROTATION_MAX_GRACE_SECONDS',
    kind: 'integer',
    unit: 's',
    default: '604800',
    min: 3_600,
    max: 31_536_000,
    about: 'The longest grace of a rotation.',
  },
  {
    name: 'ROTATION_AUTO_CLEANUP',
    kind: 'boolean',
    default: 'false',
    about: 'Completes planned rotations 7 days after their grace.',
  },
  {
    name: 'ANOMALY_MAX_REQUESTS_PER_MINUTE',
    kind: 'integer',
    unit: 'calls',
    default: '1000',
    min: 0,
    max: 100_000,
    about: 'More decisions about one key than this in 60 s are an anomaly; 0: never.',
  },
  {
    name: 'ANOMALY_MAX_ERROR_RATIO',
    kind: 'number',
    default: '0.5',
    min: 0,
    max: 1,
    about:
      'A greater share of denials than this among the decisions about one key in 5 min is an anomaly; 0: never.',
  },
  {
    name: 'ANOMALY_MIN_SAMPLES',
    kind: 'integer',
    unit: 'decisions',
    default: '20',
    min: 1,
    max: 4_096,
    about: 'With fewer decisions than this in 5 min the share of denials is ignored.',
  },
  {
    name: 'ANOMALY_MAX_IPS_PER_HOUR',
    kind: 'integer',
    unit: 'addresses',
    default: '5',
    min: 0,
    max: 1_000,
    about: 'One key used from more client addresses than this in an hour is an anomaly; 0: never.',
  },
  {
    name: 'ANOMALY_QUIET_HOURS',
    kind: 'text',
    default: '',
    about: 'Hours in UTC in which any use of a key is an anomaly: `22-04` is 22:00 to 03:59. Unset: none.',
  },
  {
    name: 'ANOMALY_ACTION',
    kind: 'text',
    default: 'alert',
    choices: ['alert', 'disable'],
    about: '`disable` also disables the key of an anomaly.',
  },
  {
    name: 'REDIS_URL',
    kind: 'text',
    default: '',
    secret: true,
    about: 'A Redis to which alerts are also published, on `momentry:anomaly:alerts`; unset: none.',
  },
  {
    name: 'GITEA_URL',
    kind: 'text',
    default: '',
    about: 'The URL of Gitea or Forgejo, without `/api/v1`; unset: the calls for its tokens are refused.',
  },
  {
    name: 'N8N_URL',
    kind: 'text',
    default: '',
    about: 'The URL of n8n; unset: the calls for its API keys are refused.',
  },
  {
    name: 'SWEEP_INTERVAL_SECONDS',
    kind: 'integer',
    unit: 's',
    default: '30',
    min: 1,
    max: 3_600,
    about:
      'How often one process completes changes that a crash interrupted, deletes old data and raises due notices.',
  },
  {
    name: 'AUDIT_RETENTION_DAYS',
    kind: 'integer',
    unit: 'days',
    default: '90',
    min: 0,
    max: 36_500,
    about:
      'Audit events, alerts and resolved anomalies older than this are deleted, from an hour after each start on; 0 keeps them.',
  },
  {
    name: 'USAGE_RETENTION_DAYS',
    kind: 'integer',
    unit: 'days',
    default: '400',
    min: 0,
    max: 36_500,
    about:
      'Counts of decisions by key and hour older than this are deleted, from an hour after each start on; 0 keeps them.',
  },
  {
    name: 'AUDIT_CHAIN_KEY_FILE',
    kind: 'text',
    default: '',
    about:
      "A file whose bytes (32 at least) make the audit's hash chain an HMAC, so that write access to the store is not enough to forge it. Never change it; use the same on every process.",
  },
  {
    name: 'AUDIT_ANCHOR_FILE',
    kind: 'text',
    default: '',
    about:
      'A file outside the store with the ends of the audit chains, written each second: the start and VerifyAudit detect a store that is behind it. Unset: beside AUDIT_CHAIN_KEY_FILE, `.anchor` behind its name, or none without one; `off`: none.',
  },
  {
    name: 'REVOCATION_LOG',
    kind: 'text',
    default: '',
    secret: true,
    about:
      'The log of revoked, narrowed and rotated keys, outside the store, which keeps them so after a restore of a backup: a file, or `mongodb://…` in another cluster. Unset: beside the embedded store, `.revocations` behind its name, and none with MongoDB; `off`: none.',
  },
  {
    name: 'BACKUP_DIR',
    kind: 'text',
    default: '',
    about: 'The folder on the machine of the server that `apikeyd backup` writes to; unset: it is refused.',
  },
  ...TRACING_SETTINGS,
  {
    name: 'LOG_LEVEL',
    kind: 'text',
    default: 'info',
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
    about: 'The lowest level that is logged.',
  },
  {
    name: 'ACCESS_LOG',
    kind: 'boolean',
    default: 'false',
    about: 'Logs a line for each call: method, code and milliseconds. The audit has every call without it.',
  },
  {
    name: 'LOG_FORMAT',
    kind: 'text',
    default: '',
    choices: ['', 'json', 'pretty'],
    about: '`json` or `pretty`; unset: pretty on a terminal, else json.',
  },
  {
    name: 'APIKEYD_ADDRESS',
    kind: 'text',
    default: '127.0.0.1:50051',
    about: 'Client commands: the server; `https://` in front speaks TLS.',
  },
  {
    name: 'APIKEYD_KEY_FILE',
    kind: 'text',
    default: './data/admin.key',
    about:
      'Client commands: the file that holds their key. The server writes the first admin key there, mode 0600.',
  },
] as const satisfies readonly Row[];

export type SettingName = (typeof SETTINGS)[number]['name'];
type Kinds = { [R in (typeof SETTINGS)[number] as R['name']]: R['kind'] };
type ValueOf<K> = K extends 'integer' | 'number' ? number : K extends 'boolean' ? boolean : string;

/** The settings of this process, by name. */
export type Config = { readonly [N in SettingName]: ValueOf<Kinds[N]> };

// A typo in one of our names must not be silently ignored; other programs' variables are not checked.
const OUR_PREFIXES = ['ANOMALY_', 'ROTATION_', 'RATE_LIMIT_', 'CACHE_', 'REVISION_', 'AUDIT_', 'APIKEYD_'];

/** Reads and checks all settings. @throws ConfigError naming the variable. */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const known = new Set<string>(SETTINGS.map(({ name }) => name));
  for (const name of Object.keys(env)) {
    if (OUR_PREFIXES.some((prefix) => name.startsWith(prefix)) && !known.has(name)) {
      throw new ConfigError(`${name}: there is no such setting`);
    }
  }
  const rows: readonly Row[] = SETTINGS;
  const config = Object.fromEntries(
    rows.map((row) => [row.name, readValue(row, env[row.name] || row.default)]),
  );
  checkTogether(config as Config);
  return config as Config;
}

/** Checks settings that depend on each other. */
function checkTogether(config: Config): void {
  if (config.ROTATION_MIN_GRACE_SECONDS > config.ROTATION_MAX_GRACE_SECONDS) {
    throw new ConfigError('ROTATION_MIN_GRACE_SECONDS: must not be above ROTATION_MAX_GRACE_SECONDS');
  }
  parseQuietHours(config.ANOMALY_QUIET_HOURS);
  if (config.REDIS_URL !== '' && !/^rediss?:\/\/./.test(config.REDIS_URL)) {
    throw new ConfigError('REDIS_URL: must be redis://… or rediss://…');
  }
  parseKeyHeaders(config.GATEWAY_KEY_HEADERS);
  for (const name of ['GITEA_URL', 'N8N_URL', 'OTEL_EXPORTER_OTLP_ENDPOINT'] as const)
    checkWebAddress(name, config[name]);
  parseTraceHeaders(config.OTEL_EXPORTER_OTLP_HEADERS);
}

export interface SettingInUse {
  readonly name: string;
  /** For a secret, only whether it is set. */
  readonly value: string;
  readonly origin: 'default' | 'environment';
}

/** The settings in force, for display. @throws ConfigError */
export function settingsInUse(env: Readonly<Record<string, string | undefined>>): SettingInUse[] {
  const config = readConfig(env);
  const rows: readonly Row[] = SETTINGS;
  return rows.map((row) => {
    const value = String(config[row.name as SettingName]);
    const isDefault = !env[row.name];
    const shown = row.secret === true && !isDefault ? '(set)' : value;
    return { name: row.name, value: shown, origin: isDefault ? 'default' : 'environment' };
  });
}
