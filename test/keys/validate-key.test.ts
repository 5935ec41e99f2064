// If this fails, a decision rests on facts that were no longer certain when it was answered.
import { describe, expect, it } from 'vitest';
import type { Found, KeyStore } from '../../src/keys/ports/key-store.ts';
import { hashSecret, isSecret } from '../../src/keys/secret.ts';
import { ValidateKey } from '../../src/keys/validate-key.ts';
import { TestClock } from '../support/clock.ts';
import { MemoryAudit } from '../support/doubles.ts';
import { keyWith, ORIGIN } from '../support/keys.ts';

/** A key store whose lease lapses during the audit wait of the given number of decisions; the key is revoked meanwhile. */
function deciding(lapses: number) {
  const { key, secret } = keyWith();
  let reads = 0;
  let left = lapses;
  const keys = {
    findByHash: async (hash: string): Promise<Found> => {
      expect(hash).toBe(hashSecret(secret));
      reads++;
      return {
        key: reads === 1 ? key : { ...key, revokeTime: 1 },
        revision: reads,
        ageMs: 5,
        fromCache: true,
      };
    },
    isCurrent: () => left-- <= 0,
  } as Partial<KeyStore> as KeyStore;
  const audit = new MemoryAudit();
  const observer = { decided: () => {}, rotated: () => {}, lockedOut: () => {}, oldCredential: () => {} };
  const validateKey = new ValidateKey({
    keys,
    quota: undefined as never,
    lockout: { lockedForMs: () => 0 } as never,
    audit: audit.log,
    lastUses: { note: () => {} },
    clock: new TestClock(),
    observer,
    mayBeSecret: isSecret,
  });
  const input = {
    secret,
    requiredScope: undefined,
    clientIp: undefined,
    userAgent: '',
    requestId: 'r',
    cost: 1,
    dryRun: false,
    minRevision: 0,
  };
  return { validateKey, input, audit };
}

describe('a decision whose lease ran out while its event was written', () => {
  it('is made again, with its own event, and only the new decision is returned', async () => {
    const { validateKey, input, audit } = deciding(1);
    expect((await validateKey.run(input, ORIGIN)).decision).toBe('REVOKED');
    expect(audit.entries.map(({ outcome }) => outcome)).toEqual(['DECISION_VALID', 'DECISION_REVOKED']);
  });

  it('ends in an error when that happens every time', async () => {
    const { validateKey, input, audit } = deciding(9);
    await expect(validateKey.run(input, ORIGIN)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(audit.entries).toHaveLength(3);
  });

  it('is made again for a whole batch', async () => {
    const { validateKey, input, audit } = deciding(1);
    const verdicts = await validateKey.runAll([input, input], ORIGIN);
    expect(verdicts.map(({ decision }) => decision)).toEqual(['REVOKED', 'REVOKED']);
    expect(audit.entries).toHaveLength(4);
  });

  it('is not made again when the lease still holds', async () => {
    const { validateKey, input, audit } = deciding(0);
    expect((await validateKey.run(input, ORIGIN)).decision).toBe('VALID');
    expect(audit.entries).toHaveLength(1);
  });
});
