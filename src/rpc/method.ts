import type { DescMethodUnary, DescService, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { EventFacts } from '../keys/audit-entry.ts';
import type { CallOrigin } from '../keys/ports.ts';
import type { Call } from './call.ts';

/** Which key may call: one with any of these scopes, or anybody. */
export type Access = { readonly anyOf: readonly string[]; readonly anonymous?: boolean } | 'OPEN';

/** An answer. `event` is recorded before it leaves; without one the use case has recorded its own. */
export interface Answer<T> {
  readonly message: T;
  readonly event?: Partial<EventFacts>;
}

export interface Implementation<M extends DescMethodUnary> {
  readonly access: Access;
  handle(
    request: MessageShape<M['input']>,
    origin: CallOrigin,
    call: Call,
  ): Promise<Answer<MessageInitShape<M['output']>>>;
}

/** An implementation for every RPC of a service: the compiler proves that none is missing. */
export type ServiceImplementation<S extends DescService> = {
  readonly [K in keyof S['method']]: S['method'][K] extends DescMethodUnary
    ? Implementation<S['method'][K]>
    : never;
};

/** A service with its implementations, as the mounts take it. */
export interface Mounted {
  readonly service: DescService;
  readonly methods: ReadonlyMap<string, Implementation<DescMethodUnary>>;
}

/** Binds a generated service to its implementation. */
export function mounted<S extends DescService>(
  service: S,
  implementation: ServiceImplementation<S>,
): Mounted {
  const entries = Object.entries(implementation) as [string, Implementation<DescMethodUnary>][];
  return { service, methods: new Map(entries) };
}
