/** How much does a call with many keys save? */
import { create, toBinary } from '@bufbuild/protobuf';
import { BatchValidateKeysRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { frame } from '../support/raw.ts';
import { closedLoop } from './load-client.ts';
import { type Answered, alternate, type Bench, median, rounded, spread, table } from './measure.ts';
import { ALL_ON, apikeyd, targetOf } from './servers.ts';

const SIZES = [1, 10, 100];
const DECISIONS = 60_000;
/** So that the audit's queue, 20 000 events, has room for all of them. */
const STREAMS = 12;
const PATH = '/apikey.v1.ApiKeyAuth/BatchValidateKeys';

export async function batch({ folder }: Bench): Promise<Answered> {
  const server = await apikeyd({ ...ALL_ON, folder, name: 'batch', storeUrl: `sqlite:${folder}/batch.db` });
  const { secret } = await server.clients.admin.createKey({
    ...ALL_ON.key,
    name: 'batch',
    ownerId: 'bench',
    keyType: 3,
    scopes: ['traces:read'],
  });
  const messages = SIZES.map((size) => {
    const requests = Array.from({ length: size }, () => ({ ...ALL_ON.request, key: secret }));
    const schema = BatchValidateKeysRequestSchema;
    return { size, bytes: frame(toBinary(schema, create(schema, { requests }))) };
  });
  const run = async ({ size, bytes }: (typeof messages)[number]) =>
    size * (await closedLoop(targetOf(server, PATH), DECISIONS / size, () => bytes, STREAMS));
  for (const message of messages) await run(message);
  const figures = await alternate(messages, 5, run);
  await server.stop();
  const rows = messages.map(({ size }, i) => {
    const of = figures[i] ?? [];
    return [size, rounded(median(of)), spread(of)];
  });
  return {
    facts: {},
    text: `## Many keys in one call

Decisions a second by BatchValidateKeys, all on; each has its own event.

${table(['keys a call', 'decisions/s', 'spread'], rows)}`,
  };
}
