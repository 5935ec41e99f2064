import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { create, type DescMethodUnary, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { ApiError } from '../keys/errors.ts';
import { type Departure, newCall } from '../rpc/call.ts';
import { type CallServer, OVERLOADED } from '../rpc/call-server.ts';
import { LIMITS } from '../rpc/limits.ts';
import type { BoundService, Implementation } from '../rpc/method.ts';
import { readMessage, tooLarge, unreadable } from '../rpc/wire.ts';
import { errorFields } from './grpc-status.ts';
import { AnswerHeaders, type Receiver, type RequestFields, type ServerStream } from './http2/transport.ts';

const FRAME_HEAD = 5;
const COMPRESSED = 1;
const RESPONSE = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
] as const;
const HEADERS = new AnswerHeaders(RESPONSE);
const OK = new AnswerHeaders([['grpc-status', '0']]);
const OVERLOADED_BLOCK = failureBlock(OVERLOADED);

/** gRPC's unary calls, which nearly all calls are, without a framework. Connect serves the rest of gRPC. */
export class GrpcMount {
  readonly #routes = new Map<string, UnaryRoute>();

  constructor(callServer: CallServer, services: readonly BoundService[]) {
    for (const { service, methods } of services) {
      for (const mounted of methods) {
        if (mounted.kind !== 'unary') continue;
        const { method, implementation } = mounted;
        this.#routes.set(
          `/${service.typeName}/${method.name}`,
          routeOf(callServer, `${service.typeName}/${method.name}`, method, implementation),
        );
      }
    }
  }

  /** Serves the stream if it is a unary call in binary; undefined when it is another's. */
  begin(stream: ServerStream): UnaryCall | undefined {
    const { headers } = stream;
    const type = headers.get('content-type');
    if (type !== 'application/grpc' && type !== 'application/grpc+proto') return undefined;
    const route = this.#routes.get(headers.get(':path') ?? '');
    if (route === undefined || headers.get(':method') !== 'POST') return undefined;
    return new UnaryCall(route, stream);
  }
}

function routeOf(
  callServer: CallServer,
  name: string,
  method: DescMethodUnary,
  implementation: Implementation<DescMethodUnary>,
): UnaryRoute {
  const { codec, skipsUnknownFields } = implementation;
  const begin = (headers: RequestFields, peerIp: string) =>
    callServer.begin(newCall(callServer.clock, name, peerIp, headers.get('authorization')));
  return {
    refusal: () => (callServer.sheds(name) ? OVERLOADED_BLOCK : undefined),
    async serve(headers, peerIp, bytes, departure) {
      const read = () => codec?.decode(bytes) ?? readMessage(method.input, bytes, skipsUnknownFields);
      const message = await begin(headers, peerIp).answer(implementation, read, departure);
      try {
        return codec?.encode(message) ?? toBinary(method.output, create(method.output, message));
      } catch (error) {
        throw callServer.unanswerable(name, error);
      }
    },
    refuse: (headers, peerIp, error) => begin(headers, peerIp).refuse(error),
  };
}

/** A method as this transport sees it: bytes in, bytes out. */
export interface UnaryRoute {
  /** Asked when the headers are in: what failureBlock made of a refusal. It costs nothing of the message. */
  refusal(): AnswerHeaders | undefined;
  /** Answers the message. Rejects with a ConnectError only. */
  serve(
    headers: RequestFields,
    peerIp: string,
    message: Uint8Array,
    departure: Departure,
  ): Promise<Uint8Array>;
  /** The call cannot be served: records it, and gives what to tell. */
  refuse(headers: RequestFields, peerIp: string, error: ApiError): Promise<ConnectError>;
}

/** The only headers of a call that fails. */
export function failureBlock(error: ConnectError): AnswerHeaders {
  return new AnswerHeaders([...RESPONSE, ...errorFields(error)]);
}

/** One unary call of gRPC: a frame in, a frame and trailers out. */
export class UnaryCall implements Receiver, Departure {
  readonly #route: UnaryRoute;
  readonly #stream: ServerStream;
  /** The frame, or its beginning: until the head is whole only that. */
  #frame: Buffer | undefined;
  /** How much of it has come; more than it holds is too much. */
  #size = 0;
  #deadline: NodeJS.Timeout | undefined;
  /** The message is being answered, or the call is over: what still comes is not looked at. */
  #taken = false;
  #gone: AbortController | undefined;

  constructor(route: UnaryRoute, stream: ServerStream) {
    this.#route = route;
    this.#stream = stream;
    const refusal = route.refusal();
    if (refusal !== undefined) {
      this.#taken = true;
      stream.respond(refusal, true);
      return;
    }
    const timeout = stream.headers.get('grpc-timeout');
    if (timeout !== undefined) this.#setDeadline(timeout);
  }

