import { expect, it } from 'vitest';
import { RemoteDifference, VerifyResult } from '../../gen/apikey/v1/integrations_pb.ts';
import { failureOf } from '../rpc/cases.ts';
import type { Clients } from '../support/server.ts';
import type { Driver, Login } from './driver.ts';

export interface Here {
  readonly clients: Clients;
  readonly login: Login;
}

const { ALIVE, DEAD } = VerifyResult;

/** Cases that must pass against a double and against a real server. */
export function lifeCases(driver: Driver, here: () => Here): void {
  it('creates a working key, lists it, deletes it, and reports it as DEAD', async () => {
    const { clients, login } = here();
    const name = `apikeyd test ${Date.now()}`;
    const { key, secret } = await driver.create(clients, login, name);
    expect(key).toMatchObject({ name, lastEight: secret.slice(-8), deleted: false });
    expect([...key.scopes].sort()).toEqual([...driver.scopes].sort());

    expect(await driver.verify(clients, secret)).toMatchObject({
      result: ALIVE,
      key: { id: key.id, verified: ALIVE },
    });
    const listed = (await driver.list(clients, login)).find(({ id }) => id === key.id);
    expect(listed).toMatchObject({
      name,
      lastEight: secret.slice(-8),
      verified: ALIVE,
      difference: RemoteDifference.UNSPECIFIED,
    });

    expect(await driver.delete(clients, login, key.id)).toMatchObject({
      key: { id: key.id, deleted: true },
      wasMissing: false,
    });
    expect(await driver.verify(clients, secret)).toMatchObject({
      result: DEAD,
      key: { verified: DEAD, deleted: true },
    });
    expect((await driver.list(clients, login)).filter(({ id }) => id === key.id)).toEqual([]);
  });

  it('reports refused credentials of the other system differently from a refused calling key', async () => {
    const { clients, login } = here();
    const wrong = { name: login.name, password: 'not-the-password-7391' };
    const failure = await failureOf(driver.list(clients, wrong));
    expect(failure).toMatchObject({ code: 'FailedPrecondition', reason: 'REMOTE_UNAUTHENTICATED' });
    expect(JSON.stringify(failure)).not.toContain(wrong.password);
  });
}
