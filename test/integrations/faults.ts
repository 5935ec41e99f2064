import { describe, expect, it } from 'vitest';
import { RemoteDifference } from '../../gen/apikey/v1/integrations_pb.ts';
import { failureOf } from '../rpc/cases.ts';
import { type Fault, HttpDouble } from '../support/http-double.ts';
import type { Driver } from './driver.ts';
import type { Here } from './life.ts';

export interface Faulty extends Here {
  readonly double: HttpDouble;
  /** The tokens or keys of the double. */
  readonly names: () => string[];
  readonly beforeVerify?: number;
  /** Resets its limit of logins. */
  readonly forgetLogins?: () => void;
}

const UNAVAILABLE = { code: 'Unavailable', reason: 'REMOTE_UNAVAILABLE' };
const UNREADABLE = { code: 'Unavailable', reason: 'REMOTE_ANSWER_UNREADABLE' };
const FAULTS: [Fault, object][] = [
  ['500', UNAVAILABLE],
  ['dropped', UNAVAILABLE],
  ['dropped after', UNAVAILABLE],
  ['malformed', UNREADABLE],
  ['half', UNREADABLE],
  ['redirect', UNREADABLE],
  ['huge', UNREADABLE],
];

/** Every verb against a failing server: a clear error, and no record of a failed action. */
export function faultCases(driver: Driver, fresh: () => Faulty): void {
  /** Gitea is asked for the user, n8n for a session. */
  const firstRequests = 1;
  /** And for the list, before a delete. */
  const beforeDelete = 2;

  describe.each(FAULTS)('%s', (fault, expected) => {
    it('in a create: no record, and a key that may exist appears in the list', async () => {
      const { clients, login, double, names } = fresh();
      double.fail(fault, firstRequests);
      const failure = await failureOf(driver.create(clients, login, 'ci'));
      expect(failure).toMatchObject(expected);
      expect(failure.text.toLowerCase()).toContain(driver.system);
      const listed = await driver.list(clients, login);
      expect(listed.map(({ name, difference }) => [name, difference])).toEqual(
        names().map((name) => [name, RemoteDifference.REMOTE_ONLY]),
      );
      if (fault === 'dropped after') expect(failure.text).toContain('see its list');
    });

    it('in a list and in a verify: an error', async () => {
      const { clients, login, double, beforeVerify = 0 } = fresh();
      const { secret } = await driver.create(clients, login, 'ci');
      double.fail(fault, firstRequests);
      expect(await failureOf(driver.list(clients, login))).toMatchObject(expected);
      double.fail(fault, beforeVerify);
      expect(await failureOf(driver.verify(clients, secret))).toMatchObject(expected);
    });

    it('in a delete: the record stays, and another delete completes it', async () => {
      const { clients, login, double, names } = fresh();
      const { key } = await driver.create(clients, login, 'ci');
      double.fail(fault, beforeDelete);
      const first = await driver.delete(clients, login, key.id).catch(() => undefined);
      if (first === undefined) {
        const second = await driver.delete(clients, login, key.id);
        expect(second).toMatchObject({ key: { deleted: true } });
      }
      expect(names()).toEqual([]);
      expect(await driver.list(clients, login)).toEqual([]);
    });
  });

  it('keeps the record of a key when the list cannot be read before a delete', async () => {
    const { clients, login, double, names, forgetLogins } = fresh();
    const { key } = await driver.create(clients, login, 'ci');
    for (const [fault] of FAULTS) {
      double.fail(fault, firstRequests);
      expect((await failureOf(driver.delete(clients, login, key.id))).reason).toMatch(/^REMOTE_(UNA|ANS)/);
      forgetLogins?.();
    }
    expect(names()).toEqual(['ci']);
    expect(await driver.list(clients, login)).toMatchObject([{ id: key.id, deleted: false, difference: 0 }]);
  });

  it('follows no redirect', async () => {
    const { clients, login, double } = fresh();
    const elsewhere = new HttpDouble(() => ({ status: 200, body: {} }));
    double.elsewhere = await elsewhere.start();
    double.fail('redirect');
    await failureOf(driver.list(clients, login));
    await elsewhere.stop();
    expect(elsewhere.seen).toEqual([]);
  });
}
