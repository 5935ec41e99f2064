// If this fails, the TypeScript library and the server do not mean the same, or a guard opens when something goes wrong.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  type Decided,
  fetchGuard,
  Guard,
  type GuardOptions,
  type Verdict,
  verdictOf,
} from '../../clients/typescript/src/index.ts';
import { OwnKey } from '../../clients/typescript/src/own-key.ts';
import { mintSecret } from '../../src/keys/secret.ts';
import { someKeys } from '../gateways/asking.ts';
import { makeKey } from '../rpc/cases.ts';
import { MisbehavingServer } from '../support/misbehaving-server.ts';
import { freePort } from '../support/process.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { BINDINGS, type Guarded } from './bindings.ts';

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-guard-'));
const keyFile = join(folder, 'guard.key');
afterAll(() => rmSync(folder, { recursive: true }));
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });
/** On a busy machine a call may take longer than a client would wait. */
const PATIENT = { deadlineMs: 20_000 };

describe('guards with a real server', () => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let keys: Awaited<ReturnType<typeof someKeys>>;
  let guard: Guard;
  let port: number;
  const guarded: (Guarded & { name: string; grpc: boolean })[] = [];
  const handled: Verdict[] = [];
  const decided: Decided[] = [];
  const start = () => startServer(database.url, database.folder, { GRPC_ADDR: `127.0.0.1:${port}` });
  beforeAll(async () => {
    port = await freePort();
    server = await start();
    keys = await someKeys(server.clients('grpc').admin);
    const { secret } = await makeKey(server.clients('grpc'), { scopes: ['apikeys:validate'] });
    const path = join(folder, 'real.key');
    writeFileSync(path, secret);
    const onDecided = (each: Decided) => void decided.push(each);
    guard = new Guard({ address: `127.0.0.1:${port}`, keyFile: path, onDecided, ...PATIENT });
    for (const { name, grpc, serve } of BINDINGS) {
      const served = await serve(guard, { scope: 'a:b' }, (verdict) => handled.push(verdict));
      guarded.push({ name, grpc, ...served });
    }
  });
  afterAll(async () => {
    for (const { stop } of guarded) await stop();
    guard.close();
    await server.stop();
    await database.drop();
  });
  /** The response of each framework: the status, or the gRPC code. */
  const says = (headers: Record<string, string>) =>
    Promise.all(
      guarded.map(async ({ send, grpc }) => {
        const told = await send(headers);
        return grpc ? told.grpc : told.status;
      }),
    );
  const all = (status: number, code: string) => guarded.map(({ grpc }) => (grpc ? code : status));

  it('admit a valid key and pass its owner to the handler', async () => {
    expect(await says(bearer(keys.good.secret))).toEqual(all(200, 'OK'));
    const facts = { id: keys.good.id, ownerId: 'acme', type: 'SERVICE', matchedScope: 'a:*' };
    expect(handled.length).toBe(guarded.length);
    for (const verdict of handled)
      expect(verdict).toMatchObject({ outcome: 'VALID', key: facts, answer: { secretSlot: 1 } });
    const { events } = await server.clients('grpc').admin.listAuditEvents({ keyId: keys.good.id });
    const validations = events.filter(({ method }) => method.endsWith('ValidateKey'));
    expect(validations.length).toBe(guarded.length);
    for (const event of validations)
      expect(event).toMatchObject({ requiredScope: 'a:b', clientIp: '127.0.0.1' });
  });

  it('deny every other request without calling the handler', async () => {
    const before = handled.length;
    const { revoked, disabled, expired, rotated, elsewhere } = keys;
    const other = await makeKey(server.clients('grpc'), { scopes: ['c:d'] });
    for (const { secret } of [revoked, disabled, expired, rotated])
      expect(await says(bearer(secret))).toEqual(all(401, 'UNAUTHENTICATED'));
    expect(await says({})).toEqual(all(401, 'UNAUTHENTICATED'));
    for (const { secret } of [elsewhere, other])
      expect(await says(bearer(secret))).toEqual(all(403, 'PERMISSION_DENIED'));
    expect(handled.length).toBe(before);
    const outcomes = [...new Set(decided.map(({ outcome }) => outcome))].slice(1);
    expect(outcomes).toEqual([
      ...['REVOKED', 'DISABLED', 'EXPIRED', 'ROTATED', 'NO_KEY'],
      ...['IP_NOT_ALLOWED', 'INSUFFICIENT_SCOPE'],
    ]);
  });

  it('count a limit down and then say when to retry', async () => {
    for (const { send, grpc, name } of guarded) {
      const rateLimits = [{ name: 'm', limit: 1n, window: { seconds: 60n } }];
      const { secret } = await makeKey(server.clients('grpc'), { scopes: ['a:b'], rateLimits } as never);
      expect((await send(bearer(secret))).headers.ratelimit, name).toMatch(/^"m";r=0;t=\d+$/);
      const told = await send(bearer(secret));
      expect(grpc ? told.grpc : told.status, name).toBe(grpc ? 'RESOURCE_EXHAUSTED' : 429);
      expect(told.headers.ratelimit, name).toMatch(/^"m";r=0;t=\d+$/);
      expect(Number(told.headers['retry-after']), name).toBeGreaterThan(0);
    }
  });

  it('deny a key right after its revocation', async () => {
    const { secret, id } = await makeKey(server.clients('grpc'), { scopes: ['a:b'] });
    expect(await says(bearer(secret))).toEqual(all(200, 'OK'));
    await server.clients('grpc').admin.revokeKey({ id, reason: 1 });
    expect(await says(bearer(secret))).toEqual(all(401, 'UNAUTHENTICATED'));
  });

  it('deny all requests while the server is down, and admit valid keys once it is back', async () => {
    const before = handled.length;
    await server.stop();
    expect(await says(bearer(keys.good.secret))).toEqual(all(503, 'UNAVAILABLE'));
    expect(handled.length).toBe(before);
    server = await start();
    expect(await says(bearer(keys.good.secret))).toEqual(all(200, 'OK'));
  });

  it('deny an address that guesses keys, with the wait of the server', async () => {
    for (let i = 0; i < 5; i++) await guarded[0]?.send(bearer(mintSecret()));
    expect(await says(bearer(keys.good.secret))).toEqual(all(429, 'RESOURCE_EXHAUSTED'));
    expect(decided.at(-1)).toMatchObject({ outcome: 'LOCKED_OUT' });
    expect(JSON.stringify(decided)).not.toContain('audit_v1_');
  });
});

