/** The settings of leases: how long a process, or a guard, may decide by what it keeps in memory. */
import type { Row } from './config-values.ts';

export const LEASE_SETTINGS = [
  {
    name: 'REVISION_POLL_MS',
    kind: 'integer',
    unit: 'ms',
    default: '250',
    min: 20,
    max: 10_000,
    about: 'MongoDB: how often a process polls for changes of other processes.',
  },
  {
    name: 'REVISION_LEASE_MS',
    kind: 'integer',
    unit: 'ms',
    default: '1000',
    min: 500,
    max: 60_000,
    about:
      'How long after its last poll of MongoDB a process may use a record from memory, and the longest lease that the embedded store lends to a guard. RevokeKey waits for it, and a fifth more.',
  },
  {
    name: 'GUARD_LEASES',
    kind: 'boolean',
    default: 'true',
    about:
      'Lends leases to guards, which then decide by themselves about keys with local_validation (SyncKeys).',
  },
] as const satisfies readonly Row[];
