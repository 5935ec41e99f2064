import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type ApiKeyIntegrations,
  type GiteaLogin,
  type N8nLogin,
  RemoteDifference,
  VerifyResult,
} from '../../gen/apikey/v1/integrations_pb.ts';
import type { Violations } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';
import type { ListedRemoteKey, ManageRemoteKeys } from '../keys/manage-remote-keys.ts';
import type { RemoteKeyRecord, RemoteLogin, RemoteVerification } from '../keys/remote-keys.ts';
import { timeOf } from './convert.ts';
import type { ServiceImplementation } from './method.ts';
import { ADMIN, checked } from './requests.ts';

export interface IntegrationsServiceParts {
  readonly giteaTokens: ManageRemoteKeys;
  readonly n8nApiKeys: ManageRemoteKeys;
  readonly clock: { now(): number };
}

/** Characters that a header value may contain. */
const SECRET = /^[\x21-\x7e]{1,1024}$/;
const ONE_TIME_PASSWORD = /^[\x21-\x7e]{0,64}$/;
/** Also excludes `.` and `..`, which would change the URL. */
const GITEA_USER = /^(?!\.+$)[\w.-]{1,255}$/;
const GITEA_SCOPE = /^[a-z-]{1,64}(:[a-z]{1,64})?$/;
const N8N_SCOPE = /^[\w-]{1,64}:[\w-]{1,64}$/;
const GITEA_NAME_CHARACTERS = 255;
const N8N_LABEL_CHARACTERS = 50;
const MAX_SCOPES = 256;

/** ApiKeyIntegrations: each method reads its request, calls one use case and writes its response. */
export function integrationsService(
  parts: IntegrationsServiceParts,
): ServiceImplementation<typeof ApiKeyIntegrations> {
  return { ...giteaMethods(parts), ...n8nMethods(parts) };
}

function giteaMethods({ giteaTokens }: IntegrationsServiceParts) {
  return {
    createGiteaToken: {
      access: ADMIN,
      async handle(request, origin) {
        const { login, key } = checked((found) => ({
          login: giteaLoginOf(found, request.login),
          key: {
            user: giteaUserName(found, 'user', request.user),
            name: nameOf(found, 'name', request.name, GITEA_NAME_CHARACTERS),
            scopes: scopesOf(
              found,
              request.scopes,
              GITEA_SCOPE,
              'all, public-only, or such as read:repository',
            ),
          },
        }));
        const { record, secret } = await giteaTokens.create(login, key, origin);
        return { message: { token: toRemoteKey({ record }), secret } };
      },
    },
    listGiteaTokens: {
      access: ADMIN,
      async handle(request, origin) {
        const { login, user } = checked((found) => giteaUserOf(found, request));
        const listed = await giteaTokens.list(login, user, origin);
        const tokens = listed.map((each) => ({ ...toRemoteKey(each), difference: differenceOf(each) }));
        return { message: { tokens }, event: {} };
      },
    },
    deleteGiteaToken: {
      access: ADMIN,
      async handle(request, origin) {
        const { login, user, token } = checked((found) => ({
          ...giteaUserOf(found, request),
          token: fields.requiredText(found, 'token', request.token),
        }));
        const { record, wasMissing, recorded } = await giteaTokens.delete(login, user, token, origin);
        const known = record === undefined ? {} : { token: toRemoteKey({ record }) };
        return { message: { ...known, wasMissing }, ...eventUnless(recorded) };
      },
    },
    verifyGiteaToken: {
      access: ADMIN,
      async handle(request, origin) {
        const secret = checked((found) => secretOf(found, request.secret));
        const { record, recorded, ...verified } = await giteaTokens.verify(secret, undefined, origin);
        const known = record === undefined ? {} : { token: toRemoteKey({ record }) };
        return { message: { ...verification(verified), ...known }, ...eventUnless(recorded) };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyIntegrations>>;
}

function n8nMethods({ n8nApiKeys, clock }: IntegrationsServiceParts) {
  return {
    createN8nApiKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { login, key } = checked((found) => {
          const expireTime = timeOf(found, 'expire_time', request.expireTime);
          if (expireTime !== undefined && (expireTime <= clock.now() || expireTime % 1000 !== 0))
            found.add('expire_time', 'in the future, in whole seconds');
          return {
            login: n8nLoginOf(found, request.login),
            key: {
              user: '',
              name: nameOf(found, 'label', request.label, N8N_LABEL_CHARACTERS),
              scopes: scopesOf(found, request.scopes, N8N_SCOPE, 'such as workflow:read'),
              expireTime,
            },
          };
        });
        const { record, secret } = await n8nApiKeys.create(login, key, origin);
        return { message: { apiKey: toN8nApiKey({ record }), secret } };
      },
    },
    listN8nApiKeys: {
      access: ADMIN,
      async handle(request, origin) {
        const login = checked((found) => n8nLoginOf(found, request.login));
        const listed = await n8nApiKeys.list(login, '', origin);
        const apiKeys = listed.map((each) => ({ ...toN8nApiKey(each), difference: differenceOf(each) }));
        return { message: { apiKeys }, event: {} };
      },
    },
    deleteN8nApiKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { login, id } = checked((found) => ({
          login: n8nLoginOf(found, request.login),
          id: fields.requiredText(found, 'id', request.id),
        }));
        const { record, wasMissing, recorded } = await n8nApiKeys.delete(login, '', id, origin);
        const known = record === undefined ? {} : { apiKey: toN8nApiKey({ record }) };
        return { message: { ...known, wasMissing }, ...eventUnless(recorded) };
      },
    },
    verifyN8nApiKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { secret, login } = checked((found) => ({
          secret: secretOf(found, request.secret),
          login: request.login && n8nLoginOf(found, request.login),
        }));
        const { record, recorded, ...verified } = await n8nApiKeys.verify(secret, login, origin);
        const known = record === undefined ? {} : { apiKey: toN8nApiKey({ record }) };
        return { message: { ...verification(verified), ...known }, ...eventUnless(recorded) };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyIntegrations>>;
}

