import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ApiKeyAdmin, GetUsageRequest } from '../../gen/apikey/v1/admin_pb.ts';
import type { Violations } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { UsageFilter } from '../keys/ports/usage.ts';
import { DAY_MS, type UsageReport } from '../watch/usage-report.ts';
import { timeOf } from './convert.ts';
import { decisionOfOutcome, usageStepOf } from './enums.ts';
import type { ServiceImplementation } from './method.ts';
import { checked, READ } from './requests.ts';

export interface UsageMethodsParts {
  readonly usageReport: UsageReport;
  readonly clock: Clock;
}

const STEPS = {
  HOUR: { ms: DAY_MS / 24, shownMs: DAY_MS, mostMs: 31 * DAY_MS, text: '31 days of hours' },
  DAY: { ms: DAY_MS, shownMs: 30 * DAY_MS, mostMs: 400 * DAY_MS, text: '400 days' },
} as const;

/** The methods of ApiKeyAdmin about the use of keys. */
export function usageMethods({ usageReport, clock }: UsageMethodsParts) {
  return {
    getUsage: {
      access: READ,
      async handle(request) {
        const { filter, stepMs } = checked((found) => questionOf(found, request, clock.now()));
        const { rows, lastAddresses } = await usageReport.read(filter, stepMs);
        return {
          message: {
            rows: rows.map(({ time, outcome, count }) => ({
              time: timestampFromMs(time),
              decision: decisionOfOutcome(outcome),
              count: BigInt(count),
            })),
            lastAddresses: lastAddresses.map(({ clientIp, lastTime, count }) => ({
              clientIp,
              lastTime: timestampFromMs(lastTime),
              count: BigInt(count),
            })),
          },
          event: { keyId: filter.keyId ?? '' },
        };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

function questionOf(
  found: Violations,
  request: GetUsageRequest,
  now: number,
): { filter: UsageFilter; stepMs: number } {
  const step = STEPS[usageStepOf(found, 'step', request.step) ?? 'HOUR'];
  const keyId = request.keyId === '' ? undefined : fields.keyId(found, 'key_id', request.keyId);
  const ownerId = fields.optionalText(found, 'owner_id', request.ownerId);
  if (keyId !== undefined && ownerId !== '') found.add('owner_id', 'not together with key_id');
  const end = timeOf(found, 'end_time', request.endTime) ?? now;
  const start = timeOf(found, 'start_time', request.startTime) ?? end - step.shownMs;
  const startTime = Math.floor(start / step.ms) * step.ms;
  const endTime = Math.ceil(end / step.ms) * step.ms;
  if (start >= end) found.add('start_time', 'not before end_time');
  else if (end - start > step.mostMs) found.add('start_time', `more than ${step.text} before end_time`);
  return {
    filter: {
      ...(keyId === undefined ? {} : { keyId }),
      ...(ownerId === '' ? {} : { ownerId }),
      startTime,
      endTime,
    },
    stepMs: step.ms,
  };
}
