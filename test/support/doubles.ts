import type { AuditEntry, AuditLog } from '../../src/keys/ports/audit.ts';
import type { KeyStore } from '../../src/keys/ports/key-store.ts';

/** A key store whose reads wait until the test lets them go, to bring about one order of events. */
export class GatedKeyStore {
  readonly store: KeyStore;
  reads = 0;
  #gates: (() => void)[] = [];
  gated = false;

  constructor(inner: KeyStore) {
    const proxy = this;
    this.store = new Proxy(inner, {
      get(target, name) {
        const member = Reflect.get(target, name) as unknown;
        if (typeof member !== 'function') return member;
        if (name !== 'findByHash') return member.bind(target);
        return async (...args: unknown[]) => {
          proxy.reads++;
          // The result is the state of the store when the read was sent, however late it arrives.
          const answer = await (member as (...a: unknown[]) => Promise<unknown>).apply(target, args);
          if (proxy.gated) await new Promise<void>((resolve) => proxy.#gates.push(resolve));
          return answer;
        };
      },
    });
  }

  open(): void {
    this.gated = false;
    for (const go of this.#gates.splice(0)) go();
  }

  get waiting(): number {
    return this.#gates.length;
  }
}

/** Keeps events in memory; a test may make it fail. */
export class MemoryAudit {
  readonly entries: AuditEntry[] = [];
  refused = 0;
  failure: Error | undefined;

  get log(): AuditLog {
    return {
      record: async (entry) => {
        if (this.failure !== undefined) throw this.failure;
        this.entries.push(entry);
      },
      countRefused: (calls) => {
        this.refused += calls;
      },
    } as AuditLog;
  }
}
