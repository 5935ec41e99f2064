// If this fails, a backend with the TypeScript library admits requests that it must deny, or denies valid ones.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Decided, Guard } from '../../clients/typescript/src/index.ts';
import { addressFromRight } from '../../clients/typescript/src/question.ts';
import { MisbehavingServer } from '../support/misbehaving-server.ts';
import { freePort } from '../support/process.ts';
import { BINDINGS, type Binding, type Guarded, type Told } from './bindings.ts';
import { conformance, type Expected, type Step, type Vector } from './vectors.ts';

const SAME_BY_GRPC = ['ratelimit', 'ratelimit-policy', 'retry-after'];
/** One of each kind; the others are asked all of it in the long run, and meet a real server in typescript.test.ts. */
const QUICK = ['fetch', 'Express', 'grpc-js'];
const SECRET = /audit_v1_|k{1025}/;

/** One framework: a misbehaving server, and a handler behind the guard of a vector. */
class Run {
  readonly #folder = mkdtempSync(join(tmpdir(), 'apikeyd-guard-'));
  readonly #keyFile = join(this.#folder, 'guard.key');
  readonly #server = new MisbehavingServer();
  readonly #binding: Binding;
  #address = '';
  #decide: ReturnType<Guard['route']> | undefined;
  #decided: Decided[] = [];
  #handled = 0;
  #guarded: Guarded | undefined;

  constructor(binding: Binding) {
    this.#binding = binding;
  }

  async start(): Promise<void> {
    this.#address = (await this.#server.start()).grpc;
    const route: Guard['route'] = () => (asked) => this.#decide?.(asked) ?? Promise.reject(new Error('idle'));
    this.#guarded = await this.#binding.serve({ route } as Guard, {}, (verdict) => {
      this.#handled += verdict.allowed ? 1 : 0;
    });
  }

  async of({ name, guard: options = {}, only, unreachable, steps }: Vector): Promise<void> {
    if (only === 'http' && this.#binding.grpc) return;
    writeFileSync(this.#keyFile, `${conformance.callingKey}\n`);
    const { scope, cost, ...rest } = options;
    const guard = new Guard({
      deadlineMs: 10_000,
      ...rest,
      address: unreachable ? `127.0.0.1:${await freePort()}` : this.#address,
      keyFile: this.#keyFile,
      onDecided: (decided) => this.#decided.push(decided),
    });
    this.#decide = guard.route({
      ...(scope === undefined ? {} : { scope }),
      ...(cost === undefined ? {} : { cost }),
    });
    try {
      for (const step of steps) await this.#step(step);
    } catch (error) {
      throw new Error(`${this.#binding.name}: ${name}: ${error}`, { cause: error });
    } finally {
      guard.close();
    }
  }

  async stop(): Promise<void> {
    await this.#guarded?.stop();
    await this.#server.stop();
    rmSync(this.#folder, { recursive: true });
  }

  async #step({ keyFile, server, requests, calls, method, sees, minGapMs = 0 }: Step): Promise<void> {
    if (keyFile === null) rmSync(this.#keyFile);
    if (typeof keyFile === 'string') {
      writeFileSync(`${this.#keyFile}.new`, keyFile);
      renameSync(`${this.#keyFile}.new`, this.#keyFile);
    }
    this.#server.follow(server);
    this.#decided = [];
    this.#handled = 0;
    const told = await Promise.all(requests.map(({ headers }) => this.#guarded?.send(headers)));
    for (const [i, { expect: expected }] of requests.entries()) check(told[i] as Told, expected);
    const expected = requests.map((request) => request.expect);
    expect(this.#handled).toBe(expected.filter(({ handled }) => handled).length);
    const outcomes = this.#decided.map(({ outcome }) => outcome);
    expect(outcomes.sort()).toEqual(expected.map(({ outcome }) => outcome).sort());
    expect(JSON.stringify([told, this.#decided])).not.toMatch(SECRET);
    const { seen } = this.#server;
    expect(seen.length).toBeGreaterThanOrEqual(calls.min);
    expect(seen.length).toBeLessThanOrEqual(calls.max);
    if (method !== undefined)
      for (const call of seen) expect(call.method).toBe(`/apikey.v1.ApiKeyAuth/${method}`);
    if (sees !== undefined) expect(seen.at(-1)?.requests[0]).toMatchObject(sees);
    const [first, second] = seen;
    if (minGapMs > 0) expect((second?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThanOrEqual(minGapMs);
  }
}

function check(told: Told, expected: Expected): void {
  const { status, grpc, headers = {}, headersMatch = {}, absent = [], body } = expected;
  const byHttp = told.grpc === undefined;
  const holds = ([name]: readonly [string, string]) => byHttp || SAME_BY_GRPC.includes(name);
  expect(byHttp ? told.status : told.grpc).toBe(byHttp ? status : grpc);
  expect(told.headers).toMatchObject(Object.fromEntries(Object.entries(headers).filter(holds)));
  for (const [name, pattern] of Object.entries(headersMatch))
    expect(told.headers[name]).toMatch(new RegExp(pattern));
  expect(Object.keys(told.headers).filter((name) => absent.includes(name))).toEqual([]);
  if (body === undefined) return;
  expect(byHttp ? JSON.parse(told.body) : { error: told.body }).toEqual(body);
  if (!byHttp) return;
  expect(told.headers['content-type']).toMatch(/^application\/json(;|$)/);
  expect(told.headers['cache-control']).toBe('no-store');
}

describe('a guard in each framework', () => {
  const bindings = BINDINGS.filter(({ name }) => process.env.LONG === '1' || QUICK.includes(name));
  const runs = bindings.map((binding) => new Run(binding));
  beforeAll(async () => void (await Promise.all(runs.map((run) => run.start()))));
  afterAll(async () => void (await Promise.all(runs.map((run) => run.stop()))));
  it.each(conformance.vectors)('$name', async (vector) => {
    const ended = await Promise.allSettled(runs.map((run) => run.of(vector)));
    for (const end of ended) if (end.status === 'rejected') throw end.reason;
  });
});

describe('a guard', () => {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-guard-'));
  const keyFile = join(folder, 'guard.key');
  let guard: Guard;
  beforeAll(() => {
    writeFileSync(keyFile, conformance.callingKey);
    guard = new Guard({ address: '127.0.0.1:1', keyFile });
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it.each(conformance.requiredScopes)('accepts the scope $scope: $ok', ({ scope, ok }) => {
    const made = () => guard.route({ scope });
    if (ok) made();
    else expect(made).toThrow(/^scope: /);
  });

  it.each(conformance.addresses)(
    'finds $clientIp $trustedHops from the right of "$forwardedFor"',
    ({ forwardedFor, trustedHops, clientIp }) => {
      expect(addressFromRight(forwardedFor, trustedHops) ?? null).toBe(clientIp);
    },
  );
});
