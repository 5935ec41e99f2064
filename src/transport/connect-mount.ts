import type { DescMessage, DescMethod, Message } from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ContextValues,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from '@connectrpc/connect';
import type {
  UniversalHandler,
  UniversalServerRequest,
  UniversalServerResponse,
} from '@connectrpc/connect/protocol';
import { compressionGzip } from '@connectrpc/connect-node';
import { ApiError } from '../keys/errors.ts';
import type { ActiveCall, CallPipeline } from '../rpc/call-pipeline.ts';
import { asApiError } from '../rpc/errors.ts';
import { newCall } from '../rpc/incoming-call.ts';
import { LIMITS } from '../rpc/limits.ts';
import { type Access, type BoundMethod, type BoundService, limitsOf } from '../rpc/method.ts';
import { refuseUnknownFields, tooLarge, unreadable } from '../rpc/wire.ts';
import type { Exchange } from './exchange.ts';
import { type Incoming, packedWithoutCredential } from './grpc-mount.ts';
import { inspected } from './inspected-body.ts';
import { OpenCalls } from './open-calls.ts';

/** The state of a call that passes through Connect. */
interface State {
  readonly session: ActiveCall;
  /** The implementation has started or the call is refused: either records the call's event. */
  recorded: boolean;
  /** The refusal, which Connect only encodes. */
  refusal: ConnectError | undefined;
  /** The problem found in the message before Connect decoded it. */
  problem: unknown;
  /** Called when the message is read: ends the call's turn to decompress. */
  read: () => void;
}

interface Mounted {
  readonly handler: UniversalHandler;
  readonly access: Access;
  readonly input: DescMessage;
}

const PACKED = ['content-encoding', 'connect-content-encoding', 'grpc-encoding'];
const NOTHING = new Uint8Array(0);
const STATE = createContextKey<State | undefined>(undefined);

/** Serves Connect, gRPC-Web, gRPC and JSON over HTTP/1.1 and HTTP/2. */
export class ConnectMount {
  readonly #callPipeline: CallPipeline;
  readonly #incoming: Incoming;
  readonly #openCalls = new OpenCalls();
  readonly #paths = new Map<string, Mounted>();
  readonly #open = new Map<string, UniversalHandler>();

  /**
   * @param addOpen adds services without credentials and audit: health and reflection
   * @param openMessageBytes the limit of their messages
   */
  constructor(
    callPipeline: CallPipeline,
    services: readonly BoundService[],
    incoming: Incoming,
    addOpen: (router: ConnectRouter) => void,
    openMessageBytes: number = LIMITS.openMessageBytes,
  ) {
    this.#callPipeline = callPipeline;
    this.#incoming = incoming;
    const router = createConnectRouter({
      readMaxBytes: LIMITS.messageBytes,
      writeMaxBytes: LIMITS.responseBytes,
      acceptCompression: [compressionGzip],
      jsonOptions: { ignoreUnknownFields: false },
      requestGate: passGate,
    });
    const mountedAs = new Map<string, Omit<Mounted, 'handler'>>();
    for (const { service, methods } of services) {
      const implementations: Record<string, unknown> = {};
      for (const mounted of methods) {
        const { method } = mounted;
        const { access } = mounted.implementation;
        mountedAs.set(`/${service.typeName}/${method.name}`, { access, input: method.input });
        implementations[method.localName] =
          mounted.kind === 'unary' ? unaryHandler(mounted) : streamHandler(mounted);
      }
      router.service(service, implementations as never);
    }
    for (const handler of router.handlers) {
      const mounted = mountedAs.get(handler.requestPath);
      if (mounted !== undefined) this.#paths.set(handler.requestPath, { handler, ...mounted });
    }
    const open = createConnectRouter({
      readMaxBytes: openMessageBytes,
      acceptCompression: [compressionGzip],
    });
    addOpen(open);
    for (const handler of open.handlers) this.#open.set(handler.requestPath, handler);
  }

  /** Serves a request for one of our methods; false for any other path. */
  async handle(exchange: Exchange): Promise<boolean> {
    const mounted = this.#paths.get(exchange.path);
    if (mounted === undefined) return this.#handleOpen(exchange);
    const method = mounted.handler.requestPath.slice(1);
    const call = newCall(this.#callPipeline.clock, method, exchange.peerIp, exchange.header('authorization'));
    const session = this.#callPipeline.begin(call, { get: (name) => exchange.header(name) });
    const state: State = {
      ...{ session, recorded: false, refusal: undefined, problem: undefined },
      read: () => {},
    };
    const values = createContextValues().set(STATE, state);
    try {
      const body = await this.#message(exchange, state, mounted.access);
      const incoming = inspected(exchange.request(values, body), mounted.input, (problem) => {
        state.problem = problem;
      });
      const response = await mounted.handler(incoming);
      const final = state.recorded
        ? response
        : await this.#refuse(state, mounted.handler, incoming, response);
      await exchange.respond(final);
    } catch (error) {
      // Mostly because the client disconnected: every call still gets one event.
      if (!state.recorded) await session.refuse(exchange.gone ? goneAway() : asApiError(error));
      if (ConnectError.from(error).code !== Code.Aborted) exchange.abort();
    } finally {
      state.read();
    }
    return true;
  }

  /** Reads the message of an authorised caller, once there is a place for the call; empty when it is refused. */
  async #message(exchange: Exchange, state: State, access: Access): Promise<Uint8Array> {
    const { session } = state;
    try {
      await session.authenticate(access);
      const body = await this.#receive(exchange, session, access);
      session.takePlace();
      if (isPacked(exchange)) state.read = await this.#incoming.unpacking.turn();
      if (!exchange.gone) return body;
      throw await session.refuse(goneAway());
    } catch (error) {
      state.recorded = true;
      state.refusal = ConnectError.from(error);
      return NOTHING;
    }
  }

