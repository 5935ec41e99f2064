import { afterAll, beforeAll } from 'vitest';
import { type Clients, freshDatabase, startServer, type TestServer } from './server.ts';
import { Wire } from './wire.ts';

export interface Wired {
  readonly database: ReturnType<typeof freshDatabase>;
  readonly wire: Wire;
  readonly server: TestServer;
  readonly clients: Clients;
}

/** A server whose way to its MongoDB is a wire that the tests of this suite can cut, hold and slow. */
export function wiredServer(mongoUri: string): Wired {
  let wired: Wired | undefined;
  const get = (): Wired => {
    if (wired === undefined) throw new Error('the suite has not begun');
    return wired;
  };
  beforeAll(async () => {
    const database = freshDatabase('mongo', mongoUri);
    const { wire, url } = await Wire.to(database.url);
    const server = await startServer(url, database.folder);
    wired = { database, wire, server, clients: server.clients('grpc') };
  });
  afterAll(async () => {
    const { database, wire, server } = get();
    wire.mend();
    await server.stop();
    await wire.close();
    await database.drop();
  });
  return {
    get database() {
      return get().database;
    },
    get wire() {
      return get().wire;
    },
    get server() {
      return get().server;
    },
    get clients() {
      return get().clients;
    },
  };
}