function giteaUserOf(found: Violations, request: { login?: GiteaLogin | undefined; user: string }) {
  return {
    login: giteaLoginOf(found, request.login),
    user: giteaUserName(found, 'user', request.user),
  };
}

function giteaLoginOf(found: Violations, login: GiteaLogin | undefined): RemoteLogin {
  const { username = '', password = '', otp = '' } = login ?? {};
  giteaUserName(found, 'login.username', username);
  return loginOf(found, ['username', username], password, ['otp', otp]);
}

/** Validated before the request: Gitea has no other user names, and the name becomes part of a URL. */
function giteaUserName(found: Violations, at: string, name: string): string {
  const text = fields.optionalText(found, at, name);
  if (text.includes('@')) found.add(at, 'the user name, not the e-mail address');
  else if (text !== '' && !GITEA_USER.test(text)) found.add(at, 'a user name: letters, digits, - _ and .');
  return text;
}

function n8nLoginOf(found: Violations, login: N8nLogin | undefined): RemoteLogin {
  const { loginId = '', password = '', mfaCode = '' } = login ?? {};
  return loginOf(found, ['login_id', loginId], password, ['mfa_code', mfaCode]);
}

type NamedText = readonly [field: string, value: string];

/** Reports violations without the values, which are secret. */
function loginOf(found: Violations, name: NamedText, password: string, otp: NamedText): RemoteLogin {
  const [otpField, oneTimePassword] = otp;
  if (!ONE_TIME_PASSWORD.test(oneTimePassword))
    found.add(`login.${otpField}`, 'at most 64 printable characters');
  return {
    name: fields.requiredText(found, `login.${name[0]}`, name[1]),
    password: fields.requiredText(found, 'login.password', password),
    oneTimePassword,
  };
}

function nameOf(found: Violations, at: string, name: string, max: number): string {
  if (name.length > max) found.add(at, `at most ${max} characters`);
  return fields.requiredText(found, at, name);
}

function scopesOf(
  found: Violations,
  scopes: readonly string[],
  shape: RegExp,
  example: string,
): readonly string[] {
  if (scopes.length === 0) found.add('scopes', 'at least one scope is required');
  if (scopes.length > MAX_SCOPES) found.add('scopes', `at most ${MAX_SCOPES} scopes`);
  for (const [i, scope] of scopes.entries()) if (!shape.test(scope)) found.add(`scopes[${i}]`, example);
  return [...new Set(scopes)];
}

function secretOf(found: Violations, secret: string): string {
  if (!SECRET.test(secret)) found.add('secret', '1 to 1024 printable characters, no spaces');
  return secret;
}

function verification({ result, why }: RemoteVerification) {
  return { result: VerifyResult[result], explanation: why };
}

function differenceOf({ seen, record, rotatedThere }: ListedRemoteKey): RemoteDifference {
  if (rotatedThere) return RemoteDifference.ROTATED_THERE;
  if (seen === undefined) return RemoteDifference.LOCAL_ONLY;
  return record === undefined ? RemoteDifference.REMOTE_ONLY : RemoteDifference.UNSPECIFIED;
}

/** A change has recorded the event of its call already. */
function eventUnless(recorded: boolean) {
  return recorded ? {} : { event: {} };
}

/** A key of a list, or the one that a call was about. */
type RemoteKey = Partial<Omit<ListedRemoteKey, 'record'>> & Pick<ListedRemoteKey, 'record'>;

function toN8nApiKey(listed: RemoteKey) {
  const { name, ...rest } = toRemoteKey(listed);
  const expireTime = listed.seen?.expireTime ?? listed.record?.expireTime;
  return { label: name, ...rest, ...optionalTime('expireTime', expireTime) };
}

/** Where both sides have a value, the other system's applies: the key is there. */
function toRemoteKey({ user, seen, record, rotatedThere = false }: RemoteKey) {
  return {
    id: seen?.id ?? record?.id ?? '',
    user: user ?? record?.user ?? '',
    name: seen?.name ?? record?.name ?? '',
    scopes: [...(seen?.scopes ?? record?.scopes ?? [])],
    lastEight: (rotatedThere ? seen?.ending : record?.lastEight) ?? seen?.ending ?? '',
    ...optionalTime('createTime', record?.createTime),
    ...optionalTime('deleteTime', record?.deleteTime),
    ...optionalTime('lastVerifyTime', record?.lastVerifyTime),
    lastVerifyResult: verifiedAs(record),
  };
}

function verifiedAs(record: RemoteKeyRecord | undefined): VerifyResult {
  return VerifyResult[record?.lastVerifyResult ?? 'UNSPECIFIED'];
}

function optionalTime<N extends string>(name: N, time: number | undefined) {
  return (time === undefined ? {} : { [name]: timestampFromMs(time) }) as {
    [K in N]?: ReturnType<typeof timestampFromMs>;
  };
}
