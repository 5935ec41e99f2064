import type {
  NewRemoteKey,
  RemoteList,
  RemoteLogin,
  RemoteSession,
  RemoteSystem,
  RemoteVerification,
  SeenRemoteKey,
} from '../keys/remote-keys.ts';
import { field, idField, type Remote, type RemoteResponse, textField, textsField } from './remote.ts';

const KEYS = '/rest/api-keys';
const SWITCHED_OFF = 'its public API is switched off (N8N_PUBLIC_API_DISABLED)';
/** The largest page that 2.x returns. */
const PAGE = 250;
const MAX_PAGES = 40;
/** The form of n8n's own ids, safe in a URL. */
const KEY_ID = /^[\w-]{1,64}$/;

const ALIVE = { result: 'ALIVE', why: '' } as const;
const DEAD = { result: 'DEAD', why: '' } as const;
const unknown = (why: string) => ({ result: 'UNKNOWN', why }) as const;

/** API keys of n8n (1.89 and later) over its internal interface, since the public one does not manage keys. */
export class N8n implements RemoteSystem {
  readonly #remote: Remote;
  readonly #clock: { now(): number };

  constructor(remote: Remote, clock: { now(): number }) {
    this.#remote = remote;
    this.#clock = clock;
  }

  /** No `browser-id` is sent, so that n8n does not require one later. */
  async open({ name, password, oneTimePassword }: RemoteLogin): Promise<N8nSession> {
    const mfa = oneTimePassword === '' ? {} : { mfaCode: oneTimePassword };
    const body = { emailOrLdapLoginId: name, password, ...mfa };
    const response = await this.#remote.request('POST', '/rest/login', { body });
    const { status } = response;
    if (status === 401 || status === 403)
      throw this.#remote.unauthenticated('this login with this password and one-time password');
    if (status === 400)
      throw this.#remote.unauthenticated('this login: it wants an e-mail address, unless it asks LDAP');
    if (status === 404)
      throw this.#remote.starting('has no login yet: it is starting, or something else answers at N8N_URL');
    if (status !== 200) throw this.#remote.unreadable(`status ${status} to a login`);
    const cookie = response.headers
      .getSetCookie()
      .map((each) => each.split(';', 1)[0] ?? '')
      .find((each) => each.startsWith('n8n-auth='));
    if (cookie === undefined) throw this.#remote.unreadable('no session in it');
    return new N8nSession(this.#remote, cookie, idField(field(response.json, 'data')) ?? name.toLowerCase());
  }

  async verify(secret: string, login: RemoteLogin | undefined): Promise<RemoteVerification> {
    const headers = { 'x-n8n-api-key': secret };
    const discovered = await this.#remote.request('GET', '/api/v1/discover', { headers });
    if (discovered.status === 200 && field(discovered.json, 'data') !== undefined) return ALIVE;
    if (discovered.status === 401 && textField(discovered.json, 'message') !== undefined)
      return this.#refused(secret, login);
    if (discovered.status !== 404)
      throw this.#remote.unreadable(`status ${discovered.status} to a verification`);
    // Before 2.0 this path does not exist; with the public API switched off, neither does any other.
    const worked = await this.#remote.request('GET', '/api/v1/workflows?limit=1', { headers });
    const said = textField(worked.json, 'message') !== undefined;
    if (worked.status === 200 && Array.isArray(field(worked.json, 'data'))) return ALIVE;
    if (worked.status === 403 && said) return ALIVE;
    if (worked.status === 401 && said) return DEAD;
    if (worked.status === 404) return unknown(`${SWITCHED_OFF}, or n8n is starting`);
    throw this.#remote.unreadable(`status ${worked.status} to a verification`);
  }

  /** 2.x refuses every key with the same text while its public API is off; a user can see whether it is. */
  async #refused(secret: string, login: RemoteLogin | undefined): Promise<RemoteVerification> {
    if ((expiryOf(secret) ?? Number.POSITIVE_INFINITY) < this.#clock.now()) return DEAD;
    if (login === undefined)
      return unknown(
        'n8n refuses it, as it refuses every key while its public API is switched off: add a login',
      );
    const session = await this.open(login);
    return (await session.publicApiIsOn()) ? DEAD : unknown(SWITCHED_OFF);
  }
}

class N8nSession implements RemoteSession {
  readonly #remote: Remote;
  readonly #headers: { readonly cookie: string };
  readonly #user: string;

  constructor(remote: Remote, cookie: string, user: string) {
    this.#remote = remote;
    this.#headers = { cookie };
    this.#user = user;
  }