  async #receive(exchange: Exchange, session: ActiveCall, access: Access): Promise<Uint8Array> {
    const limits = limitsOf(access, exchange.header('authorization'));
    let body: Uint8Array;
    try {
      if (isPacked(exchange) && !limits.packed) throw packedWithoutCredential();
      body = await exchange.receive(limits.bytes);
    } catch (error) {
      throw await session.refuse(asApiError(error));
    }
    await session.confirm(access);
    return body;
  }

  async #handleOpen(exchange: Exchange): Promise<boolean> {
    const handler = this.#open.get(exchange.path);
    const type = exchange.header('content-type') ?? '';
    // A gRPC client gets UNIMPLEMENTED for an unknown method, not a 404.
    const unknown = handler === undefined && /^application\/grpc($|\+)/.test(type);
    if (handler === undefined && !unknown) return false;
    let end = () => {};
    try {
      end = this.#openCalls.begin(exchange.peerIp);
      const header = new Headers({ 'content-type': type, 'grpc-status': String(Code.Unimplemented) });
      const values = createContextValues();
      await exchange.respond(
        handler === undefined ? { status: 200, header } : await handler(exchange.request(values)),
      );
    } catch {
      // The client disconnected during the response, or has too many of these calls.
      exchange.abort();
    } finally {
      end();
    }
    return true;
  }

  /** Connect itself refused the request: records it, and lets Connect encode our error in the caller's protocol. */
  async #refuse(
    state: State,
    handler: UniversalHandler,
    request: UniversalServerRequest,
    response: UniversalServerResponse,
  ): Promise<UniversalServerResponse> {
    state.recorded = true;
    const { text, exhausted } = await textOf(response);
    const { problem } = state;
    const found = problem instanceof ApiError ? problem : exhausted ? tooLarge() : unreadable(text);
    state.refusal = await state.session.refuse(found);
    // A wrong content type or HTTP method: there is no protocol to encode our error in.
    if (response.status === 415 || response.status === 405) return response;
    return handler({ ...request, body: nothing() });
  }
}

function unaryHandler({ method, implementation }: Extract<BoundMethod, { kind: 'unary' }>) {
  return (request: Message, context: HandlerContext) => {
    const state = stateOf(context.values);
    state.recorded = true;
    const { skipsUnknownFields } = implementation;
    const read = () => (skipsUnknownFields ? request : known(method, request));
    return state.session.serve(implementation, read, { gone: () => context.signal });
  };
}

function streamHandler(mounted: Extract<BoundMethod, { kind: 'server_streaming' }>) {
  return async function* (request: Message, context: HandlerContext): AsyncGenerator<Message, void> {
    const state = stateOf(context.values);
    state.recorded = true;
    state.read();
    const { messages, end } = await state.session.open(mounted, () => known(mounted.method, request));
    context.signal.addEventListener('abort', end, { once: true });
    if (context.signal.aborted) end();
    yield* messages;
  };
}

/** Returns the request; throws if it has unknown fields. */
function known(method: DescMethod, request: Message): Message {
  refuseUnknownFields(method.input, request);
  return request;
}

/** Runs before Connect reads the body: throws the refusal, if there is one, for Connect to encode. */
function passGate(context: HandlerContext): void {
  const { refusal } = stateOf(context.values);
  if (refusal !== undefined) throw refusal;
}

/** Whether the message is compressed, by the header of any protocol. */
function isPacked(exchange: Exchange): boolean {
  return PACKED.some((name) => (exchange.header(name) ?? 'identity') !== 'identity');
}

function goneAway(): ApiError {
  return new ApiError('REQUEST_NOT_RECEIVED', 'the client went away');
}

function stateOf(values: ContextValues): State {
  const state = values.get(STATE);
  if (state === undefined) throw new Error('a call without its state');
  return state;
}

/** Reads the response that Connect would have sent to its end, which also ends the request. */
async function textOf(response: UniversalServerResponse): Promise<{ text: string; exhausted: boolean }> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body ?? nothing()) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const status = response.trailer?.get('grpc-status') ?? response.header?.get('grpc-status');
  const exhausted =
    status === String(Code.ResourceExhausted) || /"code":\s*"resource_exhausted"|grpc-status: 8\b/.test(text);
  return { text, exhausted };
}

async function* nothing(): AsyncIterable<Uint8Array> {}
