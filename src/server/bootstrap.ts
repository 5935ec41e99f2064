import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Config, ConfigError } from '../config.ts';
import { ApiError } from '../keys/errors.ts';
import type { ManageKeys, NewKey } from '../keys/manage-keys.ts';
import type { CallOrigin } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { KeyStore } from '../keys/ports/key-store.ts';
import { isSecret, mintSecret } from '../keys/secret.ts';
import type { Logger } from './telemetry.ts';

/** The request_id of the first admin key: when several processes start at once, only one creates it. */
const BOOTSTRAP_REQUEST_ID = 'apikeyd-bootstrap';

/** A key that may do everything in this service. */
export function adminKey(name: string, requestId: string): NewKey {
  return {
    name,
    ownerId: 'apikeyd',
    type: 'SYSTEM',
    scopes: ['apikeys:*'],
    rateLimits: [],
    rateLimitBucket: '',
    ipAllowlist: [],
    metadata: {},
    requestId,
  };
}

/** The origin of actions of the program itself, on behalf of the operator who started it. */
export function localOrigin(method: string, clock: Clock): CallOrigin {
  const arriveTime = clock.now();
  const arriveMonotonic = clock.monotonic();
  const requestId = randomUUID();
  return {
    method,
    arriveTime,
    arriveMonotonic,
    peerIp: '',
    callerKeyId: '',
    callerScopes: ['apikeys:*'],
    requestId,
  };
}

/** Creates an empty store's first admin key: the operator's, or one minted into a file that only its owner can read. */
export async function bootstrap(
  config: Config,
  keys: KeyStore,
  manageKeys: ManageKeys,
  clock: Clock,
  logger: Logger,
): Promise<void> {
  const given = config.ADMIN_BOOTSTRAP_KEY;
  if (given !== '' && !isSecret(given)) {
    throw new ConfigError('ADMIN_BOOTSTRAP_KEY: must be audit_v1_ and 22 base64url characters');
  }
  const { items } = await keys.list({}, { size: 1, after: undefined });
  if (items.length > 0) return;
  const file = config.APIKEYD_KEY_FILE;
  const secret = given === '' ? writeAdminKey(file) : given;
  try {
    const input = adminKey('bootstrap admin', BOOTSTRAP_REQUEST_ID);
    const { key } = await manageKeys.create(input, localOrigin('apikeyd/bootstrap', clock), secret);
    const from = given === '' ? { file } : { from: 'ADMIN_BOOTSTRAP_KEY' };
    logger.info({ key_id: key.id, ...from }, 'empty store: made the first admin key');
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 'REQUEST_ID_USED')) throw error;
    // Another process was first: the key in our file was never created.
    if (given === '') rmSync(file, { force: true });
  }
}

/** Written before the key exists, so that no crash loses the secret: a later start uses the one in the file. */
function writeAdminKey(file: string): string {
  try {
    const kept = existsSync(file) ? readFileSync(file, 'utf8').trim() : '';
    if (isSecret(kept)) return kept;
    const secret = mintSecret();
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    rmSync(file, { force: true });
    writeFileSync(file, `${secret}\n`, { mode: 0o600, flag: 'wx' });
    return secret;
  } catch (error) {
    throw new ConfigError(`APIKEYD_KEY_FILE: cannot be written: ${(error as Error).message}`);
  }
}