  async create({ name, scopes, expireTime }: NewRemoteKey) {
    // n8n requires the field even without a value.
    const expiresAt = expireTime === undefined ? null : Math.floor(expireTime / 1000);
    const body = { label: name, scopes, expiresAt };
    const response = await this.#ask('POST', KEYS, { body, makes: true, reads: [500] });
    if (response.status === 500) throw this.#failure(response, name);
    if (response.status === 400) throw this.#remote.refused(wrongPart(response));
    const data = this.#data(response);
    // Very old versions return the secret in the field where newer ones return it redacted.
    const secret = textField(data, 'rawApiKey') ?? textField(data, 'apiKey');
    const id = idField(data);
    if (id === undefined || !secret)
      throw this.#remote.unreadable('no API key in it; it may have been made: see its list');
    const whose = { user: this.#user, userId: undefined };
    return { id, name, scopes: textsField(data, 'scopes') ?? scopes, ending: '', ...whose, secret };
  }

  async list(): Promise<RemoteList> {
    const keys = new Map<string, SeenRemoteKey>();
    const whose = { user: this.#user, userId: undefined };
    let read = 0;
    for (let page = 0; page < MAX_PAGES; page++) {
      // Without `ownership`, an owner of the instance sees all users' keys. 1.x ignores the query: all own keys.
      const path = `${KEYS}?ownership=mine&take=${PAGE}&skip=${read}`;
      const data = this.#data(await this.#ask('GET', path));
      const is2 = !Array.isArray(data);
      const items = is2 ? field(data, 'items') : data;
      if (!Array.isArray(items)) throw this.#remote.unreadable('no list in it');
      read += items.length;
      for (const item of items) {
        const seen = toSeen(item);
        if (seen === undefined) throw this.#remote.unreadable('an API key without an id');
        const owner = idField(field(item, 'owner')) ?? textField(item, 'userId') ?? this.#user;
        if (owner === this.#user) keys.set(seen.id, seen);
      }
      const total = field(field(data, 'counts'), 'mine');
      const isAll = typeof total === 'number' ? read >= total : items.length < PAGE;
      // Keys of the same moment have no fixed order: a key may have appeared on two pages, and another on none.
      if (typeof total === 'number' && isAll && read === total && keys.size < total)
        throw this.#remote.unreadable('its list changes while it is read');
      if (!is2 || isAll || items.length === 0) return { ...whose, keys: [...keys.values()], othersById: is2 };
    }
    throw this.#remote.unreadable(`more than ${MAX_PAGES} pages of API keys`);
  }

  async delete(_user: string, id: string): Promise<boolean> {
    if (!KEY_ID.test(id)) return false;
    const response = await this.#ask('DELETE', `${KEYS}/${id}`);
    if (response.status === 404) {
      // A missing key and a switched-off interface have the same status.
      if (await this.publicApiIsOn()) return false;
      throw this.#remote.refused(SWITCHED_OFF);
    }
    this.#data(response);
    return true;
  }

  async publicApiIsOn(): Promise<boolean> {
    const response = await this.#ask('GET', `${KEYS}?ownership=mine&take=1`);
    if (response.status === 404) return false;
    this.#data(response);
    return true;
  }

  #ask(
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    more: { body?: object; makes?: true; reads?: readonly number[] } = {},
  ): Promise<RemoteResponse> {
    return this.#remote.request(method, path, { ...more, headers: this.#headers });
  }

  /** 1.x and 2.x fail like this for a label in use; 1.x also for a second key in one second, which would be identical. */
  #failure(response: RemoteResponse, label: string): Error {
    if (/already an entry/i.test(textField(response.json, 'message') ?? ''))
      return this.#remote.exists(
        `an API key ${JSON.stringify(label)} of this user, or (before 2.0) one of this very second`,
      );
    return this.#remote.failed(response, true);
  }

  #data(response: RemoteResponse): unknown {
    this.#expect(response);
    const data = field(response.json, 'data');
    if (data === undefined) throw this.#remote.unreadable('no data in it');
    return data;
  }

  #expect({ status }: RemoteResponse): void {
    if (status === 200 || status === 201) return;
    if (status === 401) throw this.#remote.unauthenticated('its own session');
    if (status === 403) throw this.#remote.refused('this user may not manage API keys');
    if (status === 404) throw this.#remote.refused(SWITCHED_OFF);
    throw this.#remote.unreadable(`status ${status}`);
  }
}

/** The expiry of a key, which is a JWT. */
function expiryOf(secret: string): number | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(secret.split('.')[1] ?? '', 'base64url').toString());
    const exp = field(claims, 'exp');
    return typeof exp === 'number' ? exp * 1000 : undefined;
  } catch {
    // Not a JWT: very old keys are not, and do not expire.
    return undefined;
  }
}

/** n8n names the field whose format is wrong. */
function wrongPart({ json }: RemoteResponse): string {
  const path = field(json, 'path');
  if (Array.isArray(path) && path[0] === 'label')
    return 'the label: it takes letters, digits, spaces and punctuation, but no < or >';
  if (Array.isArray(path) && path[0] === 'expiresAt') return 'the expiry';
  return 'it has no such scope for this user';
}

function toSeen(json: unknown): SeenRemoteKey | undefined {
  const id = idField(json);
  if (id === undefined) return undefined;
  const expires = field(json, 'expiresAt');
  return {
    id,
    name: textField(json, 'label') ?? '',
    scopes: textsField(json, 'scopes') ?? [],
    // Redacted: stars, then the last four characters.
    ending: /^\*+(.{1,8})$/.exec(textField(json, 'apiKey') ?? '')?.[1] ?? '',
    ...(typeof expires === 'number' ? { expireTime: expires * 1000 } : {}),
  };
}
