import { afterAll, beforeAll, describe } from 'vitest';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { type Driver, expectHidden } from './driver.ts';
import { lifeCases } from './life.ts';

/**
 * The same cases against a real server, for whoever has one: GITEA_URL, GITEA_USERNAME, GITEA_PASSWORD (GITEA_OTP), or
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
  describe(`a real server at ${names.url}`, () => {
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
    lifeCases(driver, () => ({ clients: server.clients('grpc'), login: { name, password, otp } }));
  });
}
