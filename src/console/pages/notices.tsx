import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import {
  AlertTypeSchema,
  AnomalyState,
  AnomalyStateSchema,
  AnomalyTypeSchema,
} from '../../../gen/apikey/v1/watch_pb.ts';
import { alerts, alertsSeen } from '../alerts.ts';
import { Action, Link, Problem, State, Table, tell, useLoaded } from '../parts.tsx';
import type { Session } from '../session.ts';
import { timeOf, wordOf } from '../words.ts';

export function NoticesPage({ session }: { session: Session }) {
  const { list, unseen } = alerts.value;
  // Alerts that arrive while the page is shown count as seen.
  useEffect(alertsSeen, [unseen]);
  return (
    <>
      <Anomalies session={session} />
      <Lockouts session={session} />
      <section>
        <h2>Alerts, live</h2>
        <Table caption="alerts" head={['Time', 'Kind', 'Text', 'Key']} empty="None in the last 24 hours.">
          {list.map((alert) => (
            <tr key={alert.id}>
              <th scope="row">{timeOf(alert.time)}</th>
              <td>{wordOf(AlertTypeSchema, alert.type)}</td>
              <td>{alert.text}</td>
              <td>{alert.keyId === '' ? '—' : <Link to={`keys/${alert.keyId}`}>{alert.keyId}</Link>}</td>
            </tr>
          ))}
        </Table>
      </section>
    </>
  );
}

function Anomalies({ session }: { session: Session }) {
  const error = useSignal<unknown>(undefined);
  const loaded = useLoaded(
    (signal) => session.clients.admin.listAnomalies({ pageSize: 100 }, { signal }),
    'anomalies',
  );
  const resolve = async (id: string) => {
    error.value = undefined;
    try {
      await session.clients.admin.resolveAnomaly({ id });
      tell('Marked as dealt with.');
      loaded.reload();
    } catch (failure) {
      error.value = failure;
    }
  };
  return (
    <section>
      <h2>Anomalies</h2>
      <Problem error={error.value ?? loaded.error} />
      <Table caption="anomalies" head={['Kind', 'State', 'Key', 'Times', 'First', 'Last', '']} empty="None.">
        {(loaded.data?.anomalies ?? []).map((one) => (
          <tr key={one.id}>
            <th scope="row">{wordOf(AnomalyTypeSchema, one.type)}</th>
            <td>
              <State>{wordOf(AnomalyStateSchema, one.state)}</State>
            </td>
            <td>
              <Link to={`keys/${one.keyId}`}>{one.keyId}</Link>
            </td>
            <td class="number">{String(one.count)}</td>
            <td>{timeOf(one.firstTime)}</td>
            <td>{timeOf(one.lastTime)}</td>
            <td>
              {session.admin && one.state === AnomalyState.OPEN && (
                <Action label="Resolve" act={() => resolve(one.id)} />
              )}
            </td>
          </tr>
        ))}
      </Table>
    </section>
  );
}

function Lockouts({ session }: { session: Session }) {
  const error = useSignal<unknown>(undefined);
  const loaded = useLoaded(
    (signal) => session.clients.admin.listLockouts({ pageSize: 100 }, { signal }),
    'lockouts',
  );
  const clear = async (clientIp: string) => {
    error.value = undefined;
    try {
      await session.clients.admin.clearLockout({ clientIp });
      tell(`${clientIp} may ask again.`);
      loaded.reload();
    } catch (failure) {
      error.value = failure;
    }
  };
  return (
    <section>
      <h2>Locked out addresses</h2>
      <Problem error={error.value ?? loaded.error} />
      <Table caption="locked out addresses" head={['Address', 'Until', '']} empty="None.">
        {(loaded.data?.lockouts ?? []).map(({ clientIp, expireTime }) => (
          <tr key={clientIp}>
            <th scope="row">{clientIp}</th>
            <td>{timeOf(expireTime)}</td>
            <td>{session.admin && <Action label="Clear" act={() => clear(clientIp)} />}</td>
          </tr>
        ))}
      </Table>
    </section>
  );
}
