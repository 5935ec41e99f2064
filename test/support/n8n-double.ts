import { createHash, randomBytes } from 'node:crypto';
import { HttpDouble, type Reply, type Seen } from './http-double.ts';

interface User {
  readonly id: string;
  readonly password: string;
  readonly mfaCode?: string;
  /** Of the instance. */
  readonly owner?: true;
}

interface ApiKey {
  readonly id: string;
  readonly user: string;
  readonly secret: string;
  readonly label: string;
  readonly scopes: readonly string[];
  readonly expiresAt: number | null;
}

const SCOPES = ['workflow:read', 'workflow:create', 'workflow:list', 'credential:create', 'tag:list'];
const LOGINS_A_MINUTE = 5;
/** The default and the largest page size of 2.40.7. */
const TAKE = 10;
const MAX_TAKE = 250;

/** n8n's internal key interface: 2.x as 2.40.7, 1.x as 1.123.81 have it; 'old' answers the secret in `apiKey`. */
export class N8nDouble {
  readonly http = new HttpDouble((request) => this.#answer(request));
  readonly users = new Map<string, User>();
  readonly #version: '2.x' | '1.x' | 'old';
  publicApiIsOn = true;
  /** It listens, and has no routes yet. */
  isStarting = false;
  /** 1.x signs the second of now: two keys of one are the same. */
  second = 1_795_544_272;
  keys: ApiKey[] = [];
  readonly #sessions = new Map<string, { user: User; browserId: string | undefined }>();
  readonly #logins = new Map<string, number>();

  constructor(version: '2.x' | '1.x' | 'old') {
    this.#version = version;
  }

  /** Rotates a key as the page of n8n does: the id stays, the secret changes (2.40.7). */
  rotate(id: string): string {
    const secret = jwt({ jti: randomBytes(8).toString('hex') });
    this.keys = this.keys.map((key) => (key.id === id ? { ...key, secret } : key));
    return secret;
  }

  /** The login's own minute is over. */
  forgetLogins(): void {
    this.#logins.clear();
  }

  #answer(request: Seen): Reply {
    const { method, path } = request;
    if (this.isStarting) return { status: 404, body: `<pre>Cannot ${method} ${path}</pre>` };
    if (method === 'POST' && path === '/rest/login') return this.#logIn(request);
    if (path.startsWith('/api/v1/')) return this.#publicApi(request);
    const user = this.#session(request);
    if (user === undefined) return { status: 401, body: { status: 'error', message: 'Unauthorized' } };
    if (!this.publicApiIsOn || !path.startsWith('/rest/api-keys')) return { status: 404 };
    const id = path.slice('/rest/api-keys/'.length);
    if (method === 'GET' && id === 'scopes') return wrapped(SCOPES);
    if (method === 'GET') return this.#list(user, request.query);
    if (method === 'POST') return this.#create(user, request.json as Record<string, unknown>);
    if (method === 'DELETE') return this.#delete(user, decodeURIComponent(id));
    return refusal(404, 'not found');
  }

  #logIn({ json, headers }: Seen): Reply {
    const { emailOrLdapLoginId: login = '', password, mfaCode = '' } = json as Record<string, string>;
    const attempts = (this.#logins.get(login) ?? 0) + 1;
    this.#logins.set(login, attempts);
    if (attempts > LOGINS_A_MINUTE)
      return { status: 429, headers: { 'retry-after': '42' }, body: { message: 'Too many requests' } };
    // Both lines, unless they ask LDAP.
    if (!login.includes('@')) return refusal(400, 'Invalid email address');
    const user = this.users.get(login.toLowerCase());
    if (user === undefined || user.password !== password || (user.mfaCode ?? '') !== mfaCode)
      return refusal(401, 'Wrong username or password. Do you have caps lock on?');
    const token = randomBytes(16).toString('hex');
    this.#sessions.set(token, { user, browserId: headers['browser-id'] });
    const cookie = `n8n-auth=${token}; Max-Age=604800; Path=/; HttpOnly; Secure; SameSite=Lax`;
    return { status: 200, headers: { 'set-cookie': cookie }, body: { data: { id: user.id, email: login } } };
  }

