// If this fails, dashboards and alerts miss events in a server.
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Distribution } from '../../src/server/distribution.ts';
import { Metrics } from '../../src/server/metrics.ts';
import { decisionOf, makeKey } from '../rpc/cases.ts';
import { HANGS_MS } from '../support/hangs.ts';
import { run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { type Clients, freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { tool } from '../support/tools.ts';

/** The value of one series, its labels as they stand on the page. */
const seriesOf = (page: string, series: string) => {
  const line = page.split('\n').find((text) => text.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
};

describe('the metrics of a server', () => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let clients: Clients;
  const page = async () => (await fetch(`http://127.0.0.1:${server.running.ports.metrics}/metrics`)).text();
  const read = async (series: string) => seriesOf(await page(), series);
  beforeAll(async () => {
    server = await startServer(database.url, database.folder);
    clients = server.clients('grpc');
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });

  const METHOD = 'apikey.v1.ApiKeyAuth/ValidateKey';
  const DURATION = 'rpc_server_call_duration_seconds';

  it('count a call by the RPC conventions of OpenTelemetry and in the older names alike', async () => {
    const { secret } = await makeKey(clients);
    for (let i = 0; i < 3; i++) expect(await decisionOf(clients, secret)).toBe('VALID');
    await clients.auth.validateKey({ key: secret, requiredScope: '*' }).catch(() => {});
    const text = await page();
    const of = (code: string) =>
      `{rpc_system_name="grpc",rpc_method="${METHOD}",rpc_response_status_code="${code}"}`;
    expect(seriesOf(text, `${DURATION}_count${of('OK')}`)).toBe(3);
    expect(seriesOf(text, `${DURATION}_bucket${of('OK').replace('}', ',le="10"}')}`)).toBe(3);
    expect(seriesOf(text, `${DURATION}_count${of('INVALID_ARGUMENT')}`)).toBe(1);
    expect(seriesOf(text, `apikeyd_calls_total{method="${METHOD}",code="OK"}`)).toBe(3);
    expect(seriesOf(text, `apikeyd_call_seconds_count{method="${METHOD}"}`)).toBe(4);
    const sum = seriesOf(text, `${DURATION}_sum${of('OK')}`) ?? 0;
    expect(sum).toBeGreaterThan(0);
    expect(seriesOf(text, 'apikeyd_decisions_total{decision="VALID"}')).toBe(3);
  });

  it('count refused calls by reason, with every reason from the start', async () => {
    const reason = 'apikeyd_refusals_total{reason="CREDENTIAL_INVALID"}';
    const before = (await read(reason)) ?? Number.NaN;
    await server
      .clients('grpc', `audit_v1_${'x'.repeat(22)}`)
      .auth.whoAmI({})
      .catch(() => {});
    expect(await read(reason)).toBe(before + 1);
    expect(await read('apikeyd_refusals_total{reason="AUDIT_OVERLOADED"}')).toBe(0);
    expect(await read('apikeyd_alerts_total{type="LOCKOUT"}')).toBe(0);
  });

  it('count batches, waits for the store, look-ups and connections', async () => {
    const { secret } = await makeKey(clients);
    const before = await page();
    for (let i = 0; i < 2; i++) await decisionOf(clients, secret);
    const after = await page();
    const grown = (series: string) => (seriesOf(after, series) ?? 0) - (seriesOf(before, series) ?? 0);
    // Each call waited for its own event, so each had a batch.
    expect(grown('apikeyd_audit_batch_events_count')).toBeGreaterThanOrEqual(2);
    expect(grown('apikeyd_audit_batch_events_sum')).toBeGreaterThanOrEqual(2);
    expect(grown('apikeyd_store_operation_seconds_count{operation="write_events"}')).toBeGreaterThanOrEqual(
      2,
    );
    expect(seriesOf(after, 'apikeyd_store_operation_seconds_count{operation="insert_keys"}')).toBeGreaterThan(
      0,
    );
    // The key is read once, its caller's record was there each time.
    expect(grown('apikeyd_key_lookups_total{from="store"}')).toBe(1);
    expect(grown('apikeyd_key_lookups_total{from="memory"}')).toBeGreaterThanOrEqual(3);
    expect(seriesOf(after, 'apikeyd_key_records')).toBeGreaterThanOrEqual(2);
    expect(seriesOf(after, 'apikeyd_connections{listener="GRPC_ADDR"}')).toBeGreaterThan(0);
    expect(seriesOf(after, 'apikeyd_audit_queue_limit')).toBe(20_000);
    expect(seriesOf(after, 'apikeyd_calls_under_way')).toBe(0);
  });

  it('show the size of the store on disk, and the lag of the event loop', async () => {
    const text = await page();
    expect(seriesOf(text, 'apikeyd_store_bytes')).toBeGreaterThan(4096);
    const [free = 0, size = 0] = ['apikeyd_store_disk_free_bytes', 'apikeyd_store_disk_bytes'].map((name) =>
      seriesOf(text, name),
    );
    expect(free).toBeGreaterThan(0);
    expect(size).toBeGreaterThanOrEqual(free);
    expect(seriesOf(text, 'process_resident_memory_bytes')).toBeGreaterThan(10 << 20);
    // Each scrape resets the lag: one may fall between the busy turn and the timer that it delays.
    await vi.waitFor(async () => {
      const start = performance.now();
      while (performance.now() - start < 60);
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(await read('apikeyd_event_loop_lag_seconds{of="max"}')).toBeGreaterThan(0.02);
    }, HANGS_MS);
  });

  requires('promtool').it('have no problem that promtool finds', {}, async () => {
    const { code, stdout, stderr } = await run(tool('promtool'), ['check', 'metrics'], {
      input: await page(),
    });
    expect([code, stdout + stderr]).toEqual([0, '']);
  });
});

describe('metrics', () => {
  it('show the age of the lease only on a shared database', async () => {
    const metrics = new Metrics(pino({ level: 'silent' }));
    const age = async () => seriesOf(await metrics.registry.metrics(), 'apikeyd_lease_age_seconds');
    expect(await age()).toBeUndefined();
    const none = { open: 0, refused: 0 };
    metrics.readFrom({
      auditBacklog: () => ({ waiting: 7, limit: 10, unrecorded: 3 }),
      callsUnderWay: () => 5,
      unfinished: { count: 2, bytes: 8192 },
      connections: () => ({ GRPC_ADDR: none }),
      cache: undefined,
      sharing: { skewMs: -250, lease: { holds: false, ageMs: 1500 } },
      certificateSeconds: undefined,
      space: async () => undefined,
    });
    metrics.took('wait_for_leases', 1220);
    const text = await metrics.registry.metrics();
    metrics.stop();
    expect(await age()).toBe(1.5);
    const shown = Object.fromEntries(
      [
        'apikeyd_lease_holds',
        'apikeyd_store_clock_skew_seconds',
        'apikeyd_audit_queue_length',
        'apikeyd_calls_unrecorded_total',
        'apikeyd_unfinished_message_bytes',
        'apikeyd_store_operation_seconds_sum{operation="wait_for_leases"}',
        'apikeyd_store_bytes',
      ].map((name) => [name, seriesOf(text, name)]),
    );
    expect(Object.values(shown)).toEqual([0, -0.25, 7, 3, 8192, 1.22, undefined]);
  });

  it('count a value in the bucket whose bound it does not exceed, and in all above', () => {
    const distribution = new Distribution([1, 2, 5]);
    for (const value of [0, 1, 1.5, 5, 6]) distribution.add(value);
    const lines = distribution.valuesOf('x', {});
    expect(lines.map(({ labels, value }) => [labels?.le, value])).toEqual([
      [1, 2],
      [2, 3],
      [5, 4],
      ['+Inf', 5],
      [undefined, 13.5],
      [undefined, 5],
    ]);
  });
});
