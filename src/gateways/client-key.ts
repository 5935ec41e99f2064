/** A request's header by its lower-case name; repeated headers are joined by commas. */
export type HeaderOf = (name: string) => string | undefined;

const BEARER = /^bearer(?: +(.*))?$/is;

/** The end client's key, and the headers that carried it. */
export interface FoundKey {
  /** Undefined when the client has sent no key. */
  readonly secret: string | undefined;
  /** All headers that carry a key, including those not read. */
  readonly carriers: readonly string[];
}

/** Finds the end client's key: in the first of these headers that is present. */
export class ClientKey {
  readonly names: readonly string[];

  constructor(names: readonly string[]) {
    this.names = names;
  }

  in(header: HeaderOf): FoundKey {
    let secret: string | undefined;
    const carriers: string[] = [];
    for (const name of this.names) {
      const held = secretIn(name, header);
      if (held === undefined) continue;
      secret ??= held;
      carriers.push(name);
    }
    return { secret, carriers };
  }
}

/** `authorization` counts only as Bearer: Basic and others are between the client and the upstream. */
function secretIn(name: string, header: HeaderOf): string | undefined {
  const value = header(name);
  if (value === undefined || name !== 'authorization') return value;
  const bearer = BEARER.exec(value);
  return bearer === null ? undefined : (bearer[1] ?? '');
}
