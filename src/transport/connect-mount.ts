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
import { newCall } from '../rpc/call.ts';
import type { CallServer, CallSession } from '../rpc/call-server.ts';
import { LIMITS } from '../rpc/limits.ts';
import type { Access, BoundMethod, BoundService } from '../rpc/method.ts';
import { refuseUnknownFields, tooLarge, unreadable } from '../rpc/wire.ts';
import type { Exchange } from './exchange.ts';
import { inspected } from './inspected-body.ts';

/** What a call carries through Connect. */
interface State {
  readonly session: CallSession;
  readonly access: Access;
  /** The implementation has begun, or the call is refused: its event is taken care of. */
  recorded: boolean;
  /** Set for the second pass, in which Connect only words this error. */
  refusal: ConnectError | undefined;
  /** Found in the message before Connect decoded it. */
  problem: unknown;
}

interface Mounted {
  readonly handler: UniversalHandler;
  readonly access: Access;
  readonly input: DescMessage;
}

const STATE = createContextKey<State | undefined>(undefined);

/** Connect, gRPC-Web, gRPC and JSON for everything that speaks HTTP. */
export class ConnectMount {
  readonly #callServer: CallServer;
  readonly #paths = new Map<string, Mounted>();
  readonly #open = new Map<string, UniversalHandler>();

  /** @param addOpen adds services that anybody may call and that are not audited: health and reflection. */
  constructor(
    callServer: CallServer,
    services: readonly BoundService[],
    addOpen: (router: ConnectRouter) => void,
  ) {
    this.#callServer = callServer;
    const router = createConnectRouter({
      readMaxBytes: LIMITS.messageBytes,
      writeMaxBytes: 8 * LIMITS.transportBytes,
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
      readMaxBytes: LIMITS.messageBytes,
      acceptCompression: [compressionGzip],
    });
    addOpen(open);
    for (const handler of open.handlers) this.#open.set(handler.requestPath, handler);
  }

  /** Answers a request for one of our methods; false when the path is not one. */
  async handle(exchange: Exchange): Promise<boolean> {
    const mounted = this.#paths.get(exchange.path);
    if (mounted === undefined) return this.#handleOpen(exchange);
    const method = mounted.handler.requestPath.slice(1);
    const call = newCall(this.#callServer.clock, method, exchange.peerIp, exchange.header('authorization'));
    const session = this.#callServer.begin(call);
    const state: State = {
      session,
      access: mounted.access,
      recorded: false,
      refusal: undefined,
      problem: undefined,
    };
    const values = createContextValues().set(STATE, state);
    try {
      const incoming = inspected(exchange.request(values), mounted.input, (problem) => {
        state.problem = problem;
      });
      const answer = await mounted.handler(incoming);
      const final = state.recorded ? answer : await this.#refuse(state, mounted.handler, incoming, answer);
      await exchange.respond(final);
    } catch (error) {
      // The client has gone: its event is recorded or on its way.
      if (!state.recorded) await session.refuse(new ApiError('REQUEST_NOT_RECEIVED', 'the client went away'));
      if (ConnectError.from(error).code !== Code.Aborted) exchange.abort();
    }
    return true;
  }

  async #handleOpen(exchange: Exchange): Promise<boolean> {
    const handler = this.#open.get(exchange.path);
    const type = exchange.header('content-type') ?? '';
    // A gRPC client is told in its own words that there is no such method.
    const unknown = handler === undefined && /^application\/grpc($|\+)/.test(type);
    if (handler === undefined && !unknown) return false;
    try {
      const header = new Headers({ 'content-type': type, 'grpc-status': String(Code.Unimplemented) });
      const values = createContextValues();
      await exchange.respond(
        handler === undefined ? { status: 200, header } : await handler(exchange.request(values)),
      );
    } catch {
      // The client has gone in the middle of its answer.
      exchange.abort();
    }
    return true;
  }

  /** Connect refused the request by itself: record it, then have Connect word our error in the caller's protocol. */
  async #refuse(
    state: State,
    handler: UniversalHandler,
    request: UniversalServerRequest,
    answer: UniversalServerResponse,
  ): Promise<UniversalServerResponse> {
    state.recorded = true;
    const { text, exhausted } = await textOf(answer);
    const { problem } = state;
    const found = problem instanceof ApiError ? problem : exhausted ? tooLarge() : unreadable(text);
    state.refusal = await state.session.refuse(found);
    // No protocol to word it in: a wrong content type or HTTP method.
    if (answer.status === 415 || answer.status === 405) return answer;
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
    const { messages, end } = await state.session.open(mounted, () => known(mounted.method, request));
    context.signal.addEventListener('abort', end, { once: true });
    if (context.signal.aborted) end();
    yield* messages;
  };
}

/** The request, if this program knows all of its fields. */
function known(method: DescMethod, request: Message): Message {
  refuseUnknownFields(method.input, request);
  return request;
}

/** Runs before Connect reads the body: authenticates, or words the refusal of the second pass. */
async function passGate(context: HandlerContext): Promise<void> {
  const state = stateOf(context.values);
  if (state.refusal !== undefined) throw state.refusal;
  try {
    await state.session.authenticate(state.access);
  } catch (error) {
    state.recorded = true;
    throw error;
  }
}

function stateOf(values: ContextValues): State {
  const state = values.get(STATE);
  if (state === undefined) throw new Error('a call without its state');
  return state;
}

/** What Connect would have sent; read to the end, which also ends the request. */
async function textOf(answer: UniversalServerResponse): Promise<{ text: string; exhausted: boolean }> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of answer.body ?? nothing()) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const status = answer.trailer?.get('grpc-status') ?? answer.header?.get('grpc-status');
  const exhausted =
    status === String(Code.ResourceExhausted) || /"code":\s*"resource_exhausted"|grpc-status: 8\b/.test(text);
  return { text, exhausted };
}

async function* nothing(): AsyncIterable<Uint8Array> {}
