// If this fails, an alert never fires, fires all the time, has no runbook, or a panel shows a metric that there is not.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { readConfig, SETTINGS } from '../../src/config.ts';
import { run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { ROOT, tool } from '../support/tools.ts';

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly runbook: string };
}
const RULES_FILE = join(ROOT, 'deploy/prometheus/apikeyd.rules.yaml');
const rules: readonly Rule[] = parse(readFileSync(RULES_FILE, 'utf8')).groups[0].rules;
const runbooks = readFileSync(join(ROOT, 'docs/runbooks.md'), 'utf8');
const reference = readFileSync(join(ROOT, 'docs/reference/metrics.md'), 'utf8');
const known = new Set([...reference.matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name));
/** Metrics named in an expression that the program does not have. */
const unknownIn = (expr: string) =>
  [...expr.replaceAll(/\{[^}]*\}|by \([^)]*\)/g, '').matchAll(/\b(?:apikeyd|rpc|process)_\w+/g)]
    .map(([name]) => name.replace(/_(bucket|sum|count)$/, ''))
    .filter((name) => !known.has(name));

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-alerts-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A series of one process, its samples a minute apart, as promtool writes them. */
const series = (name: string, values: string, labels = '') => ({
  series: `${name}{job="apikeyd",instance="a"${labels === '' ? '' : `,${labels}`}}`,
  values,
});
type Series = ReturnType<typeof series>;

const waits = (below: string) => [
  series('apikeyd_store_operation_seconds_bucket', below, 'operation="wait_for_leases",le="5"'),
  series('apikeyd_store_operation_seconds_bucket', '0+10x30', 'operation="wait_for_leases",le="10"'),
  series('apikeyd_store_operation_seconds_bucket', '0+10x30', 'operation="wait_for_leases",le="+Inf"'),
];
const answers = (below: string) => {
  const of = 'rpc_method="apikey.v1.ApiKeyAuth/ValidateKey",rpc_response_status_code="OK"';
  return [
    series('rpc_server_call_duration_seconds_bucket', below, `${of},le="0.25"`),
    series('rpc_server_call_duration_seconds_bucket', '0+1000x30', `${of},le="1"`),
    series('rpc_server_call_duration_seconds_bucket', '0+1000x30', `${of},le="+Inf"`),
  ];
};
const refusals = (reason: string, each: string) => [
  series('apikeyd_refusals_total', each, `reason="${reason}"`),
  series('apikeyd_calls_total', '0+1000x30', 'method="m",code="OK"'),
];
/** A third kind of line: one that grew in the last minutes before the look, and one that did not. */
const grew = '0x20 1x10';
const still = '7x30';

