// If this fails, the fast decoder of Envoy's checks reads other headers than those that were sent.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CheckRequestSchema,
  CheckResponseSchema,
  HeaderAppendAction,
} from '../../gen/envoy/service/auth/v3/external_auth_pb.ts';
import { checkCodec } from '../../src/gateways/check-codec.ts';

const NAMES = ['authorization', 'x-api-key', 'user-agent'];
const codec = checkCodec(NAMES);
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.constantFrom('', 'constructor', 'ü', 'k'.repeat(20_000)),
);
const names = fc.oneof(fc.constantFrom(...NAMES, 'cookie', ':path', '__proto__'), text);
const requests = fc.record(
  {
    address: text,
    headers: fc.dictionary(names, text, { maxKeys: 8 }),
    contextExtensions: fc.dictionary(fc.constantFrom('required_scope', 'cost', 'dry_run', 'x'), text),
  },
  { requiredKeys: [] },
);
const options = fc.array(
  fc.record({
    header: fc.record({ key: text, value: text }),
    appendAction: fc.constantFrom(0, HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD),
  }),
  { maxLength: 6 },
);
const code = fc.constantFrom(0, 7, 200, 401, 503, 70_000);

describe('the codec of checks', () => {
  it('reads the same as protobuf-es', () => {
    fc.assert(
      fc.property(requests, ({ address, headers, contextExtensions }) => {
        const message = create(CheckRequestSchema, {
          attributes: {
            ...(address === undefined ? {} : { source: { address: { socketAddress: { address } } } }),
            ...(headers === undefined ? {} : { request: { http: { headers } } }),
            ...(contextExtensions === undefined ? {} : { contextExtensions }),
          },
        });
        const bytes = toBinary(CheckRequestSchema, message);
        const { attributes } = fromBinary(CheckRequestSchema, bytes);
        const read = codec.decode(bytes)?.attributes;
        // The general way makes no difference between an address that is empty and one that is absent, either.
        expect(read?.source?.address?.socketAddress?.address ?? '').toBe(
          attributes?.source?.address?.socketAddress?.address ?? '',
        );
        expect({ ...read?.contextExtensions }).toEqual(attributes?.contextExtensions);
        const sent = Object.entries(attributes?.request?.http?.headers ?? {});
        const wanted = sent.filter(([name]) => NAMES.includes(name));
        expect(Object.entries(read?.request?.http?.headers ?? {}).sort()).toEqual(wanted.sort());
        expect(read?.request?.http === undefined).toBe(attributes?.request?.http === undefined);
      }),
    );
  });

  it('leaves malformed and split messages to protobuf-es', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        let readable = true;
        try {
          fromBinary(CheckRequestSchema, bytes);
        } catch {
          readable = false;
        }
        const read = codec.decode(bytes);
        // A malformed message must not look like a check.
        if (!readable && read !== undefined)
          expect(read.attributes?.request?.http?.headers ?? {}).toEqual({});
      }),
    );
    const part = (headers: Record<string, string>) =>
      toBinary(
        CheckRequestSchema,
        create(CheckRequestSchema, { attributes: { request: { http: { headers } } } }),
      );
    expect(codec.decode(Buffer.concat([part({ cookie: 'a' }), part({ 'x-api-key': 'k' })]))).toBeUndefined();
  });

  it('skips unknown fields', () => {
    const http = create(CheckRequestSchema, {
      attributes: { request: { http: { headers: { 'x-api-key': 'k' } } } },
    });
    const unknown = Buffer.from([
      0xa8,
      0x1f,
      0x96,
      0x01,
      0xa1,
      0x1f,
      ...Buffer.alloc(8),
      0xa5,
      0x1f,
      ...Buffer.alloc(4),
    ]);
    const read = codec.decode(Buffer.concat([unknown, toBinary(CheckRequestSchema, http), unknown]));
    expect(read?.attributes?.request?.http?.headers).toEqual({ 'x-api-key': 'k' });
  });

  it('writes the same as protobuf-es', () => {
    const denied = fc.record({ status: fc.record({ code }), headers: options, body: text });
    const ok = fc.record({
      headers: options,
      headersToRemove: fc.array(text, { maxLength: 5 }),
      responseHeadersToAdd: options,
    });
    const answers = fc.oneof(
      denied.map((value) => ({ case: 'deniedResponse' as const, value })),
      ok.map((value) => ({ case: 'okResponse' as const, value })),
    );
    fc.assert(
      fc.property(fc.record({ code }), answers, (status, httpResponse) => {
        const general = toBinary(
          CheckResponseSchema,
          create(CheckResponseSchema, { status, httpResponse } as never),
        );
        const fast = codec.encode({ status, httpResponse } as never);
        if (fast === undefined) expect(general.length).toBeGreaterThan(60_000);
        else expect(Buffer.from(fast).equals(Buffer.from(general))).toBe(true);
      }),
    );
  });
});
