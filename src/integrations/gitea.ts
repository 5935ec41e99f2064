import { ApiError } from '../keys/errors.ts';
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

/**
 * The first size exceeds servers' limit (50 by default), for the fewest pages; the second splits the list differently.
 */
const PAGE_SIZES = [1_000, 41];
const MAX_PAGES = 250;
/** Characters that a new user name must have to be quoted in an error. */
const GITEA_USER = /^(?!\.+$)[\w.-]{1,255}$/;
const REDIRECTS = [301, 302, 307, 308];

/** Access tokens of Gitea (1.19 and later) and Forgejo. */
export class Gitea implements RemoteSystem {
  readonly #remote: Remote;

  constructor(remote: Remote) {
    this.#remote = remote;
  }

  async open(login: RemoteLogin): Promise<RemoteSession> {
    return new GiteaSession(this.#remote, login);
  }

  async verify(secret: string): Promise<RemoteVerification> {
    const headers = { authorization: `token ${secret}` };
    const response = await this.#remote.request('GET', '/api/v1/user', { headers });
    const message = textField(response.json, 'message');
    if (response.status === 200 && idField(response.json) !== undefined) return { result: 'ALIVE', why: '' };
    if (response.status === 401 && message !== undefined) return { result: 'DEAD', why: '' };
    if (response.status === 403 && message !== undefined) return refusedAs(message);
    throw this.#remote.unreadable(`status ${response.status} to a verification`);
  }
}

/** The meaning of a refused token. Gitea's texts change between versions; an unknown one means UNKNOWN. */
function refusedAs(message: string): RemoteVerification {
  // A server that requires sign-in reports a dead token like a missing one.
  if (/only signed in user/i.test(message)) return { result: 'DEAD', why: '' };
  const unusable = (why: string) => ({ result: 'UNUSABLE' as const, why });
  if (/prohibited/i.test(message)) return unusable('its owner is blocked from signing in');
  if (/not activated/i.test(message)) return unusable('the account of its owner is not active');
  if (/change your password/i.test(message)) return unusable('its owner must change the password first');
  // The token works, but may not read its user.
  if (/scope|public-only/i.test(message)) return { result: 'ALIVE', why: '' };
  return { result: 'UNKNOWN', why: 'Gitea refuses it for a reason that is not known here' };
}

class GiteaSession implements RemoteSession {
  readonly #remote: Remote;
  readonly #login: RemoteLogin;
  /** Each is used once, as Gitea requires since 1.27. */
  readonly #oneTimePasswords: string[];
  readonly #hasSecondFactor: boolean;

  constructor(remote: Remote, login: RemoteLogin) {
    this.#remote = remote;
    this.#login = login;
    this.#oneTimePasswords = login.oneTimePassword.split(',').filter((each) => each !== '');
    this.#hasSecondFactor = this.#oneTimePasswords.length > 0;
  }

  async create({ user, name, scopes }: NewRemoteKey) {
    const whose = this.#userOf(user);
    const userId = await this.#userIdOf(whose);
    const response = await this.#ask('POST', tokensOf(whose), { body: { name, scopes }, makes: true });
    if (response.status === 400 || response.status === 422) throw this.#refusal(response, name);
    this.#expect(response, [201, 200], whose);
    const seen = toSeen(response.json);
    const secret = textField(response.json, 'sha1');
    if (seen === undefined || !secret)
      throw this.#remote.unreadable('no token in it; it may have been made: see its list');
    return {
      ...seen,
      name,
      scopes: textsField(response.json, 'scopes') ?? scopes,
      user: whose,
      userId,
      secret,
    };
  }

  async list(user: string): Promise<RemoteList> {
    const whose = this.#userOf(user);
    const userId = await this.#userIdOf(whose);
    const keys = new Map<string, SeenRemoteKey>();
    // Tokens of the same second have no fixed order, so a token may appear on two pages and another on none.
    for (const size of PAGE_SIZES)
      if (await this.#readPages(whose, size, keys))
        return { user: whose, userId, keys: [...keys.values()], othersById: false };
    throw this.#remote.unreadable('its list changes while it is read');
  }

  /** @returns whether the list is complete */
  async #readPages(whose: string, size: number, keys: Map<string, SeenRemoteKey>): Promise<boolean> {
    let seen = 0;
    let first = 0;
    for (let page = 1; page <= MAX_PAGES; page++) {
      const response = await this.#ask('GET', `${tokensOf(whose)}?page=${page}&limit=${size}`);
      this.#expect(response, [200], whose);
      if (!Array.isArray(response.json)) throw this.#remote.unreadable('no list in it');
      const found = response.json.map(toSeen).filter((each) => each !== undefined);
      if (found.length < response.json.length) throw this.#remote.unreadable('a token without an id');
      for (const each of found) keys.set(each.id, each);
      seen += found.length;
      if (page === 1) first = found.length;
      const total = Number(response.headers.get('x-total-count') ?? Number.NaN);
      if (found.length === 0 || (Number.isNaN(total) ? found.length < first : seen >= total))
        return Number.isNaN(total) || keys.size >= total;
    }
    throw this.#remote.unreadable(`more than ${MAX_PAGES} pages of tokens`);
  }

