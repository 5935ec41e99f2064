// If this fails, replacing a secret costs its users calls, or lets an old secret live on.
import { setTimeout as delay } from 'node:timers/promises';
import { durationFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { mintSecret } from '../../src/keys/secret.ts';
import { decide, makeKey, nameOf, onEachStore } from '../rpc/cases.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { type ServerProcess, spawnServer } from '../support/process.ts';
import { type Clients, clientsOf, freshDatabase } from '../support/server.ts';

const CLIENTS = 20;
const ROTATIONS = 20;
const CALLS = process.env.LONG ? 50_000 : 4_000;
const HOUR_MS = 3_600_000;
const RETRY_MS = 100;

onEachStore('rotation under load on %s', (kind) => {
  const database = freshDatabase(kind, inject('mongoUri'));
  const admin = mintSecret();
  let server: ServerProcess;
  let clients: Clients;
  const start = async (settings: Record<string, string> = {}) => {
    server = await spawnServer(database.url, database.folder, {
      ADMIN_BOOTSTRAP_KEY: admin,
      ROTATION_MIN_GRACE_SECONDS: '1',
      ...settings,
    });
    clients = clientsOf(server.ports, 'grpc', admin);
  };
  beforeAll(() => start());
  afterAll(async () => {
    expect(await server.end('SIGTERM')).toBe(0);
    await database.drop();
  });

  /** Retries while the server is unreachable, like a client with a retry policy. */
  const asked = async (secret: string): Promise<string> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return nameOf((await decide(clients, secret)).decision);
      } catch (error) {
        const { code, rawMessage } = ConnectError.from(error);
        // The stopping server refused or reset the stream: a retry is safe, and gRPC clients do it.
        const reset = code === Code.Canceled || rawMessage.includes('NGHTTP2');
        const away = code === Code.Unavailable || code === Code.Aborted || reset;
        if (attempt * RETRY_MS > HANGS_MS || !away) throw error;
        await delay(RETRY_MS);
      }
    }
  };

  /** Clients that alternate between the working secrets, and now and then try one that must not work. */
  const load = (first: string) => {
    const state = { working: [first], dead: [] as string[], calls: 0, over: false, wrong: [] as string[] };
    const inFlight = new Map<string, number>();
    const one = async (secret: string, expected: string) => {
      inFlight.set(secret, (inFlight.get(secret) ?? 0) + 1);
      const decision = await asked(secret);
      inFlight.set(secret, (inFlight.get(secret) ?? 0) - 1);
      state.calls++;
      if (decision !== expected) state.wrong.push(`${decision}, not ${expected}`);
    };
    const lanes = Array.from({ length: CLIENTS }, async () => {
      for (let i = 0; !state.over; i++) {
        const { working, dead } = state;
        await one(working[i % working.length] ?? '', 'VALID');
        const late = dead[i % Math.max(dead.length, 1)];
        if (late !== undefined && i % 10 === 0) await one(late, 'ROTATED');
      }
    });
    const until = async (holds: () => boolean) => {
      while (!holds()) {
        // A lane that failed ends the test at once.
        await Promise.race([delay(5), Promise.all(lanes)]);
      }
    };
    return {
      state,
      done: async (more: number) => {
        const enough = state.calls + more;
        await until(() => state.calls >= enough);
      },
      /** No call with it is under way any more. */
      unused: (secret: string) => until(() => (inFlight.get(secret) ?? 0) === 0),
      stop: async () => {
        state.over = true;
        await Promise.all(lanes);
      },
    };
  };

  it(`denies none of ${CALLS} calls during a grace period, and all after it`, async () => {
    const { id, secret } = await makeKey(clients);
    const { state, done, unused, stop } = load(secret);
    let present = secret;
    for (let i = 0; i < ROTATIONS; i++) {
      const { secret: next } = await clients.admin.rotateKey({ id, grace: durationFromMs(HOUR_MS) });
      const old = present;
      present = next;
      state.working = [old, next];
      await done(CALLS / ROTATIONS);
      state.working = [next];
      await unused(old);
      await clients.admin.completeRotation({ id });
      state.dead.push(old);
    }
    await stop();
    expect(state.wrong).toEqual([]);
    expect(state.calls).toBeGreaterThanOrEqual(CALLS);
  });

  it('keeps both secrets over a restart during the grace period', async () => {
    const { id, secret } = await makeKey(clients);
    const { state, done, stop } = load(secret);
    const { secret: next } = await clients.admin.rotateKey({ id });
    state.working = [secret, next];
    await done(500);
    const { ports } = server;
    expect(await server.end('SIGTERM')).toBe(0);
    await start({ GRPC_ADDR: `127.0.0.1:${ports.grpc}` });
    await done(500);
    await stop();
    expect(state.wrong).toEqual([]);
  });

  it('ends the grace period at its time, also for a cached record', async () => {
    // On a busy machine the first answer may come after the end: then the grace was too short to show anything.
    for (let [graceMs, shown] = [1_500, false]; !shown; graceMs *= 2) {
      const { id, secret } = await makeKey(clients);
      const { key } = await clients.admin.rotateKey({ id, grace: durationFromMs(graceMs) });
      const end = Number(key?.rotation?.expireTime && timestampMs(key.rotation.expireTime));
      const answers: { begun: number; ended: number; decision: string }[] = [];
      while (Date.now() < end + 300 || answers.length === 0) {
        const begun = Date.now();
        const decision = await asked(secret);
        answers.push({ begun, ended: Date.now(), decision });
      }
      expect(answers.filter(({ begun, decision }) => begun >= end && decision !== 'ROTATED')).toEqual([]);
      expect(answers.filter(({ ended, decision }) => ended < end && decision !== 'VALID')).toEqual([]);
      shown = answers.some(({ ended }) => ended < end) && answers.some(({ begun }) => begun >= end);
    }
  });
});
