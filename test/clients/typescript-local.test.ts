// If this fails, a guard decides by itself although its lease is over, or by facts that are not true any more, or its
// decisions never reach the audit.
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs, timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { describe, expect, it } from 'vitest';
import { LocalKeys } from '../../clients/typescript/src/local-keys.ts';
import { Decision, SyncKeysResponseSchema, ValidateKeyResponseSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { SecretSlot } from '../../gen/apikey/v1/key_pb.ts';
import { nameOf } from '../rpc/cases.ts';
import { TestClock } from '../support/clock.ts';

const SECRET = `audit_v1_${'s'.repeat(22)}`;
const LEASE_MS = 1_000;

type Answer = MessageInitShape<typeof SyncKeysResponseSchema>;
type Facts = NonNullable<MessageInitShape<typeof ValidateKeyResponseSchema>['facts']>;

/** Local keys with a lease, and what a server would say. */
class Scene {
  readonly clock = new TestClock();
  readonly warnings: string[] = [];
  readonly keys = new LocalKeys(3, this.clock, (text) => void this.warnings.push(text));

  /** A call that was sent `tookMs` before its answer. */
  sync(answer: Answer = {}, tookMs = 0) {
    const request = this.keys.request();
    const [monotonic, wall] = [this.clock.monotonic(), this.clock.now()];
    this.clock.advance(tookMs);
    this.keys.apply(
      request,
      create(SyncKeysResponseSchema, {
        epoch: 'e',
        revision: 5n,
        grantId: 'g',
        lease: durationFromMs(LEASE_MS),
        serverTime: timestampFromMs(this.clock.now()),
        lockedAddressesComplete: true,
        ...answer,
      }),
      monotonic,
      wall,
    );
    return request;
  }

  fill(facts: Facts = {}, { secret = SECRET, keyId = 'k', sent = this.keys.generation } = {}) {
    const { decision, key } = { decision: Decision.VALID, key: keyId };
    const answer = create(ValidateKeyResponseSchema, {
      decision,
      valid: true,
      keyId: key,
      ownerId: 'o',
      keyType: 3,
      facts: { epoch: 'e', scopes: ['traces:*'], secretSlot: SecretSlot.CURRENT, revision: 5n, ...facts },
    });
    this.keys.keep(secret, answer, sent);
  }

  ask(scope: string | undefined = 'traces:read', ip = '10.1.2.3', secret = SECRET) {
    return this.keys.decide(secret, scope, ip)?.outcome;
  }

  static primed(facts: Facts = {}): Scene {
    const scene = new Scene();
    scene.sync();
    scene.fill(facts);
    return scene;
  }
}

describe('a lease', () => {
  it('is needed for a decision, and facts for each key', () => {
    const scene = new Scene();
    scene.fill();
    expect(scene.ask()).toBeUndefined();
    scene.sync();
    expect(scene.ask()).toBeUndefined();
    scene.fill();
    expect(scene.ask()).toBe('VALID');
    expect(scene.keys.decide(SECRET, 'traces:read', '')?.local).toBe(true);
    expect(scene.ask('traces:read', '10.1.2.3', `${SECRET}x`)).toBeUndefined();
  });

  it('runs from the start of the call that got it', () => {
    const scene = new Scene();
    scene.sync({}, 400);
    scene.fill();
    scene.clock.advance(599);
    expect(scene.ask()).toBe('VALID');
    scene.clock.advance(1);
    expect(scene.ask()).toBeUndefined();
  });

  it('is over when either clock says so, and when the wall clock was set back', () => {
    const forward = Scene.primed();
    forward.clock.step(LEASE_MS);
    expect(forward.ask()).toBeUndefined();
    const back = Scene.primed();
    back.clock.step(-1);
    expect(back.ask()).toBeUndefined();
    const passed = Scene.primed();
    passed.clock.advance(LEASE_MS);
    passed.clock.step(-LEASE_MS);
    expect(passed.ask()).toBeUndefined();
  });

  it('is none where the server lends none, and where the clocks are 5 s apart, which is said once', () => {
    const none = new Scene();
    none.sync({ lease: durationFromMs(0) });
    none.fill();
    expect(none.ask()).toBeUndefined();
    for (const off of [-5_000, 5_000]) {
      const scene = new Scene();
      for (let i = 0; i < 2; i++) scene.sync({ serverTime: timestampFromMs(scene.clock.now() + off) });
      scene.fill();
      expect(scene.ask()).toBeUndefined();
      expect(scene.warnings).toEqual([
        `apikeyd: this clock is ${-off / 1000} s ahead of the server's: no local decisions`,
      ]);
    }
  });

  it('that ends while the process is stopped takes the decision back', () => {
    const scene = Scene.primed();
    let looks = 0;
    const now = scene.clock.now.bind(scene.clock);
    scene.clock.now = () => {
      if (++looks === 2) scene.clock.advance(LEASE_MS);
      return now();
    };
    expect(scene.ask()).toBeUndefined();
    expect(scene.keys.request().uses).toEqual([]);
  });
});

describe('facts', () => {
  it('go with a change of their key, a reset and another epoch, and stay otherwise', () => {
    const scene = Scene.primed();
    scene.sync({ revision: 6n, changes: [{ revision: 6n, keyId: 'another' }] });
    expect(scene.ask()).toBe('VALID');
    scene.sync({ revision: 7n, changes: [{ revision: 7n, keyId: 'k' }] });
    expect(scene.ask()).toBeUndefined();
    scene.fill();
    expect(scene.ask()).toBe('VALID');
    scene.sync({ revision: 8n, reset: true });
    expect(scene.ask()).toBeUndefined();
    scene.fill();
    scene.sync({ epoch: 'f', revision: 2n });
    expect(scene.ask()).toBeUndefined();
    expect(scene.keys.revision).toBe(2n);
    scene.fill();
    expect(scene.ask(), 'facts of the former epoch').toBeUndefined();
  });

  it('that were asked for before a sync was applied are not kept', () => {
    const scene = Scene.primed();
    const sent = scene.keys.generation;
    scene.sync({ revision: 6n, changes: [{ revision: 6n, keyId: 'k' }] });
    scene.fill({}, { sent });
    expect(scene.ask()).toBeUndefined();
  });

  it('are asked for as of the cursor, which never moves back within an epoch', () => {
    const scene = Scene.primed();
    scene.sync({ revision: 9n });
    scene.sync({ revision: 7n });
    expect(scene.keys.revision).toBe(9n);
    expect(scene.keys.request()).toMatchObject({ revision: 9n, epoch: 'e', lastGrantId: 'g' });
  });

  it('of the secret that was not used for longest make room', () => {
    const scene = new Scene();
    scene.sync();
    for (const n of [2, 1, 3]) scene.fill({}, { secret: `${SECRET}${n}`, keyId: `k${n}` });
    scene.ask('traces:read', '', `${SECRET}2`);
    scene.fill({}, { secret: `${SECRET}4`, keyId: 'k4' });
    expect([1, 2, 3, 4].map((n) => scene.ask('traces:read', '', `${SECRET}${n}`))).toEqual([
      undefined,
      'VALID',
      'VALID',
      'VALID',
    ]);
  });
});

describe('a decision', () => {
  const at = (scene: Scene, ms: number) => timestampFromMs(scene.clock.now() + ms);

  it('ends with the key, by the clock of the server', () => {
    const scene = new Scene();
    scene.sync({ serverTime: at(scene, 2_000) });
    scene.fill({ expireTime: at(scene, 2_500) });
    scene.clock.advance(499);
    expect(scene.ask()).toBe('VALID');
    scene.clock.advance(1);
    expect(scene.ask()).toBe('EXPIRED');
    expect(Scene.primed({ expired: true }).ask()).toBe('EXPIRED');
  });

  it('ends with the grace of a previous secret', () => {
    const scene = new Scene();
    scene.sync();
    scene.fill({ secretSlot: SecretSlot.PREVIOUS, previousSecretExpireTime: at(scene, 300) });
    scene.clock.advance(299);
    expect(scene.ask()).toBe('VALID');
    scene.clock.advance(1);
    expect(scene.ask()).toBe('ROTATED');
    const current = Scene.primed({ previousSecretExpireTime: at(scene, -1_000) });
    expect(current.ask()).toBe('VALID');
  });

  it('follows the rules of the server in their order', () => {
    const scene = Scene.primed({ ipAllowlist: ['10.1.2.3/8', '2001:db8::7/32'] });
    expect(scene.ask('traces:read', '10.9.9.9')).toBe('VALID');
    expect(scene.ask('traces:read', '2001:db8::1')).toBe('VALID');
    expect(scene.ask('traces:read', '11.0.0.1')).toBe('IP_NOT_ALLOWED');
    expect(scene.ask('traces:read', '')).toBe('IP_NOT_ALLOWED');
    expect(scene.ask('metrics:read', '11.0.0.1')).toBe('IP_NOT_ALLOWED');
    expect(scene.ask('metrics:read')).toBe('INSUFFICIENT_SCOPE');
    expect(scene.ask(undefined)).toBe('VALID');
    expect(Scene.primed({ scopes: ['*'] }).ask('apikeys:admin')).toBe('INSUFFICIENT_SCOPE');
    const { key } = scene.keys.decide(SECRET, 'traces:read', '10.9.9.9') ?? {};
    expect(key).toEqual({ id: 'k', type: 'SERVICE', ownerId: 'o', matchedScope: 'traces:*' });
  });

  it('about an address that is, or may be, locked out is left to the server', () => {
    const scene = Scene.primed();
    scene.sync({ lockedAddresses: ['10.1.2.3', '2001:db8:0:1::/64'] });
    expect(scene.ask()).toBeUndefined();
    expect(scene.ask('traces:read', '2001:db8:0:1:ffff::7')).toBeUndefined();
    expect(scene.ask('traces:read', '2001:0db8:0000:0001::9')).toBeUndefined();
    expect(scene.ask('traces:read', '2001:db8:0:2::9')).toBe('VALID');
    expect(scene.ask('traces:read', '')).toBe('VALID');
    scene.sync({ lockedAddressesComplete: false });
    expect(scene.ask('traces:read', '10.4.4.4')).toBeUndefined();
    expect(scene.ask('traces:read', '')).toBe('VALID');
  });
});

describe('the journal', () => {
  const usesOf = (scene: Scene) =>
    scene.keys
      .request()
      .uses.map(({ sequence, decision, requiredScope, clientIp, count }) => [
        Number(sequence),
        nameOf(decision),
        requiredScope,
        clientIp,
        Number(count),
      ]);

  it('adds equal decisions up, and sends each use until it is confirmed', () => {
    const scene = Scene.primed();
    for (let i = 0; i < 3; i++) scene.ask();
    scene.ask('traces:read', '');
    scene.ask('metrics:read');
    const uses = [
      [1, 'VALID', 'traces:read', '10.1.2.3', 3],
      [2, 'VALID', 'traces:read', '', 1],
      [3, 'INSUFFICIENT_SCOPE', 'metrics:read', '10.1.2.3', 1],
    ];
    expect(usesOf(scene)).toEqual(uses);
    scene.ask();
    expect(usesOf(scene)).toEqual([...uses, [4, 'VALID', 'traces:read', '10.1.2.3', 1]]);
    scene.sync();
    expect(usesOf(scene)).toEqual([]);
  });

  it('keeps what was decided while a call was under way for the next one', () => {
    const scene = Scene.primed();
    scene.ask();
    const request = scene.keys.request();
    scene.ask();
    scene.keys.confirm(request.uses);
    expect(usesOf(scene)).toEqual([[2, 'VALID', 'traces:read', '10.1.2.3', 1]]);
  });

  it('splits uses at the hour, with the times of the first and the last decision', () => {
    const scene = new Scene();
    const hour = 3_600_000;
    const untilHour = hour - (scene.clock.now() % hour);
    scene.clock.advance(untilHour - 100);
    scene.sync();
    scene.fill();
    const first = scene.clock.now();
    scene.ask();
    scene.clock.advance(60);
    scene.ask();
    scene.clock.advance(60);
    scene.ask();
    const times = scene.keys
      .request()
      .uses.map(({ firstTime, lastTime }) =>
        [firstTime, lastTime].map((time) => time && timestampMs(time) - first),
      );
    expect(times).toEqual([
      [0, 60],
      [120, 120],
    ]);
  });

  it('that is full leaves decisions to the server', () => {
    const scene = Scene.primed();
    for (let i = 0; i < 1_000; i++)
      expect(scene.ask('traces:read', `10.0.${i >> 8}.${i & 255}`)).toBe('VALID');
    expect(scene.ask('traces:read', '11.0.0.1')).toBeUndefined();
    scene.sync();
    expect(scene.ask('traces:read', '11.0.0.1')).toBe('VALID');
  });

  it('is closed with the lease', () => {
    const scene = Scene.primed();
    scene.ask();
    expect(scene.keys.request(true)).toMatchObject({ closing: true, uses: [{ count: 1n }] });
    expect(scene.ask()).toBeUndefined();
  });
});
