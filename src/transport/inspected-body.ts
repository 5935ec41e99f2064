import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type { DescMessage } from '@bufbuild/protobuf';
import type { UniversalServerRequest } from '@connectrpc/connect/protocol';
import { refuseTooMany } from '../messages/message-size.ts';
import { refuseLooseJson } from '../messages/strict-json.ts';
import { LIMITS } from '../rpc/limits.ts';

const FRAME_HEAD = 5;
const COMPRESSED = 1;

/**
 * Wraps a request so that its message is inspected when Connect reads it, after the caller is authenticated.
 * @param refused called with the problem found, which the reader also gets as an error
 */
export function inspected(
  request: UniversalServerRequest,
  schema: DescMessage,
  refused: (problem: unknown) => void,
): UniversalServerRequest {
  const { body, header } = request;
  if (!isParts(body)) return request;
  const look = async (whole: Buffer) => {
    const message = await messageOf(whole, header);
    if (message === undefined) return;
    try {
      inspect(schema, message, /[/+]json\b/.test(header.get('content-type') ?? ''));
    } catch (problem) {
      refused(problem);
      throw problem;
    }
  };
  return { ...request, body: partsOf(body, look) };
}

async function* partsOf(body: AsyncIterable<Uint8Array>, look: (whole: Buffer) => Promise<void>) {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.length;
    parts.push(part);
    // Too large: the reader detects and refuses it.
    if (size > LIMITS.messageBytes + FRAME_HEAD) yield* parts.splice(0);
  }
  if (parts.length === 0) return;
  const whole = Buffer.concat(parts);
  await look(whole);
  yield whole;
}

function inspect(schema: DescMessage, message: Buffer, isJson: boolean): void {
  if (!isJson) refuseTooMany(schema, message);
  else {
    const json = parsed(message.toString());
    if (json !== undefined) refuseLooseJson(schema, json);
  }
}

/** Undefined for invalid JSON, which the decoder reports. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Undefined for a message that cannot be decompressed, which the reader reports. */
async function messageOf(whole: Buffer, header: Headers): Promise<Buffer | undefined> {
  const type = header.get('content-type') ?? '';
  const framed = !/^application\/(json|proto)\b/.test(type);
  const packed = framed ? whole[0] === COMPRESSED : header.has('content-encoding');
  const message = framed ? whole.subarray(FRAME_HEAD) : whole;
  if (!packed) return message;
  try {
    return await promisify(gunzip)(message, { maxOutputLength: LIMITS.messageBytes });
  } catch {
    return undefined;
  }
}

function isParts(body: unknown): body is AsyncIterable<Uint8Array> {
  return typeof body === 'object' && body !== null && Symbol.asyncIterator in body;
}
