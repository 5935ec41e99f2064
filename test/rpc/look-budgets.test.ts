// If this fails, a client that guesses keys behind a router locks its neighbours out, or fills the log without bound.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IpAllowlist, networkOf } from '../../src/keys/ip.ts';
import { hashSecret, mintSecret } from '../../src/keys/secret.ts';
import { LookBudgets } from '../../src/rpc/look-budgets.ts';
import { NetworkLockout } from '../../src/store/network-lockout.ts';
import { openStore } from '../../src/store/open-store.ts';
import { LEASE, LOCKOUT } from '../store/contract/harness.ts';
import { TestClock } from '../support/clock.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { failureOf, makeKey } from './cases.ts';

const NET = '192.0.2.1';

describe('the budget of wrong credentials of an address', () => {
  it('allows a locked-out address 10 look-ups a minute, and known valid keys beyond them', () => {
    const clock = new TestClock();
    const budgets = new LookBudgets(clock);
    const good = hashSecret(mintSecret());
    for (let i = 0; i < 10; i++) expect(budgets.lookWaitMs(NET, hashSecret(mintSecret()))).toBe(0);
    expect(budgets.lookWaitMs(NET, good)).toBe(6_000);
    budgets.good(NET, good);
    expect(budgets.lookWaitMs(NET, good)).toBe(0);
    // From an address that a good one came from, also one that was not seen yet has a share, by its beginning.
    expect(budgets.lookWaitMs(NET, `aa${'0'.repeat(62)}`)).toBe(0);
    expect(budgets.lookWaitMs(NET, `aa${'1'.repeat(62)}`)).toBe(6_000);
    expect(budgets.lookWaitMs(NET, `ab${'1'.repeat(62)}`)).toBe(0);
    clock.advance(6_000);
    expect(budgets.lookWaitMs(NET, `aa${'1'.repeat(62)}`)).toBe(0);
    clock.advance(3_600_001);
    expect(budgets.wasGood(good)).toBe(false);
  });

  it('allows an event for each of 1 000 failures at once and 100 a second', () => {
    const clock = new TestClock();
    const budgets = new LookBudgets(clock);
    for (let i = 0; i < 1_000; i++) {
      expect(budgets.failureWaitMs(NET)).toBe(0);
      budgets.failed(NET);
    }
    expect(budgets.failureWaitMs(NET)).toBeGreaterThan(0);
    expect(budgets.failureWaitMs('192.0.2.2')).toBe(0);
    clock.advance(1_000);
    for (let i = 0; i < 100; i++) budgets.failed(NET);
    expect(budgets.failureWaitMs(NET)).toBeGreaterThan(0);
  });
});

describe('networks', () => {
  it('an IPv6 address counts as its /64', () => {
    expect(networkOf('192.0.2.7')).toBe('192.0.2.7');
    expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64');
    expect(networkOf('2001:db8:1:2::9')).toBe('2001:db8:1:2::/64');
    expect(networkOf('2001:db8::1')).toBe('2001:db8::/64');
    expect(networkOf('::1')).toBe('::/64');
    expect(networkOf('fe80::')).toBe('fe80::/64');
    expect(networkOf('1:2:3::')).toBe('1:2:3::/64');
  });

  it('::/0 contains no IPv4 address, and 0.0.0.0/0 no IPv6 address', () => {
    expect(new IpAllowlist(['::/0']).allows('192.0.2.7')).toBe(false);
    expect(new IpAllowlist(['::/0']).allows('2001:db8::1')).toBe(true);
    expect(new IpAllowlist(['0.0.0.0/0']).allows('2001:db8::1')).toBe(false);
    expect(new IpAllowlist(['0.0.0.0/0']).allows('192.0.2.7')).toBe(true);
  });

  it('a client with 2^64 addresses has five attempts', async () => {
    const database = freshDatabase('sqlite', '');
    const clock = new TestClock();
    const store = await openStore({
      url: database.url,
      clock,
      lockout: LOCKOUT,
      lease: LEASE,
      warn: () => {},
    });
    expect(store.lockout).toBeInstanceOf(NetworkLockout);
    for (let i = 1; i <= 5; i++) await store.lockout.fail(`2001:db8::${i}`);
    expect(store.lockout.lockedForMs('2001:db8::ffff')).toBe(900_000);
    expect(store.lockout.lockedForMs('2001:db8:0:1::1')).toBe(0);
    // The row rides in the next transaction.
    await store.ping();
    expect((await store.lockout.list({ size: 10, after: undefined })).items).toMatchObject([
      { clientIp: '2001:db8::/64' },
    ]);
    expect(await store.lockout.clear('2001:db8::7')).toBe(true);
    expect(store.lockout.lockedForMs('2001:db8::1')).toBe(0);
    await store.close();
    await database.drop();
  });
});

describe('a server', () => {
  const database = freshDatabase('sqlite', '');
  const clock = new TestClock(Date.now());
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, {}, clock);
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });

  it('calls without a credential have events up to a bound, beyond it they are counted, and valid callers are served', async () => {
    const admin = server.clients('grpc').admin;
    const eventsOf = async () => Number((await admin.getStats({})).auditEvents);
    const other = await makeKey(server.clients('grpc'), { scopes: ['apikeys:audit'] });
    const before = await eventsOf();
    const nobody = server.clients('grpc', '').admin;
    const all = await Promise.all(Array.from({ length: 1_200 }, () => failureOf(nobody.getStats({}))));
    const reasons = (reason: string) => all.filter((failure) => failure.reason === reason).length;
    expect([reasons('CREDENTIAL_MISSING'), reasons('TOO_MANY_WRONG_CREDENTIALS')]).toEqual([1_000, 200]);
    expect(await failureOf(server.clients('grpc', mintSecret()).admin.getStats({}))).toMatchObject({
      code: 'ResourceExhausted',
      reason: 'TOO_MANY_WRONG_CREDENTIALS',
    });
    // In the cache, or not: a credential that was good lately.
    await server.clients('grpc').admin.getStats({});
    expect(await failureOf(server.clients('grpc', other.secret).admin.getStats({}))).toMatchObject({
      reason: 'TOO_MANY_WRONG_CREDENTIALS',
    });
    clock.advance(1_000);
    await server.clients('grpc', other.secret).admin.getStats({});
    let gap = 0n;
    let looks = 0;
    for (; gap < 202n; looks++) {
      const { events } = await admin.listAuditEvents({ outcome: 'GAP' });
      gap = events.reduce((sum, { refusedCalls }) => sum + refusedCalls, 0n);
    }
    // Each look for the gap is an event, too.
    expect((await eventsOf()) - before - looks).toBeLessThan(1_100);
  });
});