  #session({ headers }: Seen): User | undefined {
    const [, token] = /(?:^|; )n8n-auth=([^;]+)/.exec(headers.cookie ?? '') ?? [];
    const session = this.#sessions.get(token ?? '');
    // A session with a browser id works only for that browser.
    return session !== undefined && session.browserId === headers['browser-id'] ? session.user : undefined;
  }

  #create(user: User, { label, scopes, expiresAt }: Record<string, unknown>): Reply {
    const good = typeof label === 'string' && label.length >= 1 && label.length <= 50 && !/[<>]/.test(label);
    if (!good) return notAllowed('Label can only contain letters, numbers, spaces and punctuation', 'label');
    const grants = Array.isArray(scopes) ? (scopes as string[]) : [];
    if (grants.length === 0) return notAllowed('At least one scope is required', 'scopes');
    if (expiresAt === undefined) return notAllowed('Required', 'expiresAt');
    if (grants.some((scope) => !SCOPES.includes(scope))) return refusal(400, 'Invalid scopes for user role');
    // 2.40.7 puts a random word into each; 1.123.81 does not.
    const jti = this.#version === '2.x' ? { jti: randomBytes(8).toString('hex') } : {};
    const exp = expiresAt === null ? {} : { exp: expiresAt };
    const secret = jwt({
      sub: user.id,
      iat: this.#version === '2.x' ? this.second : this.second++,
      ...jti,
      ...exp,
    });
    const inUse = this.keys.some(
      (key) => (key.user === user.id && key.label === label) || key.secret === secret,
    );
    // Both lines.
    if (inUse) return { status: 500, body: { code: 0, message: 'There is already an entry with this name' } };
    const id = randomBytes(8).toString('hex');
    const key = { id, user: user.id, secret, label, scopes: grants, expiresAt: expiresAt as number | null };
    this.keys.unshift(key);
    return wrapped(
      this.#version === 'old'
        ? { ...redacted(key), apiKey: secret }
        : { ...redacted(key), rawApiKey: secret },
    );
  }

  #list(user: User, query: URLSearchParams): Reply {
    const own = this.keys.filter((key) => key.user === user.id);
    // 1.123.81 reads no query.
    if (this.#version !== '2.x') return wrapped(own.map(redacted));
    const seen = user.owner && query.get('ownership') !== 'mine' ? this.keys : own;
    const skip = Number(query.get('skip') ?? 0);
    const take = Math.min(Number(query.get('take') ?? TAKE), MAX_TAKE);
    const items = seen.slice(skip, skip + take).map((key) => ({ ...redacted(key), owner: { id: key.user } }));
    const counts = { mine: own.length, all: user.owner ? this.keys.length : own.length };
    return wrapped({ items, counts, totals: counts });
  }

  #delete(user: User, id: string): Reply {
    // 2.40.7: an owner of the instance ends anybody's.
    const may = (key: ApiKey) => key.user === user.id || (this.#version === '2.x' && user.owner === true);
    const there = this.keys.some((key) => key.id === id && may(key));
    if (!there && this.#version === '2.x') return refusal(404, 'API key not found');
    this.keys = this.keys.filter((key) => key.id !== id || !may(key));
    return wrapped({ success: true });
  }

  #publicApi({ path, headers, query }: Seen): Reply {
    // 1.123.81 has no interface then; 2.40.7 refuses every key, in the same words as one that it does not know.
    if (!this.publicApiIsOn && this.#version !== '2.x')
      return { status: 404, body: `<pre>Cannot GET ${path}</pre>` };
    const key = this.keys.find(({ secret }) => this.publicApiIsOn && secret === headers['x-n8n-api-key']);
    const known = path === '/api/v1/workflows' || (path === '/api/v1/discover' && this.#version === '2.x');
    if (!known) return { status: 404, body: { message: 'not found' } };
    if (key === undefined) return { status: 401, body: { message: 'unauthorized' } };
    if (path === '/api/v1/discover') return wrapped({ scopes: key.scopes });
    if (query.get('limit') === null) throw new Error('a page without its limit');
    const may = key.scopes.includes('workflow:list');
    return may
      ? { status: 200, body: { data: [], nextCursor: null } }
      : { status: 403, body: { message: 'Forbidden' } };
  }
}

function jwt(claims: object): string {
  const signature = createHash('sha256').update(JSON.stringify(claims)).digest('base64url');
  const parts = ['{"alg":"HS256"}', JSON.stringify(claims)].map((part) =>
    Buffer.from(part).toString('base64url'),
  );
  return [...parts, signature].join('.');
}

function redacted({ id, user, label, scopes, expiresAt, secret }: ApiKey) {
  return { id, userId: user, label, scopes, expiresAt, apiKey: `******${secret.slice(-4)}` };
}

function wrapped(data: unknown): Reply {
  return { status: 200, body: { data } };
}

function refusal(status: number, message: string): Reply {
  return { status, body: { code: status, message } };
}

function notAllowed(message: string, field: string): Reply {
  return { status: 400, body: { code: 'custom', message, path: [field] } };
}
