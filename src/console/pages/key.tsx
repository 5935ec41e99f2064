import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { useSignal } from '@preact/signals';
import { UsageStep } from '../../../gen/apikey/v1/admin_pb.ts';
import type { AuditEvent } from '../../../gen/apikey/v1/audit_pb.ts';
import {
  KeyStatus,
  KeyStatusSchema,
  KeyTypeSchema,
  RevokeReasonSchema,
  RotationModeSchema,
  RotationState,
} from '../../../gen/apikey/v1/key_pb.ts';
import { UsageChart } from '../chart.tsx';
import { KeyActions } from '../key-actions.tsx';
import { Facts, Link, Problem, State, Table, useLoaded } from '../parts.tsx';
import { serverNow } from '../server-clock.ts';
import type { Session } from '../session.ts';
import { ago, lengthOf, timeOf, wordOf } from '../words.ts';
import { EVENT_HEAD, EventRows } from './audit.tsx';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const RANGES = [
  { name: '24 h', ms: DAY_MS, step: UsageStep.HOUR, stepMs: HOUR_MS },
  { name: '7 days', ms: 7 * DAY_MS, step: UsageStep.HOUR, stepMs: HOUR_MS },
  { name: '30 days', ms: 30 * DAY_MS, step: UsageStep.DAY, stepMs: DAY_MS },
] as const;

export function KeyPage({ session, id }: { session: Session; id: string }) {
  const { data, error, reload } = useLoaded(
    (signal) => session.clients.admin.getKey({ id }, { signal }),
    `key ${id}`,
  );
  const key = data?.key;
  if (key === undefined)
    return error === undefined ? <p class="empty">Loading …</p> : <Problem error={error} />;
  const { rotation } = key;
  return (
    <>
      <div class="bar">
        <div>
          <h2 class="title">{key.name}</h2>
          <code>{key.id}</code> <State>{wordOf(KeyStatusSchema, key.status)}</State>
        </div>
        {session.admin && key.status !== KeyStatus.REVOKED && (
          <KeyActions session={session} given={key} changed={reload} />
        )}
      </div>
      <Problem error={error} />
      <Facts
        rows={[
          ['Owner', key.ownerId],
          ['Type', wordOf(KeyTypeSchema, key.keyType)],
          ['Secret', <code key="hint">{key.hint}</code>],
          ['Scopes', key.scopes.map((scope) => <code key={scope}>{scope} </code>)],
          ['Allowed addresses', key.ipAllowlist.length === 0 ? 'any' : key.ipAllowlist.join(', ')],
          ['Created', timeOf(key.createTime)],
          ['Last used', ago(key.lastUseTime)],
          ['Expires', key.expireTime === undefined ? 'never' : timeOf(key.expireTime)],
          ['Rotate every', key.rotateEvery === undefined ? 'not planned' : lengthOf(key.rotateEvery)],
          ...(rotation?.state === RotationState.ACTIVE
            ? [['Old secret', `works until ${timeOf(rotation.expireTime)}`] as const]
            : []),
          ...(key.localValidation ? [['Decided by', 'backends themselves, under a lease'] as const] : []),
          ...(key.status === KeyStatus.REVOKED
            ? ([
                ['Revoked', timeOf(key.revokeTime)],
                ['Reason', `${wordOf(RevokeReasonSchema, key.revokeReason)} ${key.revokeNote}`],
              ] as const)
            : []),
          ...Object.entries(key.metadata),
        ]}
      />
      <Usage session={session} id={id} />
      <section>
        <h2>Limits</h2>
        <Table caption="limits" head={['Limit', 'Allowed', 'Left now', 'Starts anew']} empty="Unlimited.">
          {(data?.limits ?? []).map((limit) => (
            <tr key={limit.name}>
              <th scope="row">{limit.name}</th>
              <td>
                {String(limit.limit)} in {lengthOf(limit.window)}
              </td>
              <td class="number">{String(limit.remaining)}</td>
              <td>{timeOf(limit.resetTime)}</td>
            </tr>
          ))}
        </Table>
      </section>
      <Rotations session={session} id={id} active={rotation?.state === RotationState.ACTIVE} />
      <LastEvents session={session} id={id} />
    </>
  );
}

