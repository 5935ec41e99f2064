import { type MessageInitShape, toJson } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { useSignal } from '@preact/signals';
import type { ListAuditEventsRequestSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import {
  type AuditDefect,
  AuditDefectKindSchema,
  type AuditEvent,
  AuditEventSchema,
} from '../../../gen/apikey/v1/audit_pb.ts';
import { DecisionSchema } from '../../../gen/apikey/v1/auth_pb.ts';
import { Action, Dialog, Field, Link, Problem, State, Table, tell, useLoaded } from '../parts.tsx';
import { go, place, setQuery } from '../router.ts';
import type { Session } from '../session.ts';
import { timeOf, wordOf } from '../words.ts';

export const EVENT_HEAD = ['Time', 'Method', 'Outcome', 'Key', 'Address', ''];
const EXPORT_MOST = 50_000;

/** In words; with the number of calls that an event of a guard stands for. */
function outcomeOf({ outcome, count }: AuditEvent): string {
  const words = outcome
    .replace(/^DECISION_/, '')
    .toLowerCase()
    .replaceAll('_', ' ');
  return count > 0n ? `${words} ×${count}` : words;
}

export function EventRows({ events }: { events: readonly AuditEvent[] }) {
  const shown = useSignal<AuditEvent | undefined>(undefined);
  return (
    <>
      {events.map((event) => (
        <tr key={event.id}>
          <th scope="row">{timeOf(event.time)}</th>
          <td>{event.method.split('/').at(-1)}</td>
          <td>
            <State bad={/^(DECISION|LOCAL)_(?!VALID)/.test(event.outcome)}>{outcomeOf(event)}</State>
          </td>
          <td>{event.keyId === '' ? '—' : <Link to={`keys/${event.keyId}`}>{event.keyId}</Link>}</td>
          <td>{event.clientIp || '—'}</td>
          <td>
            <button
              type="button"
              onClick={() => (shown.value = event)}
              aria-label={`details of the event of ${timeOf(event.time)}`}
            >
              Details
            </button>
            {shown.value === event && (
              <Dialog title="Event" close={() => (shown.value = undefined)}>
                {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a text that scrolls must be reachable by keyboard. */}
                <pre tabIndex={0}>{JSON.stringify(toJson(AuditEventSchema, event), null, 2)}</pre>
                <button type="button" onClick={() => (shown.value = undefined)}>
                  Close
                </button>
              </Dialog>
            )}
          </td>
        </tr>
      ))}
    </>
  );
}

type Filters = MessageInitShape<typeof ListAuditEventsRequestSchema> & object;

function filtersOf(query: URLSearchParams): Filters {
  const read = (name: string) => query.get(name) ?? '';
  const time = (name: string) =>
    read(name) === '' ? {} : { [`${name}Time`]: timestampFromDate(new Date(read(name))) };
  return {
    keyId: read('key'),
    callerKeyId: read('caller'),
    method: read('method'),
    outcome: read('outcome'),
    clientIp: read('address'),
    ...time('start'),
    ...time('end'),
  };
}

const OUTCOMES = DecisionSchema.values
  .filter(({ number }) => number !== 0)
  .map(({ name, number }) => ({ value: name, text: wordOf(DecisionSchema, number) }));

export function AuditPage({ session }: { session: Session }) {
  const { query } = place.value;
  const read = (name: string) => query.get(name) ?? '';
  const { data, error } = useLoaded(
    (signal) =>
      session.clients.admin.listAuditEvents({ ...filtersOf(query), pageToken: read('page') }, { signal }),
    query.toString(),
  );
  const filter = (name: string) => (value: string) => setQuery({ [name]: value, page: '' });
  const next = new URLSearchParams(query);
  next.set('page', data?.nextPageToken ?? '');
  return (
    <>
      <div class="filters">
        <Field label="Key id" name="key" value={read('key')} set={filter('key')} />
        <Field label="Calling key" name="caller" value={read('caller')} set={filter('caller')} />
        <Field label="Method" name="method" value={read('method')} set={filter('method')} />
        <Field
          label="Decision"
          name="outcome"
          value={read('outcome')}
          set={filter('outcome')}
          choices={OUTCOMES}
          none="any"
        />
        <Field label="Client address" name="address" value={read('address')} set={filter('address')} />
        <Field label="From" name="start" type="datetime-local" value={read('start')} set={filter('start')} />
        <Field label="To" name="end" type="datetime-local" value={read('end')} set={filter('end')} />
      </div>
      <Proof session={session} filters={filtersOf(query)} />
      <Problem error={error} />
      <Table caption="events" head={EVENT_HEAD} empty="No event matches.">
        {(data?.events ?? []).length === 0 ? [] : [<EventRows key="rows" events={data?.events ?? []} />]}
      </Table>
      <nav class="row" aria-label="Pages">
        {read('page') !== '' && (
          <button type="button" onClick={() => history.back()}>
            Newer
          </button>
        )}
        {data !== undefined && data.nextPageToken !== '' && (
          <button type="button" onClick={() => go('audit', next)}>
            Older
          </button>
        )}
      </nav>
    </>
  );
}

function defectOf(defect: AuditDefect | undefined): string {
  if (defect === undefined) return 'no place is known';
  return `${wordOf(AuditDefectKindSchema, defect.kind)}, in the chain of ${defect.processId} at ${defect.sequence}`;
}

/** Verifies the chains, and exports the filtered events. */
function Proof({ session, filters }: { session: Session; filters: Filters }) {
  const result = useSignal('');
  const error = useSignal<unknown>(undefined);
  const verify = async () => {
    error.value = undefined;
    const begun = performance.now();
    const tick = () => {
      const seconds = Math.round((performance.now() - begun) / 1000);
      result.value = `Every event is being recomputed: ${seconds} s so far, about half a minute for a million.`;
    };
    tick();
    const ticking = setInterval(tick, 1_000);
    try {
      const { intact, checkedEvents, firstDefect } = await session.clients.admin.verifyAudit({});
      result.value = intact
        ? `Intact: ${checkedEvents} events, each in its place.`
        : `NOT INTACT: ${defectOf(firstDefect)}.`;
    } catch (failure) {
      result.value = '';
      error.value = failure;
    } finally {
      clearInterval(ticking);
    }
  };
  const save = async () => {
    error.value = undefined;
    const lines: string[] = [];
    try {
      let pageToken = '';
      do {
        const page = await session.clients.admin.listAuditEvents({ ...filters, pageSize: 1_000, pageToken });
        for (const event of page.events) lines.push(JSON.stringify(toJson(AuditEventSchema, event)));
        pageToken = page.nextPageToken;
        result.value = `${lines.length} events read …`;
      } while (pageToken !== '' && lines.length < EXPORT_MOST);
      const link = document.createElement('a');
      link.href = URL.createObjectURL(new Blob([`${lines.join('\n')}\n`], { type: 'application/x-ndjson' }));
      link.download = 'audit.jsonl';
      link.click();
      URL.revokeObjectURL(link.href);
      result.value =
        pageToken === '' ? '' : `The newest ${EXPORT_MOST} events; apikeyd audit export has all.`;
      tell(`${lines.length} events saved.`);
    } catch (failure) {
      error.value = failure;
    }
  };
  return (
    <div class="row">
      <Action label="Verify the chains" act={verify} />
      <Action label="Export" act={save} />
      <span role="status">{result.value}</span>
      <Problem error={error.value} />
    </div>
  );
}
