import { randomBytes } from 'node:crypto';
import { HttpDouble, type Reply, type Seen } from './http-double.ts';

interface User {
  readonly id: string;
  readonly password: string;
  readonly mfaCode?: string;
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

/** n8n's internal key interface: 2.x as of 2.41, 1.x as of 1.89; 'old' answers the secret in `apiKey`. */
export class N8nDouble {
  readonly http = new HttpDouble((request) => this.#answer(request));
  readonly users = new Map<string, User>();
  readonly #version: '2.x' | '1.x' | 'old';
  publicApiIsOn = true;
  keys: ApiKey[] = [];
  readonly #sessions = new Map<string, { user: User; browserId: string | undefined }>();
  readonly #logins = new Map<string, number>();

  constructor(version: '2.x' | '1.x' | 'old') {
    this.#version = version;
  }

  #answer(request: Seen): Reply {
    const { method, path } = request;
    if (method === 'POST' && path === '/rest/login') return this.#logIn(request);
    if (path.startsWith('/api/v1/')) return this.#publicApi(request);
    const user = this.#session(request);
    if (user === undefined) return refusal(401, 'Unauthorized');
    if (!this.publicApiIsOn || !path.startsWith('/rest/api-keys')) return refusal(404, 'not found');
    const id = path.slice('/rest/api-keys/'.length);
    if (method === 'GET' && id === 'scopes') return wrapped(SCOPES);
    if (method === 'GET') return this.#list(user);
    if (method === 'POST') return this.#create(user, request.json as Record<string, unknown>);
    if (method === 'DELETE') return this.#delete(user, decodeURIComponent(id));
    return refusal(404, 'not found');
  }

  #logIn({ json, headers }: Seen): Reply {
    const { emailOrLdapLoginId: login, password, mfaCode = '' } = json as Record<string, string>;
    const attempts = (this.#logins.get(login ?? '') ?? 0) + 1;
    this.#logins.set(login ?? '', attempts);
    if (attempts > LOGINS_A_MINUTE)
      return { status: 429, headers: { 'retry-after': '60' }, body: { message: 'Too many requests' } };
    const user = this.users.get((login ?? '').toLowerCase());
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
    // A session that was begun with a browser's id belongs to that browser.
    return session !== undefined && session.browserId === headers['browser-id'] ? session.user : undefined;
  }

  #create(user: User, { label, scopes, expiresAt }: Record<string, unknown>): Reply {
    const good = typeof label === 'string' && label.length >= 1 && label.length <= 50;
    const grants = Array.isArray(scopes) ? (scopes as string[]) : [];
    if (!good || grants.length === 0 || expiresAt === undefined) return refusal(400, 'invalid body');
    if (grants.some((scope) => !SCOPES.includes(scope))) return refusal(400, 'Invalid scopes for user role');
    const parts = ['{"alg":"HS256"}', JSON.stringify({ sub: user.id, jti: randomBytes(8).toString('hex') })];
    const secret = [
      ...parts.map((part) => Buffer.from(part).toString('base64url')),
      randomBytes(32).toString('base64url'),
    ].join('.');
    const id = randomBytes(8).toString('hex');
    const key = { id, user: user.id, secret, label, scopes: grants, expiresAt: expiresAt as number | null };
    this.keys.push(key);
    return wrapped(
      this.#version === 'old'
        ? { ...redacted(key), apiKey: secret }
        : { ...redacted(key), rawApiKey: secret },
    );
  }

  #list(user: User): Reply {
    const items = this.keys.filter((key) => key.user === user.id).map(redacted);
    return wrapped(this.#version === '2.x' ? { items, counts: { all: items.length } } : items);
  }

  #delete(user: User, id: string): Reply {
    const there = this.keys.some((key) => key.id === id && key.user === user.id);
    if (!there && this.#version === '2.x') return refusal(404, 'API key not found');
    this.keys = this.keys.filter((key) => key.id !== id || key.user !== user.id);
    return wrapped({ success: true });
  }

  #publicApi({ path, headers, query }: Seen): Reply {
    const key = this.keys.find(({ secret }) => secret === headers['x-n8n-api-key']);
    if (!this.publicApiIsOn) return refusal(404, 'not found');
    const known = path === '/api/v1/workflows' || (path === '/api/v1/discover' && this.#version === '2.x');
    if (!known) return refusal(404, 'not found');
    if (key === undefined) return { status: 401, body: { message: 'unauthorized' } };
    if (path === '/api/v1/discover') return wrapped({ scopes: key.scopes });
    if (query.get('limit') === null) throw new Error('a page without its limit');
    const may = key.scopes.includes('workflow:list');
    return may
      ? { status: 200, body: { data: [], nextCursor: null } }
      : { status: 403, body: { message: 'Forbidden' } };
  }
}

function redacted({ id, label, scopes, expiresAt, secret }: ApiKey) {
  return { id, label, scopes, expiresAt, apiKey: `******${secret.slice(-4)}` };
}

function wrapped(data: unknown): Reply {
  return { status: 200, body: { data } };
}

function refusal(status: number, message: string): Reply {
  return { status, body: { code: status, message } };
}
