import { randomBytes } from 'node:crypto';
import { HttpDouble, type Reply, type Seen } from './http-double.ts';

interface User {
  readonly password: string;
  readonly email?: string;
  /** The one-time passwords that are valid now; without any there is no second factor. */
  readonly otp?: string | readonly string[];
  readonly admin?: true;
  readonly visibility?: 'limited' | 'private';
  readonly blocked?: true;
  readonly inactive?: true;
  readonly mustChangePassword?: true;
  readonly id?: number;
}

interface Token {
  readonly id: number;
  readonly user: string;
  readonly name: string;
  readonly sha1: string;
  readonly scopes: readonly string[];
}

/** The signed-in user of a request. */
interface Doer {
  readonly name: string;
  readonly basic: boolean;
  /** Of the token that it asks with. */
  readonly scopes?: readonly string[];
}

const AREAS = 'activitypub admin misc notification organization package issue repository user'.split(' ');
const SCOPES = ['all', 'public-only', ...AREAS.flatMap((area) => [`read:${area}`, `write:${area}`])];
/** MAX_RESPONSE_ITEMS as it comes (1.26.0, 1.27.3). */
const PAGE = 50;
const MISSING = "The target couldn't be found.";

/** Gitea's token API as in 1.26.0 and 1.27.3: its responses, refusals and texts, and the order of its checks. */
export class GiteaDouble {
  readonly http = new HttpDouble((request) => this.#answer(request));
  readonly users = new Map<string, User>();
  /** Old names, and the names that those users have now. */
  readonly renamed = new Map<string, string>();
  basicIsOn = true;
  /** REQUIRE_SIGNIN_VIEW. */
  strangersSeeNothing = false;
  /** Pages of this size overlap: tokens of one second come in any order (seen on 1.26.0). */
  overlapsAt: number | undefined;
  tokens: Token[] = [];
  readonly #version: '1.26' | '1.27';
  #nextId = 1_001;
  readonly #lastUsedOtp = new Map<string, string>();

  constructor(version: '1.26' | '1.27' = '1.27') {
    this.#version = version;
  }

  #answer(request: Seen): Reply {
    const doer = this.#authenticate(request);
    if (doer === 'refused') return refusal(401, 'invalid username, password or token');
    const blocked = this.#blocked(doer);
    if (blocked !== undefined) return { status: 403, body: { message: blocked } };
    const scope = request.method === 'GET' ? 'read:user' : 'write:user';
    if (doer?.scopes !== undefined && !grants(doer.scopes, scope)) return lacksScope(scope, doer.scopes);
    if (request.path === '/api/v1/user' && request.method === 'GET')
      return doer === undefined ? refusal(401, 'token is required') : this.#user(doer.name);
    const [, name, tokens, key] =
      /^\/api\/v1\/users\/([^/]+)(\/tokens)?(?:\/([^/]+))?$/.exec(request.path) ?? [];
    if (name === undefined) return refusal(404, 'not found');
    return this.#ofUser(request, doer, decodeURIComponent(name), tokens !== undefined, key);
  }

