import { expect } from 'vitest';
import type { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import type { HttpDouble } from '../support/http-double.ts';
import type { Clients } from '../support/server.ts';

export interface Login {
  readonly name: string;
  readonly password: string;
  readonly otp?: string;
}

/** A token or key, in the words that both systems have. */
export interface RemoteKey {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly lastEight: string;
  readonly difference: RemoteDifference;
  readonly deleted: boolean;
  readonly verified: VerifyResult;
}

/** The four verbs of one system over our RPCs, so that the same cases judge both. */
export interface Driver {
  readonly system: string;
  /** Good ones, in another order than the system puts them. */
  readonly scopes: readonly string[];
  create(
    clients: Clients,
    login: Login,
    name: string,
    scopes?: readonly string[],
  ): Promise<{ key: RemoteKey; secret: string }>;
  list(clients: Clients, login: Login): Promise<RemoteKey[]>;
  delete(
    clients: Clients,
    login: Login,
    id: string,
  ): Promise<{ key: RemoteKey | undefined; wasMissing: boolean }>;
  verify(clients: Clients, secret: string): Promise<{ result: VerifyResult; key: RemoteKey | undefined }>;
}

interface TokenMessage {
  readonly id: string;
  readonly scopes: string[];
  readonly lastEight: string;
  readonly difference: RemoteDifference;
  readonly deleteTime?: unknown;
  readonly lastVerifyResult: VerifyResult;
}

function remoteKey(name: string, message: TokenMessage): RemoteKey {
  const { id, scopes, lastEight, difference, deleteTime, lastVerifyResult } = message;
  return {
    id,
    name,
    scopes,
    lastEight,
    difference,
    deleted: deleteTime !== undefined,
    verified: lastVerifyResult,
  };
}

const giteaLogin = ({ name, password, otp = '' }: Login) => ({ username: name, password, otp });
const n8nLogin = ({ name, password, otp = '' }: Login) => ({ loginId: name, password, mfaCode: otp });

export const gitea: Driver = {
  system: 'gitea',
  scopes: ['write:repository', 'read:user'],
  async create({ integrations }, login, name, scopes = gitea.scopes) {
    const { token, secret } = await integrations.createGiteaToken({
      login: giteaLogin(login),
      name,
      scopes: [...scopes],
    });
    if (token === undefined) throw new Error('no token');
    return { key: remoteKey(token.name, token), secret };
  },
  async list({ integrations }, login) {
    const { tokens } = await integrations.listGiteaTokens({ login: giteaLogin(login) });
    return tokens.map((token) => remoteKey(token.name, token));
  },
  async delete({ integrations }, login, id) {
    const { token, wasMissing } = await integrations.deleteGiteaToken({
      login: giteaLogin(login),
      token: id,
    });
    return { key: token && remoteKey(token.name, token), wasMissing };
  },
  async verify({ integrations }, secret) {
    const { result, token } = await integrations.verifyGiteaToken({ secret });
    return { result, key: token && remoteKey(token.name, token) };
  },
};

export const n8n: Driver = {
  system: 'n8n',
  scopes: ['workflow:read', 'workflow:list'],
  async create({ integrations }, login, name, scopes = n8n.scopes) {
    const { apiKey, secret } = await integrations.createN8nApiKey({
      login: n8nLogin(login),
      label: name,
      scopes: [...scopes],
    });
    if (apiKey === undefined) throw new Error('no key');
    return { key: remoteKey(apiKey.label, apiKey), secret };
  },
  async list({ integrations }, login) {
    const { apiKeys } = await integrations.listN8nApiKeys({ login: n8nLogin(login) });
    return apiKeys.map((key) => remoteKey(key.label, key));
  },
  async delete({ integrations }, login, id) {
    const { apiKey, wasMissing } = await integrations.deleteN8nApiKey({ login: n8nLogin(login), id });
    return { key: apiKey && remoteKey(apiKey.label, apiKey), wasMissing };
  },
  async verify({ integrations }, secret) {
    const { result, apiKey } = await integrations.verifyN8nApiKey({ secret });
    return { result, key: apiKey && remoteKey(apiKey.label, apiKey) };
  },
};

/** No secret of this test stands in an address that was asked for, or where else people look. */
export function expectHidden(secrets: readonly string[], places: Readonly<Record<string, string>>): void {
  for (const [place, text] of Object.entries(places))
    for (const secret of secrets) expect(text.includes(secret), `a secret in ${place}`).toBe(false);
}

export function addressesOf(double: HttpDouble): string {
  return double.seen.map(({ path, query }) => `${path}?${query}`).join('\n');
}
