// If this fails, some sequence of bytes crashes the server or makes it answer what it should not.
import { create, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ValidateKeyRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { makeKey } from '../rpc/cases.ts';
import { frame, type RawAnswer, RawGrpc } from '../support/raw.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';

const PATH = '/apikey.v1.ApiKeyAuth/ValidateKey';
/** `npm run test:long` sends a hundred times as many. */
const MUTATIONS = process.env.LONG ? 1_000_000 : 10_000;
const LANES = 32;

/** Small, seeded and repeatable (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function mutate(valid: Buffer, below: (n: number) => number): Buffer {
  let bytes = Buffer.from(valid);
  for (let n = 1 + below(4); n > 0; n--) {
    const at = below(Math.max(1, bytes.length));
    const kind = below(5);
    if (kind === 0) bytes[at] = below(256);
    if (kind === 1) bytes = bytes.subarray(0, at) as Buffer<ArrayBuffer>;
    if (kind === 2)
      bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([below(256)]), bytes.subarray(at)]);
    if (kind === 3)
      bytes = Buffer.concat([
        bytes.subarray(0, at),
        bytes.subarray(Math.min(bytes.length, at + 1 + below(6))),
      ]);
    if (kind === 4) bytes = Buffer.concat([bytes, bytes.subarray(at)]);
  }
  return bytes;
}

/** What no answer may be: anything but a decision or a clear refusal. */
function isSane(answer: RawAnswer): boolean {
  return answer.httpStatus === 200 && [0, 3].includes(answer.grpcStatus ?? -1);
}

describe('fuzz', () => {
  const database = freshDatabase('sqlite', '');
  const seed = Number(process.env.FUZZ_SEED ?? 20260301);
  let server: TestServer;
  let raw: RawGrpc;
  let valid: Buffer;
  let headers: { authorization: string };
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { RATE_LIMIT_MAX_ATTEMPTS: '1000000' });
    raw = new RawGrpc(server.running.ports.grpc);
    headers = { authorization: `Bearer ${server.adminKey}` };
    const { secret } = await makeKey(server.clients('grpc'));
    const request = {
      key: secret,
      requiredScope: 'traces:read',
      clientIp: '10.0.0.1',
      cost: 2n,
      requestId: 'r',
      userAgent: 'u',
      minRevision: 1n,
    };
    valid = Buffer.from(toBinary(ValidateKeyRequestSchema, create(ValidateKeyRequestSchema, request)));
  });
  afterAll(async () => {
    raw.close();
    await server.stop();
    await database.drop();
  });

  it(`answers ${MUTATIONS} mutations of a valid request, each with one event (seed ${seed})`, async () => {
    const below = random(seed);
    const stats = async () => Number((await server.clients('grpc').admin.getStats({})).auditEvents);
    const before = await stats();
    const codes = new Map<number, number>();
    for (let done = 0; done < MUTATIONS; done += LANES) {
      const sent = Array.from({ length: Math.min(LANES, MUTATIONS - done) }, () => mutate(valid, below));
      const answers = await Promise.all(sent.map((bytes) => raw.call(PATH, frame(bytes), headers)));
      for (const [i, answer] of answers.entries()) {
        expect(
          isSane(answer) || answer.grpcStatus === 9,
          `seed ${seed}: ${sent[i]?.toString('hex')} got ${answer.grpcStatus} ${answer.details}`,
        ).toBe(true);
        codes.set(answer.grpcStatus ?? -1, (codes.get(answer.grpcStatus ?? -1) ?? 0) + 1);
      }
    }
    expect((await stats()) - before - 1).toBe(MUTATIONS);
    // The mutations reach both the decision and the refusals.
    expect(Math.min(codes.get(0) ?? 0, codes.get(3) ?? 0)).toBeGreaterThan(500);
    expect((await raw.call(PATH, frame(valid), headers)).grpcStatus).toBe(0);
    expect(server.log.join('')).not.toContain('unexpected failure');
  });

  it('has a canary: an answer that is not sane is told apart', async () => {
    expect(isSane(await raw.call('/apikey.v1.ApiKeyAuth/Nothing', frame(valid), headers))).toBe(false);
    expect(isSane(await raw.call(PATH, frame(valid), {}))).toBe(false);
  });
});