describe('a guard', () => {
  const server = new MisbehavingServer();
  let address: string;
  const guards: Guard[] = [];
  beforeAll(async () => {
    address = (await server.start()).grpc;
    writeFileSync(keyFile, mintSecret());
  });
  afterEach(() => {
    for (const guard of guards.splice(0)) guard.close();
    vi.useRealTimers();
  });
  afterAll(() => server.stop());
  const made = (options: Partial<GuardOptions> = {}) => {
    const guard = new Guard({ address, keyFile, ...PATIENT, ...options });
    guards.push(guard);
    return guard;
  };
  const asked = (secret = mintSecret()) => ({
    header: (name: string) => (name === 'x-api-key' ? secret : undefined),
    peer: '127.0.0.1',
  });
  const good = { answer: { decision: 'DECISION_VALID', valid: true } };

  it('sends the questions of one turn in calls of a hundred, and returns each its own answer', async () => {
    const secrets = Array.from({ length: 250 }, () => mintSecret());
    const byKey = Object.fromEntries(
      secrets.map((secret, i) => [secret, { decision: 'DECISION_VALID', valid: true, keyId: `key-${i}` }]),
    );
    server.follow({ replies: [{ byKey }] });
    const decide = made({ batch: true }).route();
    const verdicts = await Promise.all(secrets.map((secret) => decide(asked(secret))));
    expect(verdicts.map(({ key }) => key?.id)).toEqual(secrets.map((_, i) => `key-${i}`));
    expect(server.seen.map(({ requests }) => requests.length)).toEqual([100, 100, 50]);
  });

  it('sends each question in its own call unless batching is on', async () => {
    server.follow({ replies: [good] });
    const decide = made().route();
    await Promise.all([1, 2, 3].map(() => decide(asked())));
    const methods = server.seen.map(({ method }) => method);
    expect(methods).toEqual(Array(3).fill('/apikey.v1.ApiKeyAuth/ValidateKey'));
  });

  it('replaces a connection that was lost without being closed', async () => {
    server.follow({ replies: [good] });
    const passing = new Set<Socket>();
    const way = createServer((socket) => {
      const onward = connect(Number(address.split(':')[1]), '127.0.0.1');
      for (const end of [socket, onward]) end.on('error', () => {});
      socket.pipe(onward).pipe(socket);
      passing.add(socket);
    });
    await new Promise<void>((resolve) => way.listen(0, '127.0.0.1', resolve));
    const { port } = way.address() as AddressInfo;
    vi.useFakeTimers({ toFake: ['performance'] });
    const decide = made({ address: `127.0.0.1:${port}`, deadlineMs: 1000 }).route();
    while (!(await decide(asked())).allowed);
    for (const socket of passing) socket.unpipe().pause();
    expect(await decide(asked())).toMatchObject({ outcome: 'UNAVAILABLE', detail: 'DEADLINE_EXCEEDED' });
    expect(passing.size).toBe(1);
    vi.advanceTimersByTime(2000);
    await decide(asked());
    while (!(await decide(asked())).allowed);
    expect(passing.size).toBe(2);
    for (const socket of passing) socket.destroy();
    way.close();
  });

  it('makes the same decision when the metrics hook throws', async () => {
    server.follow({ replies: [good] });
    const onDecided = () => {
      throw new Error('the metrics are away');
    };
    expect(await made({ onDecided }).route()(asked())).toMatchObject({ allowed: true });
  });

  it('warns once when it is misconfigured and has no metrics hook', async () => {
    server.follow({ callingKey: 'another', replies: [good] });
    const warnings: Error[] = [];
    const listener = (warning: Error) => void warnings.push(warning);
    process.on('warning', listener);
    const decide = made().route();
    for (let i = 0; i < 3; i++) expect(await decide(asked())).toMatchObject({ outcome: 'MISCONFIGURED' });
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', listener);
    expect(warnings.map(({ message }) => message)).toEqual([
      'apikeyd cannot be asked: UNAUTHENTICATED CREDENTIAL_INVALID',
    ]);
  });

  it('adds the state of the limits to an immutable response', async () => {
    const limits = [{ name: 'm', limit: '9', window: '60s', remaining: '8' }];
    server.follow({ replies: [{ answer: { ...good.answer, rateLimits: limits } }] });
    const handler = fetchGuard(made(), {}, () => Response.redirect('http://here/there'));
    const response = await handler(new Request('http://here/', { headers: { 'x-api-key': mintSecret() } }));
    expect([response.status, response.headers.get('ratelimit')]).toEqual([302, '"m";r=8;t=60']);
  });

  it('has no verdict for a request that it has not checked', () => {
    expect(() => verdictOf(new Request('http://here/'))).toThrow('no guard has let this request through');
  });

  it.each([
    ['address', { address: 'ftp://here' }],
    ['address', { address: '' }],
    ['deadlineMs', { deadlineMs: 0 }],
    ['deadlineMs', { deadlineMs: Number.NaN }],
    ['trustedHops', { trustedHops: -1 }],
    ['trustedHops', { trustedHops: 1.5 }],
    ['keyHeaders', { keyHeaders: [] }],
  ])('names %s when it is invalid: %o', (name, options) => {
    expect(() => made(options)).toThrow(new RegExp(`^${name}: `));
  });

  it.each([0, -1, 1.5, 1_000_000_001, Number.NaN])('refuses the cost %d', (cost) => {
    expect(() => made().route({ cost })).toThrow(/^cost: /);
  });

  it.each([
    ['is not there', undefined],
    ['is empty', ' \n'],
    ['holds what is no key', 'audit_v1_two\naudit_v1_lines'],
  ])('names its key file when it %s, and quotes nothing from it', (_, content) => {
    const path = join(folder, 'odd.key');
    rmSync(path, { force: true });
    if (content !== undefined) writeFileSync(path, content);
    expect(() => made({ keyFile: path })).toThrow(`no key can be read from ${path}`);
  });

  it('calls with a new key within a second of its change in the file, though the old one still works', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const path = join(folder, 'changing.key');
    writeFileSync(path, 'one\n');
    const key = new OwnKey(path);
    writeFileSync(path, 'two\n');
    vi.advanceTimersByTime(999);
    expect(key.current).toBe('one');
    vi.advanceTimersByTime(1);
    expect(key.current).toBe('two');
  });
});
