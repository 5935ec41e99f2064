import type { DescService } from '@bufbuild/protobuf';
import type { Violations } from '../keys/errors.ts';

/** Methods in events of the server's own actions; no service has them. */
const OWN_METHODS = ['anomaly', 'bootstrap', 'recover', 'retention', 'sweep'].map(
  (name) => `apikeyd/${name}`,
);

/** Methods in the gateways' events, listed here since rpc does not import the gateways. */
const GATEWAY_METHODS = ['envoy.service.auth.v3.Authorization/Check', 'http/auth', 'http/introspect'];

/** Finds the method that a filter names: bare, as Service/Method, or in full as in events. */
export class MethodNames {
  readonly #full: readonly string[];
  /** The names without their packages. */
  readonly #short: readonly string[];

  constructor(services: readonly DescService[]) {
    const ofServices = services.flatMap(({ typeName, methods }) =>
      methods.map(({ name }) => `${typeName}/${name}`),
    );
    this.#full = [...ofServices, ...GATEWAY_METHODS, ...OWN_METHODS];
    this.#short = this.#full.map((full) => full.replace(/^[a-z0-9.]+\.(?=[A-Z])/, ''));
  }

  resolve(found: Violations, field: string, text: string): string {
    const same = this.#full.filter(
      (full) => full === text || full.endsWith(`/${text}`) || full.endsWith(`.${text}`),
    );
    const [method] = same;
    if (method === undefined)
      found.add(field, `no method has this name; known are ${this.#short.join(', ')}`);
    else if (same.length > 1 && !same.includes(text)) found.add(field, `say which: ${same.join(', ')}`);
    return same.includes(text) ? text : (method ?? text);
  }
}