  #ofUser(request: Seen, doer: Doer | undefined, asked: string, tokens: boolean, key?: string): Reply {
    const whose = asked.toLowerCase();
    const user = this.users.get(whose);
    const newName = this.renamed.get(whose);
    if (user === undefined && newName !== undefined)
      return { status: 307, headers: { location: request.path.replace(`/${asked}`, `/${newName}`) } };
    if (user === undefined) return refusal(404, `user redirect does not exist [name: ${asked}]`);
    // 1.26.0, 1.27.3: before the credentials are asked for, and in the words of a missing token.
    const isAdmin = doer !== undefined && this.users.get(doer.name)?.admin === true;
    if (user.visibility === 'private' && doer?.name !== whose && !isAdmin) return refusal(404, MISSING);
    if (user.visibility === 'limited' && doer === undefined) return refusal(404, MISSING);
    if (!tokens) return this.#user(whose);
    // 1.26.0, 1.27.3: without basic authentication there is no signed-in user, and this is the response.
    if (doer?.name !== whose && !isAdmin)
      return refusal(403, 'doer should be the site admin or be same as the contextUser');
    if (!doer?.basic) return refusal(401, 'auth required');
    if (request.method === 'POST') return this.#create(whose, doer, request.json as NewToken);
    if (request.method === 'GET') return this.#list(whose, request.query);
    if (request.method === 'DELETE' && key !== undefined) return this.#delete(whose, decodeURIComponent(key));
    return refusal(405, 'method not allowed');
  }

  #authenticate({ headers }: Seen): Doer | 'refused' | undefined {
    const [kind, credentials = ''] = (headers.authorization ?? '').split(' ');
    if (kind === 'token') return this.#byToken(credentials, false) ?? this.#stranger();
    if (kind !== 'Basic') return undefined;
    const text = Buffer.from(credentials, 'base64').toString();
    const given = text.slice(0, text.indexOf(':')).toLowerCase();
    const password = text.slice(text.indexOf(':') + 1);
    // A token works as the password, without a one-time password, whatever the user name says (1.26.0, 1.27.3).
    const byToken = this.#byToken(password, true);
    if (byToken !== undefined) return byToken;
    if (!this.basicIsOn) return undefined;
    const [name = given, user] =
      [...this.users].find(([name, { email }]) => [name, email].includes(given)) ?? [];
    if (user === undefined || user.password !== password || user.blocked) return 'refused';
    return this.#otpIsGood(name, user, headers['x-gitea-otp'] ?? '') ? { name, basic: true } : 'refused';
  }

  /** Where strangers see nothing, a token that is not known is a stranger's; elsewhere it is refused. */
  #stranger(): 'refused' | undefined {
    return this.strangersSeeNothing ? undefined : 'refused';
  }

  #byToken(secret: string, basic: boolean): Doer | undefined {
    const token = this.tokens.find(({ sha1 }) => sha1 === secret);
    return token && { name: token.user, basic, scopes: token.scopes };
  }

  #otpIsGood(name: string, { otp }: User, given: string): boolean {
    if (otp === undefined) return true;
    const isGood = [otp].flat().includes(given);
    // 1.27.3 refuses the last used one-time password a second time; 1.26.0 accepts it.
    if (!isGood || (this.#version === '1.27' && this.#lastUsedOtp.get(name) === given)) return false;
    this.#lastUsedOtp.set(name, given);
    return true;
  }

  /** In the words of 1.26.0 and 1.27.3. */
  #blocked(doer: Doer | undefined): string | undefined {
    if (doer === undefined)
      return this.strangersSeeNothing ? 'Only signed in user is allowed to call APIs.' : undefined;
    const { inactive, blocked, mustChangePassword } = this.users.get(doer.name) ?? {};
    if (inactive) return 'This account is not activated.';
    if (blocked) return 'This account is prohibited from signing in, please contact your site administrator.';
    if (mustChangePassword)
      return 'You must change your password. Change it at: http://double/user/change_password';
    return undefined;
  }

  #user(name: string): Reply {
    const ids = [...this.users.keys()];
    return { status: 200, body: { id: this.users.get(name)?.id ?? ids.indexOf(name) + 1, login: name } };
  }

  #create(user: string, doer: Doer, { name, scopes = [] }: NewToken): Reply {
    if (this.tokens.some((token) => token.user === user && token.name === name))
      return refusal(400, 'access token name has been used already');
    const unknown = scopes.find((scope) => !SCOPES.includes(scope));
    if (unknown !== undefined)
      return refusal(400, `invalid access token scope provided: invalid access token scope: ${unknown}`);
    if (scopes.length === 0) return refusal(400, 'access token must have a scope');
    if (this.#version === '1.27' && scopes.some((scope) => doer.scopes && !grants(doer.scopes, scope)))
      return refusal(403, 'cannot create an access token with a broader scope than the authenticating token');
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
    const page = Number(query.get('page') ?? 1);
    const from = (page - 1) * size - (size === this.overlapsAt && page > 1 ? 1 : 0);
    const headers = { 'x-total-count': String(all.length) };
    const items = all.slice(from, Math.min(from + size, page * size));
    return { status: 200, headers, body: items.map((token) => ({ ...answered(token), sha1: '' })) };
  }

  #delete(user: string, key: string): Reply {
    const id = goInteger(key);
    const found = this.tokens.filter(
      (t) => t.user === user && (id === 0n ? t.name === key : BigInt(t.id) === id),
    );
    if (found.length === 0) return refusal(404, MISSING);
    if (found.length > 1) return refusal(422, `multiple matches for token name '${key}'`);
    this.tokens = this.tokens.filter((token) => token !== found[0]);
    return { status: 204 };
  }
}

interface NewToken {
  readonly name: string;
  readonly scopes?: string[];
}

/** Go's ParseInt(text, 0, 64) with its error ignored, as a path of a delete is read (1.26.0, 1.27.3). */
function goInteger(text: string): bigint {
  const [, sign = '', prefix = '', digits = ''] =
    /^([+-]?)(0[xX]_?|0[oO]_?|0[bB]_?|0_?(?=\d))?(\w+)$/.exec(text) ?? [];
  const base = prefix.toLowerCase().replace('_', '');
  const allowed = { '0x': /^[\da-f]+(_[\da-f]+)*$/i, '0b': /^[01]+(_[01]+)*$/ }[base];
  const shape = allowed ?? (base === '' ? /^\d+(_\d+)*$/ : /^[0-7]+(_[0-7]+)*$/);
  if (!shape.test(digits)) return 0n;
  const plain = digits.replaceAll('_', '');
  const value = BigInt(base === '' ? plain : `${base === '0' ? '0o' : base}${plain}`);
  const most = 2n ** 63n - 1n;
  const bounded = value > most ? most : value;
  return sign === '-' ? -bounded : bounded;
}

function grants(held: readonly string[], scope: string): boolean {
  return [scope, 'all', scope.replace('read:', 'write:')].some((each) => held.includes(each));
}

function lacksScope(scope: string, held: readonly string[]): Reply {
  const message = `token does not have at least one of required scope(s), required=[${scope}], token scope=${held}`;
  return refusal(403, message);
}

function answered({ id, name, sha1, scopes }: Token) {
  return { id, name, scopes, token_last_eight: sha1.slice(-8) };
}

function refusal(status: number, message: string): Reply {
  return { status, body: { message, url: 'http://double/api/swagger' } };
}
