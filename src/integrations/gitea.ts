import type { NewRemoteKey, RemoteLogin, RemoteSystem, SeenRemoteKey } from '../keys/remote-keys.ts';
import { field, idField, type Remote, type RemoteAnswer, textField, textsField } from './remote.ts';

/** What Gitea gives at most, whatever is asked. */
const PAGE = 50;
const MAX_PAGES = 200;

/** Access tokens of Gitea (1.19 and later) and Forgejo. */
export class Gitea implements RemoteSystem {
  readonly #remote: Remote;

  constructor(remote: Remote) {
    this.#remote = remote;
  }

  async create(login: RemoteLogin, { user, name, scopes }: NewRemoteKey) {
    const whose = userOf(login, user);
    const body = { name, scopes };
    const answer = await this.#remote.request('POST', tokensOf(whose), basic(login), body);
    if (answer.status === 400) throw this.#remote.refused('the name is in use, or it has no such scope');
    this.#expect(answer, [201, 200], `user ${whose}`);
    const seen = toSeen(answer.json);
    const secret = textField(answer.json, 'sha1');
    if (seen === undefined || !secret)
      throw this.#remote.unreadable('no token in it; it may have been made: see its list');
    return { ...seen, name, scopes: textsField(answer.json, 'scopes') ?? scopes, user: whose, secret };
  }

  async list(login: RemoteLogin, user: string) {
    const whose = userOf(login, user);
    const keys: SeenRemoteKey[] = [];
    for (let page = 1; page <= MAX_PAGES; page++) {
      const path = `${tokensOf(whose)}?page=${page}&limit=${PAGE}`;
      const answer = await this.#remote.request('GET', path, basic(login));
      this.#expect(answer, [200], `user ${whose}`);
      if (!Array.isArray(answer.json)) throw this.#remote.unreadable('no list in it');
      const found = answer.json.map(toSeen).filter((seen) => seen !== undefined);
      if (found.length < answer.json.length) throw this.#remote.unreadable('a token without an id');
      keys.push(...found);
      // A server may be set to smaller pages than were asked for; its total tells.
      const total = Number(answer.headers.get('x-total-count') ?? Number.NaN);
      const done = Number.isNaN(total) ? found.length < PAGE : keys.length >= total;
      if (done || found.length === 0) return { user: whose, keys };
    }
    throw this.#remote.unreadable(`more than ${MAX_PAGES} pages of tokens`);
  }

  async delete(login: RemoteLogin, user: string, key: string) {
    const whose = userOf(login, user);
    const path = `${tokensOf(whose)}/${encodeURIComponent(key)}`;
    const answer = await this.#remote.request('DELETE', path, basic(login));
    // A page of some other server says 404, too, but not in Gitea's words.
    if (answer.status === 404 && textField(answer.json, 'message') !== undefined)
      return { user: whose, existed: false };
    if (answer.status === 422)
      throw this.#remote.refused('several tokens have this name: give the id of one');
    this.#expect(answer, [204, 200], 'such API');
    return { user: whose, existed: true };
  }

  async verify(secret: string): Promise<boolean> {
    const answer = await this.#remote.request('GET', '/api/v1/user', { authorization: `token ${secret}` });
    // 403: it works, but may not read its user.
    if (answer.status === 200 || answer.status === 403) return true;
    if (answer.status === 401) return false;
    throw this.#remote.unreadable(`status ${answer.status}`);
  }

  #expect({ status }: RemoteAnswer, good: readonly number[], what: string): void {
    if (good.includes(status)) return;
    if (status === 401)
      throw this.#remote.unauthenticated('this user name with this password and one-time password');
    if (status === 403) throw this.#remote.refused('only an admin of the site acts for another user');
    if (status === 404) throw this.#remote.notFound(what);
    throw this.#remote.unreadable(`status ${status}`);
  }
}

/** Gitea's user names are the same in either case. */
function userOf(login: RemoteLogin, user: string): string {
  return (user || login.name).toLowerCase();
}

function tokensOf(user: string): string {
  return `/api/v1/users/${encodeURIComponent(user)}/tokens`;
}

/** Gitea refuses tokens where tokens are managed. */
function basic({ name, password, oneTimePassword }: RemoteLogin): Record<string, string> {
  const authorization = `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
  return oneTimePassword === '' ? { authorization } : { authorization, 'x-gitea-otp': oneTimePassword };
}

function toSeen(json: unknown): SeenRemoteKey | undefined {
  const id = idField(json);
  if (id === undefined || field(json, 'name') === undefined) return undefined;
  return {
    id,
    name: textField(json, 'name') ?? '',
    scopes: textsField(json, 'scopes') ?? [],
    lastEight: textField(json, 'token_last_eight') ?? '',
  };
}
