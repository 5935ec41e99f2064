import { create, type DescMethodUnary, type Message, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import { type ActiveCall, type CallPipeline, OVERLOADED } from '../rpc/call-pipeline.ts';
import { type Departure, newCall } from '../rpc/incoming-call.ts';
import { type BoundService, type Implementation, limitsOf } from '../rpc/method.ts';
import { readMessage, tooLarge, unreadable } from '../rpc/wire.ts';
import { GatheredBytes } from './gathered-bytes.ts';
import { errorFields } from './grpc-status.ts';
import { type Receiver, ResponseHeaders, type ServerStream } from './http2/transport.ts';
import { LateMessage } from './late-message.ts';
import type { UnaryRoute, UnarySession } from './unary-session.ts';
import type { UnfinishedMessages } from './unfinished.ts';
import type { Unpacking } from './unpacking.ts';

const FRAME_HEAD = 5;
const COMPRESSED = 1;
const RESPONSE = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
] as const;
const HEADERS = new ResponseHeaders(RESPONSE);
const OK = new ResponseHeaders([['grpc-status', '0']]);
const OVERLOADED_BLOCK = failureBlock(OVERLOADED);

/** Limits on the cost of messages before they are read; all mounts share them. */
export interface Incoming {
  readonly unfinished: UnfinishedMessages;
  readonly unpacking: Unpacking;
}

/** Serves gRPC's unary calls, nearly all calls, without a framework. Connect serves the rest of gRPC. */
export class GrpcMount {
  readonly #incoming: Incoming;
  readonly #routes = new Map<string, UnaryRoute>();

  constructor(callPipeline: CallPipeline, services: readonly BoundService[], incoming: Incoming) {
    this.#incoming = incoming;
    for (const { service, methods } of services) {
      for (const mounted of methods) {
        if (mounted.kind !== 'unary') continue;
        const { method, implementation } = mounted;
        this.#routes.set(
          `/${service.typeName}/${method.name}`,
          routeOf(callPipeline, `${service.typeName}/${method.name}`, method, implementation),
        );
      }
    }
  }

  /** Serves the stream if it is a unary call with binary messages; otherwise undefined. */
  begin(stream: ServerStream): UnaryExchange | undefined {
    const { headers } = stream;
    const type = headers.get('content-type');
    if (type !== 'application/grpc' && type !== 'application/grpc+proto') return undefined;
    const route = this.#routes.get(headers.get(':path') ?? '');
    if (route === undefined || headers.get(':method') !== 'POST') return undefined;
    return new UnaryExchange(route, stream, this.#incoming);
  }
}

function routeOf(
  callPipeline: CallPipeline,
  name: string,
  method: DescMethodUnary,
  implementation: Implementation<DescMethodUnary>,
): UnaryRoute {
  return {
    refusal: () => (callPipeline.sheds(name) ? OVERLOADED_BLOCK : undefined),
    limits: (headers) => limitsOf(implementation.access, headers.get('authorization')),
    begin: (headers, peerIp) => {
      const call = newCall(callPipeline.clock, name, peerIp, headers.get('authorization'));
      return new BoundCall(callPipeline, callPipeline.begin(call, headers), name, method, implementation);
    },
  };
}

/** A call of one of our methods; decodes its message and encodes its response. */
class BoundCall implements UnarySession {
  readonly #callPipeline: CallPipeline;
  readonly #session: ActiveCall;
  readonly #name: string;
  readonly #method: DescMethodUnary;
  readonly #implementation: Implementation<DescMethodUnary>;

  constructor(
    callPipeline: CallPipeline,
    session: ActiveCall,
    name: string,
    method: DescMethodUnary,
    implementation: Implementation<DescMethodUnary>,
  ) {
    this.#callPipeline = callPipeline;
    this.#session = session;
    this.#name = name;
    this.#method = method;
    this.#implementation = implementation;
  }

  authenticate(): MaybePromise<void> {
    return this.#session.authenticate(this.#implementation.access);
  }

  confirm(): Promise<void> {
    return this.#session.confirm(this.#implementation.access);
  }

