import { randomBytes } from 'node:crypto';
import { HttpDouble, type Reply, type Seen } from './http-double.ts';

interface User {
  readonly password: string;
  readonly otp?: string;
  readonly admin?: true;
}

interface Token {
  readonly id: number;
  readonly user: string;
  readonly name: string;
  readonly sha1: string;
  readonly scopes: readonly string[];
}

const AREAS = 'activitypub admin misc notification organization package issue repository user'.split(' ');
const SCOPES = ['all', 'public-only', ...AREAS.flatMap((area) => [`read:${area}`, `write:${area}`])];
const PAGE = 50;

/** Gitea's token interface as 1.22 to 1.25 have it, in what it gives, refuses and says. */
export class GiteaDouble {
  readonly http = new HttpDouble((request) => this.#answer(request));
  readonly users = new Map<string, User>();
  basicIsOn = true;
  tokens: Token[] = [];
  #nextId = 1;

  #answer(request: Seen): Reply {
    if (request.path === '/api/v1/user' && request.method === 'GET') return this.#whoAmI(request);
    const [, user, key] = /^\/api\/v1\/users\/([^/]+)\/tokens(?:\/([^/]+))?$/.exec(request.path) ?? [];
    if (user === undefined) return refusal(404, 'not found');
    const asking = this.#basic(request);
    if (asking === undefined) return refusal(401, 'auth required');
    const whose = decodeURIComponent(user).toLowerCase();
    if (!this.users.has(whose)) return refusal(404, 'user redirect does not exist');
    if (asking !== whose && this.users.get(asking)?.admin !== true)
      return refusal(403, 'doer should be the site admin or be same as the contextUser');
    if (request.method === 'POST')
      return this.#create(whose, request.json as { name: string; scopes?: string[] });
    if (request.method === 'GET') return this.#list(whose, request.query);
    if (request.method === 'DELETE' && key !== undefined) return this.#delete(whose, decodeURIComponent(key));
    return refusal(405, 'method not allowed');
  }

  #basic({ headers }: Seen): string | undefined {
    const [kind, credentials] = (headers.authorization ?? '').split(' ');
    if (!this.basicIsOn || kind !== 'Basic') return undefined;
    const text = Buffer.from(credentials ?? '', 'base64').toString();
    const name = text.slice(0, text.indexOf(':')).toLowerCase();
    const user = this.users.get(name);
    const right = user?.password === text.slice(text.indexOf(':') + 1);
    return right && (user?.otp ?? '') === (headers['x-gitea-otp'] ?? '') ? name : undefined;
  }

  #create(user: string, { name, scopes = [] }: { name: string; scopes?: string[] }): Reply {
    if (this.tokens.some((token) => token.user === user && token.name === name))
      return refusal(400, 'access token name has been used already');
    if (scopes.length === 0) return refusal(400, 'access token must have a scope');
    if (scopes.some((scope) => !SCOPES.includes(scope)))
      return refusal(400, 'invalid access token scope provided');
    // write implies read, and the order is the server's.
    const implied = (scope: string) =>
      scope.startsWith('read:') && scopes.includes(scope.replace('read:', 'write:'));
    const normal = SCOPES.filter((scope) => scopes.includes(scope) && !implied(scope));
    const token = { id: this.#nextId++, user, name, sha1: randomBytes(20).toString('hex'), scopes: normal };
    this.tokens.unshift(token);
    return { status: 201, body: { ...answered(token), sha1: token.sha1 } };
  }

  #list(user: string, query: URLSearchParams): Reply {
    const all = this.tokens.filter((token) => token.user === user);
    const size = Math.min(PAGE, Number(query.get('limit') ?? PAGE));
    const from = (Number(query.get('page') ?? 1) - 1) * size;
    const headers = { 'x-total-count': String(all.length) };
    return {
      status: 200,
      headers,
      body: all.slice(from, from + size).map((token) => ({ ...answered(token), sha1: '' })),
    };
  }

  #delete(user: string, key: string): Reply {
    const isId = /^\d+$/.test(key);
    const found = this.tokens.filter(
      (t) => t.user === user && (isId ? t.id === Number(key) : t.name === key),
    );
    if (found.length === 0) return refusal(404, "The target couldn't be found.");
    if (found.length > 1) return refusal(422, 'multiple matches for token name');
    this.tokens = this.tokens.filter((token) => token !== found[0]);
    return { status: 204 };
  }

  #whoAmI({ headers }: Seen): Reply {
    const [, given] = /^token (.+)$/.exec(headers.authorization ?? '') ?? [];
    const token = this.tokens.find(({ sha1 }) => sha1 === given);
    if (token === undefined) return refusal(401, 'user does not exist [uid: 0, name: ]');
    const may = token.scopes.some((scope) => ['all', 'read:user', 'write:user'].includes(scope));
    return may
      ? { status: 200, body: { login: token.user } }
      : refusal(403, 'token does not have at least one of required scope(s): [read:user]');
  }
}

function answered({ id, name, sha1, scopes }: Token) {
  return { id, name, scopes, token_last_eight: sha1.slice(-8) };
}

function refusal(status: number, message: string): Reply {
  return { status, body: { message, url: 'http://double/api/swagger' } };
}
