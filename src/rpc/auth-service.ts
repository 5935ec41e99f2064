import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { ApiError, Violations } from '../keys/errors.ts';
import { BOUNDS } from '../keys/key-fields.ts';
import type { ManageKeys } from '../keys/manage-keys.ts';
import { hashSecret } from '../keys/secret.ts';
import type { ValidateKey, Verdict } from '../keys/validate-key.ts';
import type { SyncKeys } from '../leases/sync-keys.ts';
import type { KeyFeed, KeyNotice } from '../watch/key-feed.ts';
import type { Authenticator } from './authenticate.ts';
import { toFactsMessage, toValidateInput, toValidateResponse } from './convert.ts';
import { KEY_CHANGES, revokeReasonOf } from './enums.ts';
import type { ServiceImplementation } from './method.ts';
import { checked, subscriberOf } from './requests.ts';
import { syncMethods } from './sync-methods.ts';
import { validateCodec } from './validate-codec.ts';

export interface AuthServiceParts {
  readonly validateKey: ValidateKey;
  readonly manageKeys: ManageKeys;
  readonly authenticator: Authenticator;
  readonly keyFeed: KeyFeed;
  readonly syncKeys: SyncKeys;
  /** GUARD_LEASES. */
  readonly lendsLeases: boolean;
  /** The store's epoch. */
  readonly epoch: () => string;
  /** ALLOW_ANONYMOUS_VALIDATE. */
  readonly allowAnonymous: boolean;
}

const VALIDATE = ['apikeys:validate'];
const MAX_REVISION = BigInt(Number.MAX_SAFE_INTEGER);

/** ApiKeyAuth: each method reads its request, calls one use case and writes its response. */
export function authService(parts: AuthServiceParts): ServiceImplementation<typeof ApiKeyAuth> {
  const { validateKey, manageKeys } = parts;
  const withFacts = (verdict: Verdict) => {
    const facts = toFactsMessage(verdict, parts.epoch());
    const message = toValidateResponse(verdict);
    if (facts !== undefined) message.facts = facts;
    return { message };
  };
  return {
    validateKey: {
      access: { anyOf: VALIDATE, anonymous: parts.allowAnonymous },
      codec: validateCodec,
      handle(request, origin) {
        if (origin.callerKeyId === '' && (request.clientIp !== '' || request.dryRun)) {
          throw new ApiError('CREDENTIAL_MISSING', 'client_ip and dry_run need a calling key');
        }
        const found = new Violations();
        const input = toValidateInput(found, '', request);
        found.throwIfAny();
        const verdict = validateKey.run(input, origin);
        const wantsFacts = request.wantFacts && !request.dryRun && origin.callerKeyId !== '';
        return verdict.then(wantsFacts && parts.lendsLeases ? withFacts : validateResult);
      },
    },
    batchValidateKeys: {
      access: { anyOf: VALIDATE },
      async handle({ requests }, origin) {
        const found = new Violations();
        if (requests.length === 0 || requests.length > BOUNDS.batchItems) {
          found.add('requests', `1 to ${BOUNDS.batchItems} items, got ${requests.length}`);
          found.throwIfAny();
        }
        const inputs = requests.map((request, i) => toValidateInput(found, `requests[${i}].`, request));
        found.throwIfAny();
        const verdicts = await validateKey.runAll(inputs, origin);
        return { message: { responses: verdicts.map(toValidateResponse) } };
      },
    },
    whoAmI: {
      access: { anyOf: 'ANY_SCOPE' },
      async handle(_request, { callerKeyId }) {
        const { id, name, scopes, expireTime } = await manageKeys.get(callerKeyId);
        return {
          message: {
            keyId: id,
            name,
            scopes: [...scopes],
            ...(expireTime === undefined ? {} : { expireTime: timestampFromMs(expireTime) }),
          },
          event: { keyId: id },
        };
      },
    },
    ...syncMethods(parts.syncKeys, VALIDATE),
    ...keyHolderMethods(parts),
  };
}

/** Methods for holders of keys, and for services that cache validations. */
function keyHolderMethods({ manageKeys, authenticator, keyFeed, epoch }: AuthServiceParts) {
  return {
    watchKeys: {
      access: { anyOf: VALIDATE },
      async open({ sinceRevision }, origin) {
        const since = checked((found) => {
          if (sinceRevision !== undefined && (sinceRevision < 0n || sinceRevision > MAX_REVISION))
            found.add('since_revision', '0 or more');
          return sinceRevision === undefined ? undefined : Number(sinceRevision);
        });
        const { notices, subscription } = keyFeed.subscribe(since, subscriberOf(origin));
        return {
          messages: messagesOf(notices, epoch),
          end: (failure) => subscription.end(failure),
          event: {},
        };
      },
    },
    revokeOwnKey: {
      access: 'OPEN',
      async handle(request, origin, call) {
        const found = new Violations();
        if (request.key === '') found.add('key', 'required');
        const reason = revokeReasonOf(found, 'reason', request.reason);
        found.throwIfAny();
        await authenticator.admit(call, hashSecret(request.key));
        const { key, proven } = await manageKeys.revokeOwn(request.key, reason, origin);
        if (key !== undefined) return { message: { keyId: key.id, revision: BigInt(key.revision) } };
        if (!proven) await authenticator.countWrong(call);
        throw new ApiError('SECRET_NOT_WORKING', 'this secret does not work, so it proves nothing');
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAuth>>;
}

function validateResult(verdict: Verdict) {
  return { message: toValidateResponse(verdict) };
}

async function* messagesOf(notices: AsyncIterable<KeyNotice>, epoch: () => string) {
  for await (const { revision, keyId, change } of notices) {
    yield {
      revision: BigInt(revision),
      keyId,
      epoch: epoch(),
      ...(change === undefined ? {} : { change: KEY_CHANGES[change] }),
    };
  }
}
