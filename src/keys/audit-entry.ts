import type { AuditEntry, CallOrigin } from './ports/audit.ts';
import type { Clock } from './ports/clock.ts';
import { withoutSecrets } from './text.ts';

/** The facts that a call adds to those of its origin. */
export type EventFacts = Partial<Omit<AuditEntry, 'method' | 'time' | 'callerKeyId' | 'latencyMicros'>> & {
  readonly outcome: string;
};

/** The event of a call. Its latency ends here, at the hand-over to the log. */
export function auditEntry(origin: CallOrigin, clock: Clock, facts: EventFacts): AuditEntry {
  return {
    method: origin.method,
    time: origin.arriveTime,
    outcome: facts.outcome,
    reason: withoutSecrets(facts.reason ?? ''),
    keyId: facts.keyId ?? '',
    callerKeyId: origin.callerKeyId,
    keyFingerprint: facts.keyFingerprint ?? '',
    requiredScope: withoutSecrets(facts.requiredScope ?? ''),
    // peerIp is always the calling backend's. It is recorded, and marked, when that backend sent no client address.
    clientIp: facts.clientIp || origin.peerIp,
    clientIpIsPeer: !facts.clientIp,
    userAgent: facts.userAgent ?? '',
    secretSlot: facts.secretSlot ?? '',
    cost: facts.cost ?? 0,
    dryRun: facts.dryRun ?? false,
    latencyMicros: Math.round((clock.monotonic() - origin.arriveMonotonic) * 1000),
    requestId: withoutSecrets(facts.requestId ?? origin.requestId),
    refusedCalls: 0,
    count: facts.count ?? 0,
    firstTime: facts.firstTime ?? 0,
  };
}
