/** A request's header by its name in lower case; several of one name are joined by commas. */
export type HeaderOf = (name: string) => string | undefined;

const BEARER = /^bearer(?: +(.*))?$/is;

/** Where the end client's key is: the first of these headers that is there. */
export class ClientKey {
  readonly names: readonly string[];

  constructor(names: readonly string[]) {
    this.names = names;
  }

  /** Undefined when the client has sent no key. */
  in(header: HeaderOf): string | undefined {
    for (const name of this.names) {
      const secret = secretIn(name, header);
      if (secret !== undefined) return secret;
    }
    return undefined;
  }

  /** The headers that hold a key, whether it was looked at or not. */
  carriers(header: HeaderOf): string[] {
    return this.names.filter((name) => secretIn(name, header) !== undefined);
  }
}

/** `authorization` counts only as Bearer: Basic and others are between the client and the upstream. */
function secretIn(name: string, header: HeaderOf): string | undefined {
  const value = header(name);
  if (value === undefined || name !== 'authorization') return value;
  const bearer = BEARER.exec(value);
  return bearer === null ? undefined : (bearer[1] ?? '');
}
