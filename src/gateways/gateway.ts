import { ApiError } from '../keys/errors.ts';
import { BOUNDS } from '../keys/key-fields.ts';
import type { CallOrigin } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';
import { forAudit } from '../keys/text.ts';
import type { ValidateInput, ValidateKey } from '../keys/validate-key.ts';
import type { Access } from '../rpc/method.ts';
import { addressIn, entryFromRight } from './client-address.ts';
import type { ClientKey, HeaderOf } from './client-key.ts';
import { type GatewayResponse, isMisconfigured, responseTo } from './response.ts';
import type { Route } from './route.ts';

/** Faults of configuration are few; beyond this number they are not logged. */
const MAX_FAULTS = 100;

export interface GatewayParts {
  readonly validateKey: ValidateKey;
  readonly clock: Clock;
  readonly clientKey: ClientKey;
  /** ALLOW_ANONYMOUS_VALIDATE. */
  readonly allowAnonymous: boolean;
  /** GATEWAY_REASONS. */
  readonly reasons: boolean;
  /** Called once for each fault in a proxy's requests. The text contains nothing from the client. */
  readonly misconfigured: (method: string, text: string) => void;
}

/** Decides about requests held by a proxy: ValidateKey, in terms of proxies. */
export class Gateway {
  readonly #parts: GatewayParts;
  readonly #faults = new Set<string>();
  readonly access: Access;

  constructor(parts: GatewayParts) {
    this.#parts = parts;
    this.access = { anyOf: ['apikeys:validate'], anonymous: parts.allowAnonymous };
  }

  get clientKey(): ClientKey {
    return this.#parts.clientKey;
  }

  /** @param peer the proxy's peer address as sent; undefined without one */
  decide(
    route: Route,
    header: HeaderOf,
    peer: string | undefined,
    origin: CallOrigin,
  ): Promise<GatewayResponse> {
    const { clientKey, validateKey, clock, reasons } = this.#parts;
    const anonymous = origin.callerKeyId === '';
    if (anonymous && route.dryRun) throw new ApiError('CREDENTIAL_MISSING', 'dry_run needs a calling key');
    const { secret, carriers } = clientKey.in(header);
    const asked: ValidateInput = {
      secret: secret ?? '',
      requiredScope: route.requiredScope,
      clientIp: anonymous ? undefined : clientIpOf(route, header, peer),
      userAgent: forAudit(header('user-agent') ?? '', BOUNDS.userAgentCharacters),
      requestId: forAudit(header('x-request-id') ?? '', BOUNDS.textCharacters),
      cost: route.cost,
      dryRun: route.dryRun,
      minRevision: 0,
    };
    const input: ValidateInput = secret === undefined ? { ...asked, keyAbsent: true } : asked;
    return validateKey
      .run(input, origin)
      .then((verdict) => responseTo(verdict, input, clock.now(), reasons, carriers));
  }

  /** Logs a fault of a proxy's configuration, once. */
  note(method: string, error: ApiError): void {
    const fault = `${method} ${error.message}`;
    if (!isMisconfigured(error) || this.#faults.size >= MAX_FAULTS || this.#faults.has(fault)) return;
    this.#faults.add(fault);
    this.#parts.misconfigured(method, error.message);
  }
}

/** The client's address, from the source that the operator has configured as safe from the client. */
function clientIpOf({ trustedHops }: Route, header: HeaderOf, peer: string | undefined): string | undefined {
  if (trustedHops === 0) {
    if (peer === undefined) return undefined;
    return addressIn(peer) ?? misconfigured('client_ip', 'the proxy names an address that is none');
  }
  const entry = entryFromRight(header('x-forwarded-for') ?? '', trustedHops);
  const address = entry === undefined ? undefined : addressIn(entry);
  return (
    address ??
    misconfigured('trusted_hops', `x-forwarded-for has no address at place ${trustedHops} from the right`)
  );
}

function misconfigured(field: string, description: string): never {
  throw new ApiError('INVALID_REQUEST', `${field}: ${description}`, { violations: [{ field, description }] });
}
