// If this fails, callers that keep caches of their own miss changes, or wait for them.
import { Code, ConnectError } from '@connectrpc/connect';
import { expect, it, vi } from 'vitest';
import { KeyChange, type WatchKeysResponse } from '../../gen/apikey/v1/auth_pb.ts';
import { HANGS_MS } from '../support/hangs.ts';
import type { Clients } from '../support/server.ts';
import { failureOf, forBothHttp2Servers, makeKey } from './cases.ts';

const watching = (clients: Clients, sinceRevision?: bigint) => {
  const seen: WatchKeysResponse[] = [];
  const stop = new AbortController();
  const request = sinceRevision === undefined ? {} : { sinceRevision };
  const over = (async () => {
    try {
      for await (const message of clients.auth.watchKeys(request, { signal: stop.signal }))
        seen.push(message);
      return undefined;
    } catch (error) {
      return ConnectError.from(error);
    }
  })();
  const changes = () => seen.filter(({ change }) => change !== KeyChange.UNSPECIFIED);
  const end = async () => {
    stop.abort();
    return (await over)?.code;
  };
  return { seen, changes, over, end };
};

forBothHttp2Servers((mount) => {
  const { clientsFor } = mount;

  it('WatchKeys sends every change in order, and heartbeats', async () => {
    const { clients } = mount;
    const stream = watching(clients);
    await vi.waitFor(() => expect(stream.seen.length).toBeGreaterThan(0), HANGS_MS);
    const { id } = await makeKey(clients);
    await clients.admin.rotateKey({ id });
    await clients.admin.updateKey({ key: { id, name: 'n' }, updateMask: { paths: ['name'] } });
    await clients.admin.expireKey({ id });
    await clients.admin.revokeKey({ id, reason: 1 });
    await vi.waitFor(() => expect(stream.changes()).toHaveLength(5), HANGS_MS);
    const { CREATED, ROTATED, UPDATED, EXPIRED, REVOKED } = KeyChange;
    expect(stream.changes().map(({ change }) => change)).toEqual([
      CREATED,
      ROTATED,
      UPDATED,
      EXPIRED,
      REVOKED,
    ]);
    expect(new Set(stream.changes().map(({ keyId }) => keyId))).toEqual(new Set([id]));
    const revisions = stream.changes().map(({ revision }) => revision);
    expect(revisions).toEqual(revisions.map((_, i) => (revisions[0] ?? 0n) + BigInt(i)));
    const beats = stream.seen.length;
    await vi.waitFor(() => expect(stream.seen.length).toBeGreaterThan(beats), HANGS_MS);
    expect(stream.seen.at(-1)).toMatchObject({
      revision: revisions[4],
      change: KeyChange.UNSPECIFIED,
      keyId: '',
    });
    expect(await stream.end()).toBe(Code.Canceled);
  });

  it('WatchKeys continues from the revision of the caller without a gap', async () => {
    const { clients } = mount;
    const { key } = await makeKey(clients);
    const made: string[] = [];
    const create = async () => void made.push((await makeKey(clients)).id);
    const seen: string[] = [];
    let at = key.revision;
    // Comes back again and again while keys are made.
    const making = (async () => {
      for (let i = 0; i < 20; i++) await create();
    })();
    for (let i = 0; i < 4; i++) {
      const stream = watching(clients, at);
      await vi.waitFor(() => expect(stream.changes().length).toBeGreaterThan(0), HANGS_MS);
      await stream.end();
      for (const { revision, keyId } of stream.changes()) {
        expect(revision).toBe(at + 1n);
        at = revision;
        seen.push(keyId);
      }
      if (i < 3) await create();
    }
    await making;
    const last = watching(clients, at);
    await vi.waitFor(() => expect(seen.length + last.changes().length).toBe(made.length), HANGS_MS);
    await last.end();
    expect([...seen, ...last.changes().map(({ keyId }) => keyId)].sort()).toEqual(made.sort());
  });

  it('WatchKeys sends RESET for a forgotten revision, and refuses an invalid one', async () => {
    const { clients } = mount;
    const stream = watching(clients, 1_000_000_000n);
    await vi.waitFor(() => expect(stream.seen[0]?.change).toBe(KeyChange.RESET), HANGS_MS);
    await stream.end();
    const wrong = await watching(clients, -1n).over;
    expect(wrong?.code).toBe(Code.InvalidArgument);
    const auditor = clientsFor((await makeKey(clients, { scopes: ['apikeys:audit'] })).secret);
    expect((await watching(auditor).over)?.code).toBe(Code.PermissionDenied);
    const validator = clientsFor((await makeKey(clients, { scopes: ['apikeys:validate'] })).secret);
    expect(await failureOf(validator.admin.getStats({}))).toMatchObject({ code: 'PermissionDenied' });
    const allowed = watching(validator);
    await vi.waitFor(() => expect(allowed.seen.length).toBeGreaterThan(0), HANGS_MS);
    await allowed.end();
  });
});
