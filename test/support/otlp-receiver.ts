import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';

/** A span as it arrived. */
export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  /** '' for a root. */
  readonly parentId: string;
  readonly name: string;
  readonly kind: number;
  readonly start: bigint;
  readonly end: bigint;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** 0 unset, 1 OK, 2 ERROR. */
  readonly status: number;
  readonly resource: Readonly<Record<string, unknown>>;
}

/** A receiver of OTLP over HTTP: reads what an exporter sends by the numbers of OTLP's own fields. */
export async function otlpReceiver() {
  const spans: ReceivedSpan[] = [];
  const bodies: Buffer[] = [];
  const headers: IncomingHttpHeaders[] = [];
  const waiting: (() => void)[] = [];
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const known =
      request.url === '/v1/traces' && request.headers['content-type'] === 'application/x-protobuf';
    if (known) {
      headers.push(request.headers);
      const body = Buffer.concat(parts);
      bodies.push(body);
      spans.push(...spansOf(body));
    }
    response.writeHead(known ? 200 : 415, { 'content-type': 'application/x-protobuf' }).end();
    for (const wake of waiting.splice(0)) wake();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    bodies,
    headers,
    stop: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}

type Fields = Map<number, (Uint8Array | bigint | number)[]>;

function fieldsOf(bytes: Uint8Array): Fields {
  const reader = new BinaryReader(bytes);
  const fields: Fields = new Map();
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    const values = fields.get(number) ?? [];
    fields.set(number, values);
    if (type === WireType.LengthDelimited) values.push(reader.bytes());
    else if (type === WireType.Bit64) values.push(reader.fixed64() as bigint);
    else if (type === WireType.Varint) values.push(reader.uint64() as bigint);
    else values.push(reader.fixed32());
  }
  return fields;
}

const all = (fields: Fields, number: number) => (fields.get(number) ?? []) as Uint8Array[];
const text = (fields: Fields, number: number) => Buffer.from(all(fields, number)[0] ?? []).toString();
const hex = (fields: Fields, number: number) => Buffer.from(all(fields, number)[0] ?? []).toString('hex');
const count = (fields: Fields, number: number) => Number(fields.get(number)?.[0] ?? 0);
const time = (fields: Fields, number: number) => (fields.get(number)?.[0] ?? 0n) as bigint;

function spansOf(body: Uint8Array): ReceivedSpan[] {
  return all(fieldsOf(body), 1)
    .map(fieldsOf)
    .flatMap((resourceSpans) => {
      const resource = attributesOf(fieldsOf(all(resourceSpans, 1)[0] ?? new Uint8Array()), 1);
      const scopes = all(resourceSpans, 2).map(fieldsOf);
      return scopes.flatMap((scope) =>
        all(scope, 2).map((span) => ({ ...spanOf(fieldsOf(span)), resource })),
      );
    });
}

function spanOf(span: Fields): Omit<ReceivedSpan, 'resource'> {
  const status = all(span, 15)[0];
  return {
    traceId: hex(span, 1),
    spanId: hex(span, 2),
    parentId: hex(span, 4),
    name: text(span, 5),
    kind: count(span, 6),
    start: time(span, 7),
    end: time(span, 8),
    attributes: attributesOf(span, 9),
    status: status === undefined ? 0 : count(fieldsOf(status), 3),
  };
}

function attributesOf(owner: Fields, number: number): Record<string, unknown> {
  return Object.fromEntries(
    all(owner, number)
      .map(fieldsOf)
      .map((pair) => [text(pair, 1), anyValue(fieldsOf(all(pair, 2)[0] ?? new Uint8Array()))]),
  );
}

function anyValue(value: Fields): unknown {
  const list = all(value, 5)[0];
  if (list !== undefined) return all(fieldsOf(list), 1).map((item) => anyValue(fieldsOf(item)));
  return value.has(1) ? text(value, 1) : count(value, 3);
}