  async respond(bytes: () => MaybePromise<Uint8Array>, departure: Departure): Promise<Uint8Array> {
    const { codec } = this.#implementation;
    const read = () => {
      const given = bytes();
      return given instanceof Promise
        ? given.then((unpacked) => this.#decode(unpacked))
        : this.#decode(given);
    };
    const message = await this.#session.respond(this.#implementation, read, departure);
    try {
      return codec?.encode(message) ?? toBinary(this.#method.output, create(this.#method.output, message));
    } catch (error) {
      throw this.#callPipeline.encodingFailed(this.#name, error);
    }
  }

  #decode(bytes: Uint8Array): Message {
    const { codec, skipsUnknownFields } = this.#implementation;
    return codec?.decode(bytes) ?? readMessage(this.#method.input, bytes, skipsUnknownFields);
  }

  refuse(error: ApiError): Promise<ConnectError> {
    return this.#session.refuse(error);
  }
}

/** The headers of a failed call, which has no other ones and no trailers. */
export function failureBlock(error: ConnectError): ResponseHeaders {
  return new ResponseHeaders([...RESPONSE, ...errorFields(error)]);
}

/** One unary call of gRPC: receives a frame, sends a frame and trailers. */
export class UnaryExchange implements Receiver, Departure {
  readonly #route: UnaryRoute;
  readonly #stream: ServerStream;
  readonly #incoming: Incoming;
  /** The frame as a part of the socket's chunk, if it arrived in one part. */
  #frame: Buffer | undefined;
  /** The frame, if it arrived in several parts. */
  #gathered: GatheredBytes | undefined;
  /** Set only when the message did not arrive with its headers. */
  #late: LateMessage | undefined;
  #deadline: NodeJS.Timeout | undefined;
  /** The message is being served, or the call has ended: further bytes are ignored. */
  #taken = false;
  #gone: AbortController | undefined;
  #left = false;

  constructor(route: UnaryRoute, stream: ServerStream, incoming: Incoming) {
    this.#route = route;
    this.#stream = stream;
    this.#incoming = incoming;
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
    if (this.#frame === undefined && this.#gathered === undefined && this.#late === undefined) {
      this.#frame = part;
      return;
    }
    this.#gather().add(part, this.#expected);
  }

  /** The message continues in a later read: it is copied, and its caller is authenticated first. */
  incomplete() {
    if (this.#taken) return;
    const gathered = this.#gather();
    const error = this.#wrong(gathered.bytes);
    if (error !== undefined) return this.#refuse(error);
    if (this.#late === undefined) {
      this.#late = new LateMessage(this.#begin(), this.#stream);
      const tooMuch = (error: ApiError) => {
        if (!this.#taken) this.#refuse(error);
      };
      this.#late.begin(this.#incoming.unfinished, tooMuch, (error) => this.#notAdmitted(error));
    }
    if (!this.#taken) this.#late.keeps(gathered.length);
  }

  end() {
    if (this.#taken) return;
    const frame = this.#gathered?.bytes ?? this.#frame;
    if (frame === undefined) return this.#refuse(unreadable('no message'));
    const error = this.#wrong(frame);
    if (error !== undefined) return this.#refuse(error);
    if (frame.length < FRAME_HEAD || frame.length < FRAME_HEAD + frame.readUInt32BE(1))
      return this.#refuse(unreadable('the message was cut off'));
    const message = frame.subarray(FRAME_HEAD);
    if (frame[0] === 0) return this.#serve(() => message);
    if (frame[0] !== COMPRESSED) return this.#refuse(unreadable('no such frame'));
    const unknown = this.#unknownPacking();
    if (unknown !== undefined) return this.#refuse(unknown);
    this.#serve(() => this.#unpack(message));
  }

  gone(): AbortSignal {
    this.#gone ??= new AbortController();
    return this.#gone.signal;
  }

  closed() {
    this.#left = true;
    clearTimeout(this.#deadline);
    this.#gone?.abort();
    if (this.#taken) return;
    this.#refuse(new ApiError('REQUEST_NOT_RECEIVED', 'the request did not arrive whole'));
  }

  #gather(): GatheredBytes {
    if (this.#gathered === undefined) {
      this.#gathered = new GatheredBytes();
      if (this.#frame !== undefined) this.#gathered.add(this.#frame, this.#expected);
      this.#frame = undefined;
    }
    return this.#gathered;
  }

  /** The length of the frame by its head. */
  get #expected(): number {
    const begun = this.#gathered?.bytes ?? this.#frame;
    return begun === undefined || begun.length < FRAME_HEAD ? FRAME_HEAD : FRAME_HEAD + begun.readUInt32BE(1);
  }

  /** The error of a frame that is already invalid, though it may be incomplete. */
  #wrong(frame: Buffer): ApiError | undefined {
    if (frame.length < FRAME_HEAD) return undefined;
    const length = frame.readUInt32BE(1);
    const most = this.#route.limits(this.#stream.headers).bytes;
    if (length > most) return tooLarge(most);
    return frame.length > FRAME_HEAD + length ? unreadable('more than one message') : undefined;
  }

  #unknownPacking(): ApiError | undefined {
    const { headers } = this.#stream;
    if (!this.#route.limits(headers).packed) return packedWithoutCredential();
    const encoding = headers.get('grpc-encoding');
    if (encoding === 'gzip') return undefined;
    return encoding === undefined || encoding === 'identity'
      ? unreadable('compressed, and no grpc-encoding')
      : new ApiError('ENCODING_UNKNOWN', 'only gzip and identity are known here');
  }

  async #unpack(message: Buffer): Promise<Uint8Array> {
    const plain = await this.#incoming.unpacking.gunzip(message, () => !this.#left);
    this.#late?.end();
    return plain;
  }

  #begin(): UnarySession {
    return this.#route.begin(this.#stream.headers, this.#stream.peerIp);
  }

  #serve(read: () => MaybePromise<Uint8Array>): void {
    this.#taken = true;
    (this.#late ?? this.#begin()).respond(read, this).then(this.#respond, this.#end);
  }

  #refuse(error: ApiError): void {
    this.#taken = true;
    this.#gathered = undefined;
    this.#late?.end();
    void (this.#late ?? this.#begin()).refuse(error).then(this.#end);
  }

  #notAdmitted(error: unknown): void {
    if (this.#taken) return;
    this.#taken = true;
    this.#gathered = undefined;
    this.#end(error);
  }

  readonly #respond = (message: Uint8Array): void => {
    clearTimeout(this.#deadline);
    this.#late?.end();
    const body = Buffer.allocUnsafe(FRAME_HEAD + message.length);
    body[0] = 0;
    body.writeUInt32BE(message.length, 1);
    body.set(message, FRAME_HEAD);
    this.#stream.respondWhole({ headers: HEADERS, body, trailers: OK });
  };

  readonly #end = (error: unknown): void => {
    clearTimeout(this.#deadline);
    this.#late?.end();
    this.#stream.respond(failureBlock(ConnectError.from(error)), true);
  };

  #setDeadline(text: string) {
    const ms = timeoutMs(text);
    if (ms === undefined) return this.#refuse(unreadable('grpc-timeout is not a duration'));
    this.#deadline = setTimeout(() => {
      // A message that is being served records its own event.
      if (!this.#taken) this.#refuse(new ApiError('REQUEST_NOT_RECEIVED', 'no message within the deadline'));
      this.#gone?.abort();
      this.#end(PAST_DEADLINE);
    }, ms);
  }
}

export function packedWithoutCredential(): ApiError {
  return new ApiError('ENCODING_UNKNOWN', 'a call without a credential must not be compressed');
}

const PAST_DEADLINE = new ConnectError('the deadline is over', Code.DeadlineExceeded);

const UNITS: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
const MAX_TIMER_MS = 2 ** 31 - 1;
const TIMER_STEP_MS = 10;

/** Rounded up to few distinct lengths: Node keeps timers of one length in one cheap list. */
function timeoutMs(text: string): number | undefined {
  const [, value, unit] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? [];
  if (value === undefined || unit === undefined) return undefined;
  const ms = Number(value) * (UNITS[unit] ?? 0);
  return Math.min(MAX_TIMER_MS, Math.ceil(ms / TIMER_STEP_MS) * TIMER_STEP_MS);
}