function Usage({ session, id }: { session: Session; id: string }) {
  const chosen = useSignal(0);
  const range = RANGES[chosen.value] ?? RANGES[0];
  const to = serverNow();
  const { data, error } = useLoaded(
    (signal) =>
      session.clients.admin.getUsage(
        {
          keyId: id,
          step: range.step,
          startTime: timestampFromMs(to - range.ms),
          endTime: timestampFromMs(to),
        },
        { signal },
      ),
    `usage ${id} ${range.name}`,
  );
  return (
    <section>
      <div class="bar">
        <h2>Usage</h2>
        <fieldset class="row">
          <legend class="unseen">Time</legend>
          {RANGES.map(({ name }, i) => (
            <button
              key={name}
              type="button"
              aria-pressed={i === chosen.value}
              onClick={() => (chosen.value = i)}
            >
              {name}
            </button>
          ))}
        </fieldset>
      </div>
      <Problem error={error} />
      {data !== undefined && (
        <>
          <UsageChart rows={data.rows} stepMs={range.stepMs} from={to - range.ms} to={to} />
          <h3>Addresses in the last 24 hours</h3>
          <Table caption="addresses" head={['Address', 'Last used', 'Events']} empty="None.">
            {data.lastAddresses.map((used) => (
              <tr key={used.clientIp}>
                <th scope="row">{used.clientIp}</th>
                <td>{ago(used.lastTime)}</td>
                <td class="number">{String(used.count)}</td>
              </tr>
            ))}
          </Table>
        </>
      )}
    </section>
  );
}

function Rotations({ session, id, active }: { session: Session; id: string; active: boolean }) {
  const { data, error } = useLoaded(
    (signal) => session.clients.admin.listRotations({ keyId: id, pageSize: 20 }, { signal }),
    `rotations ${id} ${active}`,
  );
  return (
    <section>
      <h2>Rotations</h2>
      <Problem error={error} />
      <Table
        caption="rotations"
        head={['Begun', 'Kind', 'Grace ends', 'Completed', 'Uses of the old secret', 'Last one']}
        empty="Its secret was never replaced."
      >
        {(data?.rotations ?? []).map((one) => (
          <tr key={one.id}>
            <th scope="row">{timeOf(one.startTime)}</th>
            <td>{wordOf(RotationModeSchema, one.mode)}</td>
            <td>{timeOf(one.expireTime)}</td>
            <td>{timeOf(one.completeTime)}</td>
            <td class="number">{String(one.oldUses)}</td>
            <td>
              {one.lastOldUseTime === undefined ? '—' : `${ago(one.lastOldUseTime)} ${one.lastOldUseIp}`}
            </td>
          </tr>
        ))}
      </Table>
    </section>
  );
}

/** Calls that only look at a key, as this page does. */
const LOOKS = /\/(Get|List)[A-Z]\w+$/;
const SHOWN_EVENTS = 10;
const MOST_PAGES = 5;

/** The last uses and changes of a key, among its last 500 events. */
async function usesAndChanges({ clients }: Session, keyId: string, signal: AbortSignal) {
  const found: AuditEvent[] = [];
  let pageToken = '';
  for (let page = 0; page < MOST_PAGES && found.length < SHOWN_EVENTS; page++) {
    const answer = await clients.admin.listAuditEvents({ keyId, pageSize: 100, pageToken }, { signal });
    found.push(...answer.events.filter(({ method }) => !LOOKS.test(method)));
    pageToken = answer.nextPageToken;
    if (pageToken === '') break;
  }
  return found.slice(0, SHOWN_EVENTS);
}

function LastEvents({ session, id }: { session: Session; id: string }) {
  const { data, error } = useLoaded((signal) => usesAndChanges(session, id, signal), `events ${id}`);
  return (
    <section>
      <h2>Last uses and changes</h2>
      <Problem error={error} />
      {data !== undefined && (
        <Table caption="last uses and changes" head={EVENT_HEAD} empty="None.">
          {data.length === 0 ? [] : [<EventRows key="rows" events={data} />]}
        </Table>
      )}
      <Link to="audit" query={new URLSearchParams({ key: id })}>
        All events of this key
      </Link>
    </section>
  );
}
