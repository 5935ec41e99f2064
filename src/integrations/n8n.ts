import type { NewRemoteKey, RemoteLogin, RemoteSystem, SeenRemoteKey } from '../keys/remote-keys.ts';
import { field, idField, type Remote, type RemoteAnswer, textField, textsField } from './remote.ts';

const KEYS = '/rest/api-keys';
const SWITCHED_OFF = 'its public API is switched off (N8N_PUBLIC_API_DISABLED)';

interface Session {
  readonly headers: { readonly cookie: string };
  readonly user: string;
}

/** API keys of n8n (1.89 and later): its internal interface, since the public one has none for keys. */
export class N8n implements RemoteSystem {
  readonly #remote: Remote;

  constructor(remote: Remote) {
    this.#remote = remote;
  }

  async create(login: RemoteLogin, { name, scopes, expireTime }: NewRemoteKey) {
    const { headers, user } = await this.#logIn(login);
    // n8n wants the field, also when it says nothing.
    const expiresAt = expireTime === undefined ? null : Math.floor(expireTime / 1000);
    const answer = await this.#remote.request('POST', KEYS, headers, { label: name, scopes, expiresAt });
    if (answer.status === 400)
      throw this.#remote.refused('the label is in use, or it has no such scope for this user');
    const data = this.#data(answer);
    // Very old versions answer the secret where newer ones answer it redacted.
    const secret = textField(data, 'rawApiKey') ?? textField(data, 'apiKey');
    const id = idField(data);
    if (id === undefined || !secret)
      throw this.#remote.unreadable('no API key in it; it may have been made: see its list');
    return { id, name, scopes: textsField(data, 'scopes') ?? scopes, lastEight: '', user, secret };
  }

  async list(login: RemoteLogin) {
    const { headers, user } = await this.#logIn(login);
    const data = this.#data(await this.#remote.request('GET', KEYS, headers));
    // 2.x answers an object with the items, 1.x the items.
    const items = Array.isArray(data) ? data : field(data, 'items');
    if (!Array.isArray(items)) throw this.#remote.unreadable('no list in it');
    const keys = items.map(toSeen).filter((seen) => seen !== undefined);
    if (keys.length < items.length) throw this.#remote.unreadable('an API key without an id');
    return { user, keys };
  }

  async delete(login: RemoteLogin, _user: string, key: string) {
    const { headers, user } = await this.#logIn(login);
    const answer = await this.#remote.request('DELETE', `${KEYS}/${encodeURIComponent(key)}`, headers);
    if (answer.status === 404) {
      // The same status for a key that is gone and for an interface that is switched off: its list tells.
      this.#data(await this.#remote.request('GET', KEYS, headers));
      return { user, existed: false };
    }
    this.#expect(answer);
    return { user, existed: true };
  }

  async verify(secret: string): Promise<boolean> {
    const headers = { 'x-n8n-api-key': secret };
    const discovered = await this.#remote.request('GET', '/api/v1/discover', headers);
    if (discovered.status === 200) return true;
    if (discovered.status === 401) return false;
    // Before 2.0 there is no such thing.
    const { status } = await this.#remote.request('GET', '/api/v1/workflows?limit=1', headers);
    if (status === 200 || status === 403) return true;
    if (status === 401) return false;
    if (status === 404) throw this.#remote.refused(SWITCHED_OFF);
    throw this.#remote.unreadable(`status ${status}`);
  }

  /** No `browser-id` is sent, so none is asked for later. */
  async #logIn({ name, password, oneTimePassword }: RemoteLogin): Promise<Session> {
    const mfa = oneTimePassword === '' ? {} : { mfaCode: oneTimePassword };
    const body = { emailOrLdapLoginId: name, password, ...mfa };
    const answer = await this.#remote.request('POST', '/rest/login', {}, body);
    if (answer.status === 401 || answer.status === 403)
      throw this.#remote.unauthenticated('this login with this password and one-time password');
    if (answer.status !== 200) throw this.#remote.unreadable(`status ${answer.status} to a login`);
    const cookie = answer.headers
      .getSetCookie()
      .map((each) => each.split(';', 1)[0] ?? '')
      .find((each) => each.startsWith('n8n-auth='));
    if (cookie === undefined) throw this.#remote.unreadable('no session in it');
    return { headers: { cookie }, user: idField(field(answer.json, 'data')) ?? name.toLowerCase() };
  }

  #data(answer: RemoteAnswer): unknown {
    this.#expect(answer);
    const data = field(answer.json, 'data');
    if (data === undefined) throw this.#remote.unreadable('no data in it');
    return data;
  }

  #expect({ status }: RemoteAnswer): void {
    if (status === 200 || status === 201) return;
    if (status === 401) throw this.#remote.unauthenticated('its own session');
    if (status === 403) throw this.#remote.refused('this user may not manage API keys');
    if (status === 404) throw this.#remote.refused(SWITCHED_OFF);
    throw this.#remote.unreadable(`status ${status}`);
  }
}

function toSeen(json: unknown): SeenRemoteKey | undefined {
  const id = idField(json);
  if (id === undefined) return undefined;
  const expires = field(json, 'expiresAt');
  return {
    id,
    name: textField(json, 'label') ?? '',
    scopes: textsField(json, 'scopes') ?? [],
    lastEight: '',
    ...(typeof expires === 'number' ? { expireTime: expires * 1000 } : {}),
  };
}
