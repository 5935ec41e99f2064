/** A backend that admits requests whose key is valid for the scope traces:read. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
// In your own project: import from '@apikeyd/guard'.
import { expressGuard, Guard, verdictOf } from '../../clients/typescript/src/index.ts';

const guard = new Guard({
  address: process.env.APIKEYD_ADDRESS ?? '127.0.0.1:50051',
  keyFile: process.env.APIKEYD_KEY_FILE ?? 'guard.key',
});
const mayReadTraces = expressGuard(guard, { scope: 'traces:read' });

const server = createServer((request, response) => {
  void mayReadTraces(request, response, () => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ traces: [], owner: verdictOf(request).key?.ownerId }));
  });
});
server.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () => {
  process.stdout.write(`listening on ${(server.address() as AddressInfo).port}\n`);
});
