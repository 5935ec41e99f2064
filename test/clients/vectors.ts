import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Script } from '../support/misbehaving-server.ts';
import { ROOT } from '../support/tools.ts';

/** See clients/conformance/README.md. */
export interface Expected {
  readonly status: number;
  readonly grpc: string;
  readonly handled: boolean;
  readonly outcome: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly headersMatch?: Readonly<Record<string, string>>;
  readonly absent?: readonly string[];
  readonly body?: object;
}

export interface Step {
  readonly keyFile?: string | null;
  readonly server: Script;
  readonly requests: readonly {
    readonly headers: Readonly<Record<string, string>>;
    readonly expect: Expected;
  }[];
  readonly calls: { readonly min: number; readonly max: number };
  readonly method?: string;
  readonly sees?: Readonly<Record<string, unknown>>;
  readonly minGapMs?: number;
}

export interface Vector {
  readonly name: string;
  readonly guard?: {
    readonly scope?: string;
    readonly cost?: number;
    readonly trustedHops?: number;
    readonly keyHeaders?: readonly string[];
    readonly batch?: boolean;
    readonly deadlineMs?: number;
  };
  readonly only?: 'http';
  readonly unreachable?: boolean;
  readonly steps: readonly Step[];
}

export const conformance: {
  readonly callingKey: string;
  readonly requiredScopes: readonly { readonly scope: string; readonly ok: boolean }[];
  readonly addresses: readonly {
    readonly forwardedFor: string;
    readonly trustedHops: number;
    readonly clientIp: string | null;
  }[];
  readonly vectors: readonly Vector[];
} = JSON.parse(readFileSync(join(ROOT, 'clients/conformance/vectors.json'), 'utf8'));
