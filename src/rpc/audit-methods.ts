import { ApiKeyAdmin, type ListAuditEventsRequest } from '../../gen/apikey/v1/admin_pb.ts';
import type { AuditChainHead } from '../../gen/apikey/v1/audit_pb.ts';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../../gen/apikey/v1/integrations_pb.ts';
import { AUDIT_FIELDS, columnOf } from '../audit/fields.ts';
import type { AuditVerifier } from '../audit/verify.ts';
import type { Violations } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';
import type { AuditFilter, AuditLog, ChainHead } from '../keys/ports/audit.ts';
import { isHash } from '../keys/secret.ts';
import { timeOf, toDefectMessage, toEventMessage } from './convert.ts';
import { secretSlotOf } from './enums.ts';
import type { ServiceImplementation } from './method.ts';
import { MethodNames } from './method-names.ts';
import { pageOf, tokenOf } from './page-token.ts';
import { checked, READ } from './requests.ts';

export interface AuditMethodsParts {
  readonly audit: AuditLog;
  readonly verifier: AuditVerifier;
}

const METHODS = new MethodNames([ApiKeyAuth, ApiKeyAdmin, ApiKeyIntegrations]);

/** The methods of ApiKeyAdmin that read and verify the audit. */
export function auditMethods({ audit, verifier }: AuditMethodsParts) {
  return {
    listAuditEvents: {
      access: READ,
      async handle(request) {
        const { filter, page } = checked((found) => {
          const filter = auditFilterOf(found, request);
          return { filter, page: pageOf(found, request, 'events', filter) };
        });
        const { items, next } = await audit.list(filter, page);
        return {
          message: { events: items.map(toEventMessage), nextPageToken: tokenOf(next, 'events', filter) },
          event: { keyId: filter.keyId ?? '' },
        };
      },
    },
    verifyAudit: {
      access: READ,
      async handle({ expectedHeads }, _origin, _call, departure) {
        const kept = checked((found) => expectedHeadsOf(found, expectedHeads));
        const { checkedEvents, defect, heads } = await verifier.verify(kept, departure?.gone());
        return {
          message: {
            intact: defect === undefined,
            checkedEvents: BigInt(checkedEvents),
            heads: heads.map(({ processId, sequence, hash, older = false }) => ({
              processId,
              sequence: BigInt(sequence),
              hash,
              older,
            })),
            ...(defect === undefined ? {} : { firstDefect: toDefectMessage(defect) }),
          },
          event: {
            reason: defect === undefined ? '' : `${defect.kind} ${defect.processId} ${defect.sequence}`,
          },
        };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

function auditFilterOf(found: Violations, request: ListAuditEventsRequest): AuditFilter {
  const id = (field: string, value: string) => (value === '' ? undefined : fields.keyId(found, field, value));
  const method = () => (request.method === '' ? undefined : METHODS.resolve(found, 'method', request.method));
  const readers: Partial<Record<keyof AuditFilter, () => string | undefined>> = {
    keyId: () => id('key_id', request.keyId),
    callerKeyId: () => id('caller_key_id', request.callerKeyId),
    method,
    clientIp: () => fields.clientIp(found, 'client_ip', request.clientIp),
    secretSlot: () => secretSlotOf(found, 'secret_slot', request.secretSlot),
  };
  const asked = AUDIT_FIELDS.filter((field) => 'filter' in field).map(({ name }) => {
    const read = readers[name] ?? (() => fields.optionalText(found, columnOf(name), String(request[name])));
    return [name, read() || undefined];
  });
  const startTime = timeOf(found, 'start_time', request.startTime);
  const endTime = timeOf(found, 'end_time', request.endTime);
  const all = [...asked, ['startTime', startTime], ['endTime', endTime]];
  return Object.fromEntries(all.filter(([, value]) => value !== undefined));
}

const MAX_EXPECTED_HEADS = 1_000;

function expectedHeadsOf(found: Violations, heads: readonly AuditChainHead[]): ChainHead[] {
  if (heads.length > MAX_EXPECTED_HEADS) found.add('expected_heads', `at most ${MAX_EXPECTED_HEADS}`);
  return heads.map(({ processId, sequence, hash }, i) => {
    fields.optionalText(found, `expected_heads[${i}].process_id`, processId);
    if (sequence < 1n) found.add(`expected_heads[${i}].sequence`, '1 or more');
    if (!isHash(hash)) found.add(`expected_heads[${i}].hash`, '64 lower-case hex digits');
    return { processId, sequence: Number(sequence), hash, closed: false };
  });
}