  async delete(user: string, id: string): Promise<boolean> {
    const whose = this.#userOf(user);
    // Gitea also accepts other notations of a number: only its own is sent.
    if (!/^[1-9]\d{0,18}$/.test(id)) throw new Error(`no id of a token: ${id}`);
    const response = await this.#ask('DELETE', `${tokensOf(whose)}/${id}`);
    // Another server's page may also answer 404, but without Gitea's `message`.
    if (response.status === 404 && textField(response.json, 'message') !== undefined) return false;
    this.#expect(response, [204, 200], whose);
    return true;
  }

  /** Gitea's id of a user, which survives a rename. Uses no one-time password; renames show without a login, too. */
  async #userIdOf(whose: string): Promise<string | undefined> {
    const path = `/api/v1/users/${encodeURIComponent(whose)}`;
    const toStrangers = await this.#remote.request('GET', path, { reads: REDIRECTS });
    this.#expectNoNewName(toStrangers, whose);
    if (toStrangers.status === 200) return idField(toStrangers.json);
    if (this.#hasSecondFactor) return undefined;
    const headers = { authorization: this.#basic() };
    const response = await this.#remote.request('GET', path, { headers, reads: REDIRECTS });
    this.#expectNoNewName(response, whose);
    return response.status === 200 ? idField(response.json) : undefined;
  }

  /** Gitea's token management accepts no Authorization token, but a token with write:user as the password. */
  #basic(): string {
    const { name, password } = this.#login;
    return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
  }

  #ask(method: 'GET' | 'POST' | 'DELETE', path: string, more: { body?: object; makes?: true } = {}) {
    const otp = this.#hasSecondFactor ? { 'x-gitea-otp': this.#nextOneTimePassword() } : {};
    const headers = { authorization: this.#basic(), ...otp };
    return this.#remote.request(method, path, { ...more, headers, reads: REDIRECTS });
  }

  #nextOneTimePassword(): string {
    const next = this.#oneTimePasswords.shift();
    if (next !== undefined) return next;
    const text =
      'Gitea takes each one-time password for one request, and this needs more: give several with commas between them ' +
      '(the one before works for a while, too), or a token of scope write:user as the password, which needs none';
    throw new ApiError('REMOTE_UNAUTHENTICATED', text, { metadata: { system: 'gitea' } });
  }

  /** Gitea's user names are case-insensitive. */
  #userOf(user: string): string {
    return (user || this.#login.name).toLowerCase();
  }

  #refusal({ json }: RemoteResponse, name: string): ApiError {
    const message = textField(json, 'message') ?? '';
    if (/used already|already been used/i.test(message))
      return this.#remote.exists(`a token ${JSON.stringify(name)} of this user`);
    if (/must have a scope/i.test(message)) return this.#remote.refused('a token needs a scope');
    if (/scope/i.test(message)) return this.#remote.refused('it has no such scope');
    return this.#remote.refused('the name or a scope');
  }

  #expect(response: RemoteResponse, good: readonly number[], whose: string): void {
    const { status } = response;
    if (good.includes(status)) return;
    this.#expectNoNewName(response, whose);
    if (status === 401)
      throw this.#remote.unauthenticated('this user name with this password and one-time password');
    if (status === 403) throw this.#remote.refused(this.#forbidden(response, whose));
    if (status === 404)
      throw this.#remote.notFound(
        `user ${whose} that this login may see (it answers so, too, when basic authentication is switched off)`,
      );
    throw this.#remote.unreadable(`status ${status}`);
  }

  #expectNoNewName({ status, headers }: RemoteResponse, whose: string): void {
    if (!REDIRECTS.includes(status)) return;
    const [, path = ''] = /\/users\/([^/?#]+)/.exec(headers.get('location') ?? '') ?? [];
    if (!GITEA_USER.test(path) || path.toLowerCase() === whose)
      throw this.#remote.unreadable('it redirects, and redirects are not followed');
    throw this.#remote.notFound(`user ${whose} any more: the name is ${path} now`);
  }

  /** Five causes share this status. A cause is named only when Gitea's text shows it. */
  #forbidden({ json }: RemoteResponse, whose: string): string {
    const message = textField(json, 'message') ?? '';
    const own = whose === this.#login.name.toLowerCase();
    if (/change your password/i.test(message)) return 'this user must change the password first';
    if (/not activated/i.test(message)) return 'the account of this user is not active';
    if (/prohibited/i.test(message)) return 'this user is blocked from signing in';
    if (/broader scope/i.test(message))
      return 'the token that is used as the password may not make one with more scopes than its own';
    if (/required scope/i.test(message))
      return 'the token that is used as the password lacks the scope write:user';
    if (/site admin/i.test(message))
      return own
        ? 'it takes no passwords (basic authentication is switched off), or the password is a token of somebody else'
        : 'only an admin of the site acts for another user, with basic authentication switched on';
    return 'this login may not do it, for a reason that is not known here';
  }
}

function tokensOf(user: string): string {
  return `/api/v1/users/${encodeURIComponent(user)}/tokens`;
}

function toSeen(json: unknown): SeenRemoteKey | undefined {
  const id = idField(json);
  if (id === undefined || field(json, 'name') === undefined) return undefined;
  return {
    id,
    name: textField(json, 'name') ?? '',
    scopes: textsField(json, 'scopes') ?? [],
    ending: textField(json, 'token_last_eight') ?? '',
  };
}
