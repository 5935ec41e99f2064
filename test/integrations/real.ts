import { durationMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe } from 'vitest';
import { RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { type Driver, expectHidden } from './driver.ts';
import { lifeCases } from './life.ts';

/**
 * The same cases against a real server, if there is one: GITEA_URL, GITEA_USERNAME, GITEA_PASSWORD (GITEA_OTP), or
 * N8N_URL, N8N_LOGIN_ID, N8N_PASSWORD (N8N_MFA_CODE). It makes one token and ends it again.
 */
export function realCases(
  driver: Driver,
  names: Readonly<Record<'url' | 'name' | 'password' | 'otp', string>>,
): void {
  const {
    [names.url]: url,
    [names.name]: name,
    [names.password]: password,
    [names.otp]: otp = '',
  } = process.env;
  if (!url || !name || !password) return;
  describe(`a real server at ${names.url}`, { timeout: 300_000 }, () => {
    const database = freshDatabase('sqlite', '');
    let server: TestServer;
    beforeAll(async () => {
      server = await startServer(database.url, database.folder, { [names.url]: url });
    });
    afterAll(async () => {
      await server.stop();
      expectHidden([password], { log: server.log.join(''), store: await database.contents() });
      await database.drop();
    });
    lifeCases(patient(driver), () => ({ clients: server.clients('grpc'), login: { name, password, otp } }));
  });
}

/** The same driver, which waits where the server asks for it: n8n takes five logins a minute, and the cases need more. */
function patient(driver: Driver): Driver {
  const waiting =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      for (let waits = 0; ; waits++) {
        try {
          return await call(...args);
        } catch (error) {
          const failure = ConnectError.from(error);
          const delay = failure.findDetails(RetryInfoSchema)[0]?.retryDelay;
          if (failure.code !== Code.ResourceExhausted || delay === undefined || waits === 3) throw error;
          await new Promise((resolve) => setTimeout(resolve, durationMs(delay)));
        }
      }
    };
  return {
    ...driver,
    create: waiting(driver.create),
    list: waiting(driver.list),
    delete: waiting(driver.delete),
    verify: waiting(driver.verify),
  };
}