/** For each alert: series that make it fire, and series just below its threshold. Evaluated after 25 minutes. */
const CASES: Record<string, { fires: Series[]; quiet: Series[]; of?: string }> = {
  ApikeydAbsent: { fires: [], quiet: [series('apikeyd_serving', '1x30')], of: '{job="apikeyd"}' },
  ApikeydNotServing: {
    fires: [series('apikeyd_serving', '1x20 0x10')],
    // Away for one look, and back.
    quiet: [series('apikeyd_serving', '1x23 0 1x10')],
  },
  ApikeydRevocationSlow: { fires: waits('0+9x30'), quiet: waits('0+10x30'), of: '{}' },
  ApikeydLeaseLost: {
    fires: [series('apikeyd_lease_holds', '1x20 0x10')],
    quiet: [series('apikeyd_lease_holds', '1x30')],
  },
  ApikeydClockSkew: {
    fires: [series('apikeyd_store_clock_skew_seconds', '-1.5x30')],
    quiet: [series('apikeyd_store_clock_skew_seconds', '-0.9x30')],
  },
  ApikeydAuditQueue: {
    fires: [
      series('apikeyd_audit_queue_length', '10001x30'),
      series('apikeyd_audit_queue_limit', '20000x30'),
    ],
    quiet: [series('apikeyd_audit_queue_length', '9999x30'), series('apikeyd_audit_queue_limit', '20000x30')],
  },
  ApikeydGapEvents: {
    fires: [series('apikeyd_calls_unrecorded_total', grew)],
    quiet: [series('apikeyd_calls_unrecorded_total', still)],
    of: '{instance="a"}',
  },
  ApikeydAuditDefect: {
    fires: [series('apikeyd_audit_defects_total', grew)],
    quiet: [series('apikeyd_audit_defects_total', still)],
  },
  ApikeydAnchorNotWritten: {
    fires: [series('apikeyd_audit_anchor_failures_total', grew)],
    quiet: [series('apikeyd_audit_anchor_failures_total', still)],
  },
  ApikeydRefusals: {
    fires: refusals('STORE_UNAVAILABLE', '0+11x30'),
    // Errors of callers are not failures of the service.
    quiet: refusals('INVALID_REQUEST', '0+500x30'),
    of: '{}',
  },
  ApikeydSlow: { fires: answers('0+980x30'), quiet: answers('0+995x30'), of: '{}' },
  ApikeydDiskFull: {
    fires: [series('apikeyd_store_disk_free_bytes', '9x30'), series('apikeyd_store_disk_bytes', '100x30')],
    quiet: [series('apikeyd_store_disk_free_bytes', '11x30'), series('apikeyd_store_disk_bytes', '100x30')],
  },
  ApikeydCertificateExpires: {
    fires: [series('apikeyd_tls_certificate_expires_seconds', '1200000-60x30')],
    quiet: [series('apikeyd_tls_certificate_expires_seconds', '1300000-60x30')],
  },
  ApikeydManyLockouts: {
    fires: [series('apikeyd_alerts_total', '0x20 6x10', 'type="LOCKOUT"')],
    quiet: [series('apikeyd_alerts_total', '0x20 4x10', 'type="LOCKOUT"')],
    of: '{}',
  },
  ApikeydLogLinesDropped: {
    fires: [series('apikeyd_log_lines_dropped_total', grew)],
    quiet: [series('apikeyd_log_lines_dropped_total', still)],
  },
};

/** The labels of the alert: the remaining labels of the series. */
function labelsOf({ alert, labels }: Rule): Record<string, string> {
  const { of = '{instance="a",job="apikeyd"}' } = CASES[alert] ?? {};
  return { ...labels, ...Object.fromEntries([...of.matchAll(/(\w+)="(\w+)"/g)].map(([, k, v]) => [k, v])) };
}

function testOf(rule: Rule, input: readonly Series[], fires: boolean) {
  const exp_labels = labelsOf(rule);
  const { summary, runbook } = rule.annotations;
  const exp_annotations = { runbook, summary: summary.replace('{{ $labels.instance }}', 'a') };
  // Another one's alarm is not looked at: the series that it needs are not there.
  const alert = {
    eval_time: '25m',
    alertname: rule.alert,
    exp_alerts: fires ? [{ exp_labels, exp_annotations }] : [],
  };
  return { interval: '1m', input_series: input, alert_rule_test: [alert] };
}

