import type {
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf';
import type { EventFacts } from '../keys/audit-entry.ts';
import type { ApiError } from '../keys/errors.ts';
import type { MaybePromise } from '../keys/maybe-promise.ts';
import type { CallOrigin } from '../keys/ports/audit.ts';
import type { Departure, IncomingCall } from './incoming-call.ts';
import { LIMITS } from './limits.ts';

/** The keys that may call: with any of these scopes, any working key, or callers without a key. */
export type Access =
  | { readonly anyOf: readonly string[]; readonly anonymous?: boolean }
  | { readonly anyOf: 'ANY_SCOPE'; readonly anonymous?: false }
  | 'OPEN';
export type RequiredScope = readonly string[] | 'ANY_SCOPE';

/** The bounds of a message. */
export interface MessageLimits {
  readonly bytes: number;
  /** Whether compression is allowed. */
  readonly packed: boolean;
}

const ORDINARY: MessageLimits = { bytes: LIMITS.messageBytes, packed: true };
const OPEN: MessageLimits = { bytes: LIMITS.openMessageBytes, packed: false };
const ANONYMOUS: MessageLimits = { bytes: LIMITS.anonymousMessageBytes, packed: false };

/** Bounds by credential: a call without one may send little, and nothing compressed. */
export function limitsOf(access: Access, authorization: string | undefined): MessageLimits {
  if (access === 'OPEN') return OPEN;
  return access.anonymous === true && authorization === undefined ? ANONYMOUS : ORDINARY;
}

/** A response. `event` is recorded before the response is sent; without it the use case has recorded its own. */
export interface HandlerResult<T> {
  readonly message: T;
  readonly event?: Partial<EventFacts>;
}

/** A faster codec for some messages; undefined leaves a message to the general codec. */
export interface Codec<I, O> {
  decode(bytes: Uint8Array): I | undefined;
  encode(message: O): Uint8Array | undefined;
}

/** The work of one call with one response, independent of the protocol. */
export interface Work<Q, A> {
  readonly access: Access;
  handle(
    question: Q,
    origin: CallOrigin,
    call: IncomingCall,
    departure?: Departure,
  ): MaybePromise<HandlerResult<A>>;
  /** A response that reports this error, where the protocol has one; the error's event is recorded. */
  wordError?(error: ApiError): A | undefined;
}

export interface Implementation<M extends DescMethodUnary>
  extends Work<MessageShape<M['input']>, MessageInitShape<M['output']>> {
  readonly codec?: Codec<MessageShape<M['input']>, MessageInitShape<M['output']>>;
  /** Unknown fields are skipped, since they cannot be conditions here. */
  readonly skipsUnknownFields?: true;
}

/** An open stream. Its event is recorded before the first message is sent. */
export interface OpenStream<T> {
  readonly messages: AsyncIterable<T>;
  /** Ends the stream at once; idempotent. */
  end(failure?: ApiError): void;
  readonly event: Partial<EventFacts>;
}

export interface StreamImplementation<M extends DescMethodServerStreaming> {
  readonly access: Access;
  open(
    request: MessageShape<M['input']>,
    origin: CallOrigin,
    call: IncomingCall,
  ): Promise<OpenStream<MessageInitShape<M['output']>>>;
}

/** An implementation for every RPC of a service: the compiler finds missing ones. */
export type ServiceImplementation<S extends DescService> = {
  readonly [K in keyof S['method']]: S['method'][K] extends DescMethodUnary
    ? Implementation<S['method'][K]>
    : S['method'][K] extends DescMethodServerStreaming
      ? StreamImplementation<S['method'][K]>
      : never;
};

/** A method with its implementation, unary or server-streaming. */
export type BoundMethod =
  | {
      readonly kind: 'unary';
      readonly method: DescMethodUnary;
      readonly implementation: Implementation<DescMethodUnary>;
    }
  | {
      readonly kind: 'server_streaming';
      readonly method: DescMethodServerStreaming;
      readonly implementation: StreamImplementation<DescMethodServerStreaming>;
    };

/** A service with its implementations, in the form for the mounts. */
export interface BoundService {
  readonly service: DescService;
  readonly methods: readonly BoundMethod[];
}

/** Binds a generated service to its implementation. */
export function bindService<S extends DescService>(
  service: S,
  implementation: ServiceImplementation<S>,
): BoundService {
  const implementations = implementation as Record<string, BoundMethod['implementation']>;
  const methods = service.methods.map((method) => {
    const own = implementations[method.localName];
    return { kind: method.methodKind, method, implementation: own } as BoundMethod;
  });
  return { service, methods };
}