  data(part: Buffer) {
    if (this.#taken) return;
    if (this.#size >= FRAME_HEAD) {
      this.#append(part);
      return;
    }
    const begun = this.#frame === undefined ? part : Buffer.concat([this.#frame, part]);
    this.#frame = begun;
    this.#size = begun.length;
    if (begun.length < FRAME_HEAD) return;
    const length = FRAME_HEAD + begun.readUInt32BE(1);
    if (length > FRAME_HEAD + LIMITS.messageBytes) this.#refuse(tooLarge());
    else if (begun.length !== length) {
      // One buffer for the rest, so that many small parts cost no more than a few large ones.
      this.#frame = Buffer.allocUnsafeSlow(length);
      this.#size = 0;
      this.#append(begun);
    }
  }

  #append(part: Buffer) {
    const frame = this.#frame as Buffer;
    if (this.#size + part.length > frame.length) return this.#refuse(unreadable('more than one message'));
    frame.set(part, this.#size);
    this.#size += part.length;
  }

  end() {
    if (this.#taken) return;
    const frame = this.#frame;
    if (frame === undefined) return this.#refuse(unreadable('no message'));
    if (this.#size < FRAME_HEAD || this.#size < frame.length)
      return this.#refuse(unreadable('the message was cut off'));
    const message = frame.subarray(FRAME_HEAD);
    if (frame[0] === 0) return this.#serve(message);
    if (frame[0] !== COMPRESSED) return this.#refuse(unreadable('no such frame'));
    this.#unpack(message);
  }

  gone(): AbortSignal {
    this.#gone ??= new AbortController();
    return this.#gone.signal;
  }

  closed() {
    clearTimeout(this.#deadline);
    this.#gone?.abort();
    if (this.#taken) return;
    this.#refuse(new ApiError('REQUEST_NOT_RECEIVED', 'the request did not arrive whole'));
  }

  #unpack(message: Buffer): void {
    const encoding = this.#stream.headers.get('grpc-encoding');
    if (encoding !== 'gzip') {
      const known = encoding === undefined || encoding === 'identity';
      this.#refuse(
        known
          ? unreadable('compressed, and no grpc-encoding')
          : new ApiError('ENCODING_UNKNOWN', 'only gzip and identity are known here'),
      );
      return;
    }
    this.#taken = true;
    void unzip(message).then(
      (plain) => this.#serve(plain),
      (error: ApiError) => this.#refuse(error),
    );
  }

  #serve(message: Uint8Array): void {
    this.#taken = true;
    this.#route.serve(this.#stream.headers, this.#stream.peerIp, message, this).then(this.#answer, this.#end);
  }

  #refuse(error: ApiError): void {
    this.#taken = true;
    void this.#route.refuse(this.#stream.headers, this.#stream.peerIp, error).then(this.#end);
  }

  readonly #answer = (message: Uint8Array): void => {
    clearTimeout(this.#deadline);
    const body = Buffer.allocUnsafe(FRAME_HEAD + message.length);
    body[0] = 0;
    body.writeUInt32BE(message.length, 1);
    body.set(message, FRAME_HEAD);
    this.#stream.answer({ headers: HEADERS, body, trailers: OK });
  };

  readonly #end = (error: unknown): void => {
    clearTimeout(this.#deadline);
    this.#stream.respond(failureBlock(ConnectError.from(error)), true);
  };

  #setDeadline(text: string) {
    const ms = timeoutMs(text);
    if (ms === undefined) return this.#refuse(unreadable('grpc-timeout is not a duration'));
    this.#deadline = setTimeout(() => {
      // A message that has come is being answered, and its event is on its way.
      if (!this.#taken) this.#refuse(new ApiError('REQUEST_NOT_RECEIVED', 'no message within the deadline'));
      this.#gone?.abort();
      this.#end(PAST_DEADLINE);
    }, ms);
  }
}

const PAST_DEADLINE = new ConnectError('the deadline is over', Code.DeadlineExceeded);

const UNITS: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
const MAX_TIMER_MS = 2 ** 31 - 1;
const TIMER_STEP_MS = 10;

/** Rounded up, so that the timers of many calls are of few lengths, which Node keeps cheaply. */
function timeoutMs(text: string): number | undefined {
  const [, value, unit] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? [];
  if (value === undefined || unit === undefined) return undefined;
  const ms = Number(value) * (UNITS[unit] ?? 0);
  return Math.min(MAX_TIMER_MS, Math.ceil(ms / TIMER_STEP_MS) * TIMER_STEP_MS);
}

/** Unpacks gzip, up to the size that a message may have. */
async function unzip(packed: Buffer): Promise<Buffer> {
  try {
    return await promisify(gunzip)(packed, { maxOutputLength: LIMITS.messageBytes });
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE' ? tooLarge() : unreadable(error);
  }
}
