import type { MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type {
  ApiKeyAuth,
  LocalUse,
  SyncKeysRequest,
  SyncKeysResponseSchema,
} from '../../gen/apikey/v1/auth_pb.ts';
import { LOCAL_DECISIONS } from '../keys/check.ts';
import { Violations } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';
import type { ReportedUse, SyncAnswer, SyncInput, SyncKeys } from '../leases/sync-keys.ts';
import { timeOf } from './convert.ts';
import { DECISIONS } from './enums.ts';
import type { ServiceImplementation } from './method.ts';

const GUARD_ID = /^[A-Za-z0-9_-]{22}$/;
const MAX_USES = 1_000;
const MAX_COUNT = 1_000_000_000n;
const MAX_NUMBER = BigInt(Number.MAX_SAFE_INTEGER);

/** SyncKeys: guards that decide by themselves under a lease. */
export function syncMethods(syncKeys: SyncKeys, access: readonly string[]) {
  return {
    syncKeys: {
      access: { anyOf: access },
      async handle(request, origin) {
        const answer = await syncKeys.run(syncInputOf(request), origin);
        return { message: toSyncResponse(answer) };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAuth>>;
}

/** @throws ApiError INVALID_REQUEST */
function syncInputOf(request: SyncKeysRequest): SyncInput {
  const found = new Violations();
  if (!GUARD_ID.test(request.guardId)) found.add('guard_id', '22 base64url characters');
  if (request.revision < 0n || request.revision > MAX_NUMBER) found.add('revision', '0 or more');
  fields.optionalText(found, 'epoch', request.epoch);
  fields.optionalText(found, 'last_grant_id', request.lastGrantId);
  if (request.uses.length > MAX_USES) found.add('uses', `at most ${MAX_USES}, got ${request.uses.length}`);
  found.throwIfAny();
  const uses = request.uses.map((use, i) => useOf(found, `uses[${i}].`, use, request.uses[i - 1]));
  found.throwIfAny();
  const { guardId, epoch, lastGrantId, closing } = request;
  return { guardId, epoch, revision: Number(request.revision), lastGrantId, uses, closing };
}

function useOf(found: Violations, at: string, use: LocalUse, before: LocalUse | undefined): ReportedUse {
  const { sequence, count } = use;
  if (sequence < 1n || sequence > MAX_NUMBER) found.add(`${at}sequence`, '1 or more');
  else if (before !== undefined && sequence <= before.sequence)
    found.add(`${at}sequence`, 'not above that of the use before');
  const decision = LOCAL_DECISIONS.find((name) => DECISIONS[name] === use.decision);
  if (decision === undefined) found.add(`${at}decision`, 'not a decision that a guard makes');
  if (count < 1n || count > MAX_COUNT) found.add(`${at}count`, `1 to ${MAX_COUNT}`);
  const firstTime = timeOf(found, `${at}first_time`, use.firstTime);
  const lastTime = timeOf(found, `${at}last_time`, use.lastTime);
  if (use.firstTime === undefined) found.add(`${at}first_time`, 'required');
  if (use.lastTime === undefined) found.add(`${at}last_time`, 'required');
  return {
    sequence: Number(sequence),
    keyId: fields.keyId(found, `${at}key_id`, use.keyId),
    decision: decision ?? 'VALID',
    requiredScope: fields.requiredScope(found, `${at}required_scope`, use.requiredScope),
    clientIp: fields.clientIp(found, `${at}client_ip`, use.clientIp),
    count: Number(count),
    firstTime: firstTime ?? 0,
    lastTime: lastTime ?? 0,
  };
}

function toSyncResponse(answer: SyncAnswer): MessageInitShape<typeof SyncKeysResponseSchema> {
  const { epoch, reset, grantId, leaseMs, lockedAddresses, lockedAddressesComplete } = answer;
  return {
    epoch,
    revision: BigInt(answer.revision),
    changes: answer.changes.map(({ revision, keyId }) => ({ revision: BigInt(revision), keyId })),
    reset,
    grantId,
    serverTime: timestampFromMs(answer.serverTime),
    pollAfter: durationFromMs(Math.ceil(answer.pollAfterMs)),
    lockedAddresses: [...lockedAddresses],
    lockedAddressesComplete,
    ...(leaseMs > 0 ? { lease: durationFromMs(leaseMs) } : {}),
  };
}
