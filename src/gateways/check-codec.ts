import type { MessageInitShape } from '@bufbuild/protobuf';
import type { CheckRequest, CheckResponseSchema } from '../../gen/envoy/service/auth/v3/external_auth_pb.ts';
import type { Codec } from '../rpc/method.ts';
import { BackwardWriter } from './backward-writer.ts';
import { Malformed, WireFields } from './wire-fields.ts';

type Response = MessageInitShape<typeof CheckResponseSchema>;
type HttpResponse = NonNullable<Response['httpResponse']>;
type Options = NonNullable<Extract<HttpResponse, { case: 'okResponse' }>['value']['headers']>;

/** The fields read from a CheckRequest. */
interface Read {
  readonly headers: Record<string, string>;
  readonly contextExtensions: Record<string, string>;
  address: string | undefined;
  http: boolean;
}

/** Headers to read: the name as bytes and as text. */
type Wanted = readonly (readonly [bytes: Buffer, name: string])[];

/**
 * Reads only the needed fields of a CheckRequest and writes CheckResponses: for these messages the general codec takes
 * longer than the rest of a check. Unusual messages are left to the general codec.
 * @param names the headers to read
 */
export function checkCodec(names: readonly string[]): Codec<CheckRequest, Response> {
  const wanted = names.map((name) => [Buffer.from(name), name] as const);
  return { decode: (bytes) => decode(bytes, wanted), encode };
}

function decode(bytes: Uint8Array, wanted: Wanted): CheckRequest | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read: Read = { headers: {}, contextExtensions: {}, address: undefined, http: false };
  try {
    const attributes = only(new WireFields(buffer), 1);
    if (attributes !== undefined) readAttributes(attributes, buffer, read, wanted);
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
  const { headers, contextExtensions, address } = read;
  const source = address === undefined ? undefined : { address: { socketAddress: { address } } };
  const request = read.http ? { http: { headers } } : undefined;
  return { attributes: { source, request, contextExtensions } } as unknown as CheckRequest;
}

function readAttributes(fields: WireFields, buffer: Buffer, read: Read, wanted: Wanted): void {
  let sources = 0;
  let requests = 0;
  const inner = new WireFields(buffer);
  while (fields.next()) {
    const { number, start, stop } = fields;
    if (number === 1) {
      sources++;
      const address = only(inner.enter(start, stop), 1);
      const socketAddress = address && only(address, 1);
      const text = socketAddress && only(socketAddress, 2);
      if (text !== undefined) read.address = text.text();
    } else if (number === 4) {
      requests++;
      const http = only(inner.enter(start, stop), 2);
      if (http !== undefined) readHttp(http, buffer, read, wanted);
    } else if (number === 10) readExtension(inner.enter(start, stop), read.contextExtensions);
  }
  // Protobuf would merge repeated submessages, which is left to the general codec.
  if (sources > 1 || requests > 1) throw new Malformed();
}

function readHttp(fields: WireFields, buffer: Buffer, read: Read, wanted: Wanted): void {
  read.http = true;
  const entry = new WireFields(buffer);
  while (fields.next()) {
    // header_map, which is rare.
    if (fields.number === 13) throw new Malformed();
    if (fields.number !== 3) continue;
    entry.enter(fields.start, fields.stop);
    // Name, then value: the order in which every library writes a map's entry.
    if (!entry.next() || entry.number !== 1) throw new Malformed();
    const name = wantedName(buffer, entry.start, entry.stop, wanted);
    if (name === undefined) continue;
    const hasValue = entry.next();
    if (hasValue && (entry.number as number) !== 2) throw new Malformed();
    read.headers[name] = hasValue ? entry.text() : '';
    if (hasValue && entry.next()) throw new Malformed();
  }
}

/** Compares bytes, so that no text is allocated for other names. */
function wantedName(buffer: Buffer, start: number, stop: number, wanted: Wanted): string | undefined {
  for (const [bytes, name] of wanted) {
    const { length } = bytes;
    if (length !== stop - start || bytes[length - 1] !== buffer[stop - 1]) continue;
    let i = 0;
    while (i < length && bytes[i] === buffer[start + i]) i++;
    if (i === length) return name;
  }
  return undefined;
}

/** Reads an entry of a map; the last entry of a name applies. */
function readExtension(fields: WireFields, into: Record<string, string>): void {
  let key = '';
  let value = '';
  while (fields.next()) {
    if (fields.number === 1) key = fields.text();
    else if (fields.number === 2) value = fields.text();
  }
  // Assigning `__proto__` would set the prototype, and this unknown option would be ignored.
  into[key === '__proto__' ? '?__proto__' : key] = value;
}

/** Enters the only field of this number; undefined when there is none. */
function only(fields: WireFields, number: number): WireFields | undefined {
  let [start, stop] = [-1, -1];
  while (fields.next()) {
    if (fields.number !== number) continue;
    if (start >= 0) throw new Malformed();
    start = fields.start;
    stop = fields.stop;
  }
  return start < 0 ? undefined : fields.enter(start, stop);
}

const writer = new BackwardWriter();

/** Writes the same bytes as protobuf-es. */
function encode({ status, httpResponse }: Response): Uint8Array | undefined {
  writer.clear();
  const end = writer.mark;
  if (httpResponse?.case === 'okResponse') {
    const { headers, headersToRemove, responseHeadersToAdd } = httpResponse.value;
    writeOptions(6, responseHeadersToAdd);
    for (let i = (headersToRemove?.length ?? 0) - 1; i >= 0; i--) writer.text(5, headersToRemove?.[i] ?? '');
    writeOptions(2, headers);
    writer.enclose(3, end);
  } else if (httpResponse?.case === 'deniedResponse') {
    const { status: denied, headers, body } = httpResponse.value;
    if (body) writer.text(3, body);
    writeOptions(2, headers);
    writeCode(1, denied);
    writer.enclose(2, end);
  }
  writeCode(1, status);
  return writer.bytes();
}

function writeCode(field: number, status: { readonly code?: number } | undefined): void {
  if (status === undefined) return;
  const mark = writer.mark;
  writer.number(1, status.code ?? 0);
  writer.enclose(field, mark);
}

function writeOptions(field: number, options: Options | undefined): void {
  if (options === undefined) return;
  for (let i = options.length - 1; i >= 0; i--) {
    const option = options[i];
    const mark = writer.mark;
    writer.number(3, option?.appendAction ?? 0);
    const header = writer.mark;
    if (option?.header?.value) writer.text(2, option.header.value);
    if (option?.header?.key) writer.text(1, option.header.key);
    writer.enclose(1, header);
    writer.enclose(field, mark);
  }
}
