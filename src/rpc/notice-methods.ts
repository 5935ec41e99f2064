import type { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { auditEntry } from '../keys/audit-entry.ts';
import { ApiError } from '../keys/errors.ts';
import * as fields from '../keys/key-fields.ts';
import type { Alert, AnomalyFilter, AnomalyLog } from '../keys/notices.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { AlertFeed } from '../watch/alert-feed.ts';
import { timeOf, toAlertMessage, toAnomalyMessage } from './convert.ts';
import { anomalyStateOf, anomalyTypeOf } from './enums.ts';
import type { ServiceImplementation } from './method.ts';
import { pageOf, tokenOf } from './page-token.ts';
import { ADMIN, checked, READ, subscriberOf } from './requests.ts';

export interface NoticeMethodsParts {
  readonly anomalies: AnomalyLog;
  readonly alertFeed: AlertFeed;
  readonly clock: Clock;
}

/** The methods of ApiKeyAdmin about anomalies and alerts. */
export function noticeMethods({ anomalies, alertFeed, clock }: NoticeMethodsParts) {
  return {
    listAnomalies: {
      access: READ,
      async handle(request) {
        const { filter, page } = checked((found) => {
          const type = anomalyTypeOf(found, 'type', request.type);
          const state = anomalyStateOf(found, 'state', request.state);
          const filter: AnomalyFilter = {
            ...(request.keyId === '' ? {} : { keyId: fields.keyId(found, 'key_id', request.keyId) }),
            ...(type === undefined ? {} : { type }),
            ...(state === undefined ? {} : { state }),
          };
          return { filter, page: pageOf(found, request, 'anomalies', filter) };
        });
        const { items, next } = await anomalies.list(filter, page);
        return {
          message: {
            anomalies: items.map(toAnomalyMessage),
            nextPageToken: tokenOf(next, 'anomalies', filter),
          },
          event: { keyId: request.keyId },
        };
      },
    },
    resolveAnomaly: {
      access: ADMIN,
      async handle(request, origin) {
        const id = checked((found) => fields.requiredText(found, 'id', request.id));
        const entry = auditEntry(origin, clock, { outcome: 'OK', reason: id });
        const anomaly = await anomalies.resolve(id, clock.now(), entry);
        if (anomaly === undefined) throw new ApiError('ANOMALY_NOT_FOUND', `no anomaly ${id}`);
        return { message: { anomaly: toAnomalyMessage(anomaly) } };
      },
    },
    watchAlerts: {
      access: READ,
      async open(request, origin) {
        const since = checked((found) => timeOf(found, 'since_time', request.sinceTime));
        const { alerts, subscription } = alertFeed.subscribe(since, subscriberOf(origin));
        return { messages: messagesOf(alerts), end: (failure) => subscription.end(failure), event: {} };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

async function* messagesOf(alerts: AsyncIterable<Alert>) {
  for await (const alert of alerts) yield { alert: toAlertMessage(alert) };
}