describe('the alert rules', () => {
  it('each have a case that fires and one that does not', () => {
    expect(Object.keys(CASES)).toEqual(rules.map(({ alert }) => alert));
  });

  requires('promtool').it('fire in those cases, and in no others', {}, async () => {
    const tests = rules.flatMap((rule) => {
      const { fires, quiet } = CASES[rule.alert] ?? { fires: [], quiet: [] };
      return [testOf(rule, fires, true), testOf(rule, quiet, false)];
    });
    const file = join(folder, 'tests.json');
    const content = { rule_files: [RULES_FILE], evaluation_interval: '1m', tests };
    writeFileSync(file, JSON.stringify(content));
    const { code, stdout, stderr } = await run(tool('promtool'), ['test', 'rules', file]);
    expect(code, stdout + stderr).toBe(0);
  });

  it('use only existing metrics', () => {
    expect(rules.flatMap(({ alert, expr }) => unknownIn(expr).map((name) => `${alert}: ${name}`))).toEqual(
      [],
    );
    expect(unknownIn('rate(apikeyd_invented_total{a="b"}[5m])')).toEqual(['apikeyd_invented_total']);
  });

  it('each name a section of the runbooks, whose first command runs', () => {
    const sections = runbooks.split(/^## /m).slice(1);
    for (const { alert, annotations } of rules) {
      expect(annotations.runbook).toBe(`docs/runbooks.md#${alert.toLowerCase()}`);
      const section = sections.find((text) => text.startsWith(`${alert}\n`));
      // docs.test.ts runs it.
      expect(section, alert).toMatch(/^```sh\n\S/m);
    }
    const ofAlerts = sections.filter((text) => text.startsWith('Apikeyd')).map((text) => text.split('\n')[0]);
    expect(ofAlerts).toEqual(rules.map(({ alert }) => alert));
  });
});

describe('the dashboard', () => {
  const { panels, templating } = JSON.parse(readFileSync(join(ROOT, 'deploy/grafana/apikeyd.json'), 'utf8'));
  const queries: [title: string, expr: string][] = panels.flatMap(
    ({ title, targets }: { title: string; targets: { expr: string }[] }) =>
      targets.map(({ expr }) => [title, expr]),
  );

  it('shows only existing metrics, in panels that do not overlap', () => {
    expect(queries.length).toBeGreaterThan(panels.length - 1);
    expect(queries.flatMap(([title, expr]) => unknownIn(expr).map((name) => `${title}: ${name}`))).toEqual(
      [],
    );
    const variables = templating.list.flatMap(
      ({ query }: { query: { query?: string } }) => query.query ?? [],
    );
    expect(variables.flatMap(unknownIn)).toEqual([]);
    const places = panels.map(({ gridPos: { x, y } }: { gridPos: { x: number; y: number } }) => `${x} ${y}`);
    expect(new Set(places).size).toBe(panels.length);
  });

  requires('promtool').it('has queries that Prometheus accepts', {}, async () => {
    const file = join(folder, 'queries.json');
    const rules = queries.map(([, expr], i) => ({
      record: `query_${i}`,
      expr: expr.replaceAll('$__rate_interval', '5m'),
    }));
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'queries', rules }] }));
    const { code, stdout, stderr } = await run(tool('promtool'), ['check', 'rules', file]);
    expect(code, stdout + stderr).toBe(0);
  });
});

describe('deploy/compose.yaml', () => {
  const { services, volumes } = parse(readFileSync(join(ROOT, 'deploy/compose.yaml'), 'utf8'));
  const prometheus = parse(readFileSync(join(ROOT, 'deploy/prometheus/prometheus.yaml'), 'utf8'));

  it('mounts only existing files and declared volumes', () => {
    const mounts: string[] = Object.values<{ volumes: string[] }>(services).flatMap(
      (service) => service.volumes,
    );
    const sources = mounts.map((mount) => mount.split(':')[0] ?? '');
    const missing = sources.filter((source) =>
      source.startsWith('.') ? !existsSync(join(ROOT, 'deploy', source)) : !(source in volumes),
    );
    expect(missing).toEqual([]);
    expect(mounts).toContain('./prometheus/apikeyd.rules.yaml:/etc/prometheus/apikeyd.rules.yaml:ro');
    expect(prometheus.rule_files).toEqual(['/etc/prometheus/apikeyd.rules.yaml']);
  });

  it('opens ports only on this machine, and gives the server only known settings', () => {
    const ports = Object.values<{ ports?: string[] }>(services).flatMap((service) => service.ports ?? []);
    expect(ports.filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([]);
    expect(() => readConfig(services.apikeyd.environment)).not.toThrow();
    const names = new Set<string>(SETTINGS.map(({ name }) => name));
    expect(Object.keys(services.apikeyd.environment).filter((name) => !names.has(name))).toEqual([]);
  });

  it('has Prometheus scrape the server under the job name of the rules', () => {
    expect(prometheus.scrape_configs).toEqual([
      { job_name: 'apikeyd', static_configs: [{ targets: ['apikeyd:9464'] }] },
    ]);
    expect(rules.filter(({ expr }) => !expr.includes('{job="apikeyd"'))).toEqual([]);
  });
});
