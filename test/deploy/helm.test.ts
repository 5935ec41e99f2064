// If this fails, an install on Kubernetes is refused, restarts with its store, runs with rights it must not have, or alerts never fire.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { readConfig, SETTINGS } from '../../src/config.ts';
import { run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { ROOT, tool } from '../support/tools.ts';

const CHART = join(ROOT, 'deploy/helm/apikeyd');
/** The oldest that is tried and the newest; with LONG=1 all between. */
const VERSIONS = Array.from({ length: 10 }, (_, i) => `1.${28 + i}`).filter(
  (_, i) => process.env.LONG === '1' || i === 0 || i === 9,
);
const GOLDEN = join(ROOT, 'test/deploy/golden');

const mongodb = {
  store: { kind: 'mongodb', mongodb: { existingSecret: 'database' } },
  bootstrapKey: { existingSecret: 'first-key' },
  replicas: 3,
};
const tls = { existingSecret: 'server-tls' };
/** Values that an operator may have; the image is added. */
const VALUE_SETS: Record<string, Record<string, unknown>> = {
  embedded: {},
  'embedded without an anchor': { store: { embedded: { anchor: { enabled: false }, storageClass: 'fast' } } },
  'embedded with everything': {
    tls: { ...tls, clientCA: { existingSecret: 'client-ca' } },
    auditChainKey: { existingSecret: 'chain' },
    redis: { existingSecret: 'redis' },
    bootstrapKey: { existingSecret: 'first-key' },
    settings: {
      AUDIT_RETENTION_DAYS: 365,
      CACHE_MAX_CAPACITY: 10_000_000,
      ANOMALY_MAX_ERROR_RATIO: 0.25,
      GATEWAY_REASONS: true,
    },
    serviceMonitor: { enabled: true },
    prometheusRule: { enabled: true, labels: { release: 'prometheus' } },
    networkPolicy: { enabled: true },
  },
  'TLS without mTLS': { tls },
  mongodb,
  'mongodb, one process': { ...mongodb, replicas: 1 },
  'mongodb, scaled': {
    ...mongodb,
    autoscaling: { enabled: true },
    prometheusRule: { enabled: true },
    networkPolicy: {
      enabled: true,
      callers: [{ namespaceSelector: { matchLabels: { team: 'orders' } } }],
      egress: [{ ports: [{ port: 27017 }] }],
    },
  },
  'embedded, watched': {
    serviceMonitor: { enabled: true, interval: '30s', labels: { release: 'prometheus' } },
    dashboard: { enabled: true, labels: { folder: 'keys' } },
  },
  'mongodb, sealed': {
    ...mongodb,
    tls,
    auditChainKey: { existingSecret: 'chain', key: 'hmac' },
    revocationLog: { existingSecret: 'other-cluster' },
    redis: { existingSecret: 'redis' },
    traceHeaders: { existingSecret: 'collector' },
    settings: { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318', OTEL_TRACES_SAMPLER_ARG: 0.01 },
  },
  'mongodb, placed': {
    ...mongodb,
    tls,
    imagePullSecrets: [{ name: 'registry' }],
    nodeSelector: { disk: 'ssd' },
    tolerations: [{ key: 'only', operator: 'Exists' }],
    podLabels: { team: 'platform' },
    podAnnotations: { note: 'x' },
    priorityClassName: 'high',
    service: { type: 'LoadBalancer', annotations: { a: 'b' } },
    image: { digest: `sha256:${'a'.repeat(64)}` },
  },
};

/** Values that must not become an install, and the value that the error names. */
const REFUSED: [string, Record<string, unknown>, string][] = [
  ['two processes on an embedded store', { replicas: 2 }, 'replicas: the embedded store'],
  ['scaling of an embedded store', { autoscaling: { enabled: true } }, 'autoscaling.enabled: the embedded'],
  ['no Secret for the database', { store: { kind: 'mongodb' } }, 'store.mongodb.existingSecret'],
  [
    'an admin key without a place',
    { ...mongodb, bootstrapKey: { existingSecret: '' } },
    'bootstrapKey.existingSecret',
  ],
  ['no image', { image: { repository: '' } }, 'image.repository'],
  ['mTLS without TLS', { tls: { clientCA: { existingSecret: 'ca' } } }, 'tls.existingSecret'],
  ['a grace below the drain', { terminationGracePeriodSeconds: 19 }, 'terminationGracePeriodSeconds'],
  ['a secret among the settings', { settings: { STORE_URL: 'mongodb://u:p@h/' } }, 'STORE_URL'],
  ['a revocation log among the settings', { settings: { REVOCATION_LOG: 'off' } }, 'REVOCATION_LOG'],
  [
    "another cluster's revocation log for an embedded store",
    { revocationLog: { existingSecret: 'other-cluster' } },
    'revocationLog.existingSecret',
  ],
  ['a value that there is not', { replicaCount: 3 }, 'replicaCount'],
  ['no process at all', { replicas: 0 }, 'replicas'],
];

interface Document {
  readonly kind: string;
  // biome-ignore lint/suspicious/noExplicitAny: manifests have no types here, and the schemas of Kubernetes judge them.
  readonly spec: any;
  readonly data?: Readonly<Record<string, string>>;
}
/** Without the files copied from other folders, which have their own test. */
function withoutCopies(document: Document): object {
  if (document.kind === 'PrometheusRule') return { ...document, spec: 'deploy/prometheus' };
  return document.kind === 'ConfigMap' ? { ...document, data: 'deploy/grafana' } : document;
}
interface Judged {
  readonly documents: Document[];
  readonly errors: string[];
}

const folder = mkdtempSync(join(tmpdir(), 'apikeyd-helm-'));
afterAll(() => rmSync(folder, { recursive: true }));

function helm(command: string[], values: Record<string, unknown>) {
  const file = join(folder, `${Math.abs(hash(JSON.stringify(values)))}.json`);
  const image = { repository: 'registry.example/apikeyd', ...(values.image as object | undefined) };
  writeFileSync(file, JSON.stringify({ ...values, image }));
  const home = { HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder };
  return run(tool('helm'), [...command, CHART, '--values', file], { env: home });
}
const hash = (text: string) => [...text].reduce((sum, char) => (sum * 31 + char.charCodeAt(0)) | 0, 7);

requires('helm', 'kubernetes-validate').describe('the chart', () => {
  let judged: Record<string, Judged> = {};
  const of = (name: string) => judged[name]?.documents ?? [];
  const workload = (name: string) => of(name).find(({ kind }) => /^(StatefulSet|Deployment)$/.test(kind));
  const pod = (name: string) => workload(name)?.spec.template.spec;
  const env = (name: string): { name: string; value?: string; valueFrom?: { secretKeyRef: object } }[] =>
    pod(name).containers[0].env;

  beforeAll(async () => {
    const manifests: Record<string, string> = {};
    for (const [name, values] of Object.entries(VALUE_SETS)) {
      const { code, stdout, stderr } = await helm(['template', 'keys', '--namespace', 'prod'], values);
      expect(code, `${name}: ${stderr}`).toBe(0);
      manifests[name] = stdout;
    }
    const input = JSON.stringify({ versions: VERSIONS, manifests });
    const script = join(ROOT, 'test/deploy/validate.py');
    const { stdout, stderr } = await run(tool('kubernetes-validate'), [script], { input });
    expect(stderr).toBe('');
    judged = JSON.parse(stdout);
  }, 120_000);

  it('has no problem that helm lint finds', { timeout: 60_000 }, async () => {
    const { code, stdout, stderr } = await helm(['lint', '--strict'], {});
    expect(code, stdout + stderr).toBe(0);
  });

  it('renders valid Kubernetes objects for each set of values', () => {
    const errors = Object.entries(judged).flatMap(([name, { errors }]) =>
      errors.map((error) => `${name}: ${error}`),
    );
    expect(errors).toEqual([]);
    expect(Object.keys(judged)).toEqual(Object.keys(VALUE_SETS));
  });

  for (const name of Object.keys(VALUE_SETS))
    it(`renders the values "${name}" as in test/deploy/golden (UPDATE_GOLDEN=1 writes it)`, () => {
      const file = join(GOLDEN, `${name.replaceAll(/\W+/g, '-')}.yaml`);
      const made = of(name).map(withoutCopies);
      if (process.env.UPDATE_GOLDEN === '1') {
        mkdirSync(GOLDEN, { recursive: true });
        writeFileSync(file, made.map((document) => stringify(document)).join('---\n'));
      }
      const golden = parseAllDocuments(readFileSync(file, 'utf8')).map((document) => document.toJS());
      expect(made).toEqual(golden);
    });

  it('has golden files exactly for its sets of values', () => {
    const names = Object.keys(VALUE_SETS).map((name) => `${name.replaceAll(/\W+/g, '-')}.yaml`);
    expect(readdirSync(GOLDEN).sort()).toEqual(names.sort());
    expect(names.length).toBeGreaterThanOrEqual(10);
  });

  it('has the rules of deploy/prometheus for its own release, and the dashboard of deploy/grafana', () => {
    const file = readFileSync(join(ROOT, 'deploy/prometheus/apikeyd.rules.yaml'), 'utf8');
    const mine = 'namespace="prod",service="keys-apikeyd-metrics"';
    const [group] = parse(file.replaceAll('job="apikeyd"', mine)).groups;
    const rule = of('mongodb, scaled').find(({ kind }) => kind === 'PrometheusRule');
    expect(rule?.spec).toEqual({ groups: [{ ...group, name: 'keys-apikeyd' }] });
    const map = of('embedded, watched').find(({ kind }) => kind === 'ConfigMap');
    const dashboard = readFileSync(join(ROOT, 'deploy/grafana/apikeyd.json'), 'utf8');
    expect(JSON.parse(map?.data?.['apikeyd.json'] ?? '')).toEqual(JSON.parse(dashboard));
  });

  for (const [what, values, named] of REFUSED)
    it(`refuses ${what}`, { timeout: 60_000 }, async () => {
      const { code, stderr } = await helm(['template', 'keys'], values);
      expect(code).not.toBe(0);
      expect(stderr).toContain(named);
    });

  it('meets the restricted pod security standard, and writes only to volumes', () => {
    for (const name of Object.keys(VALUE_SETS)) {
      const { securityContext, containers, automountServiceAccountToken } = pod(name);
      expect(securityContext).toMatchObject({
        runAsNonRoot: true,
        runAsUser: 65532,
        seccompProfile: { type: 'RuntimeDefault' },
      });
      expect(containers[0].securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      expect(automountServiceAccountToken).toBe(false);
    }
  });

  it('sets only known settings, to values within bounds, and secrets only from Secrets', () => {
    const secret = new Set<string>(SETTINGS.flatMap((row) => ('secret' in row ? [row.name] : [])));
    for (const name of Object.keys(VALUE_SETS)) {
      const plain = env(name).flatMap((row) => (row.value === undefined ? [] : [[row.name, row.value]]));
      const config: Record<string, unknown> = readConfig(Object.fromEntries(plain));
      expect(plain.filter(([key = '', value]) => String(config[key]) !== value)).toEqual([]);
      const fromSecrets = env(name).filter((row) => row.valueFrom?.secretKeyRef !== undefined);
      expect(fromSecrets.filter((row) => !secret.has(row.name))).toEqual([]);
      const known = new Set<string>(SETTINGS.map((row) => row.name));
      expect(env(name).filter((row) => !known.has(row.name))).toEqual([]);
      // A Service named apikeyd would put APIKEYD_PORT there, with which the server does not start.
      expect(pod(name).enableServiceLinks).toBe(false);
    }
    const urls = env('mongodb').filter((row) => row.name === 'STORE_URL');
    expect(urls).toEqual([
      { name: 'STORE_URL', valueFrom: { secretKeyRef: { name: 'database', key: 'STORE_URL' } } },
    ]);
  });

  it('is one StatefulSet with volumes when embedded, and a Deployment of several pods on MongoDB', () => {
    expect(workload('embedded')).toMatchObject({ kind: 'StatefulSet', spec: { replicas: 1 } });
    const claims = workload('embedded')?.spec.volumeClaimTemplates;
    expect(claims.map((claim: { metadata: { name: string } }) => claim.metadata.name)).toEqual([
      'anchor',
      'data',
    ]);
    expect(workload('mongodb')).toMatchObject({ kind: 'Deployment', spec: { replicas: 3 } });
    expect(workload('mongodb, scaled')?.spec).not.toHaveProperty('replicas');
    const kinds = (name: string) => of(name).map(({ kind }) => kind);
    expect(kinds('mongodb')).toContain('PodDisruptionBudget');
    expect(pod('mongodb').topologySpreadConstraints).toHaveLength(2);
    for (const one of ['embedded', 'mongodb, one process'])
      expect([kinds(one).includes('PodDisruptionBudget'), pod(one).topologySpreadConstraints]).toEqual([
        false,
        undefined,
      ]);
    expect(kinds('mongodb, scaled')).toContain('HorizontalPodAutoscaler');
  });

  it('restarts no pod while the store is unavailable, and interrupts no call', () => {
    const probes = (name: string) => pod(name).containers[0];
    for (const probe of ['livenessProbe', 'startupProbe'])
      expect(probes('mongodb')[probe].grpc).toEqual({ port: 50051, service: 'liveness' });
    expect(probes('mongodb').readinessProbe.grpc).toEqual({ port: 50051 });
    // The kubelet speaks gRPC without TLS only, and has no certificate to show.
    for (const name of ['TLS without mTLS', 'embedded with everything']) {
      expect(probes(name).livenessProbe.httpGet).toEqual({ path: '/healthz', port: 'metrics' });
      expect(probes(name).readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'metrics' });
    }
    const sleep = /(\d+)\)$/.exec(probes('mongodb').lifecycle.preStop.exec.command.at(-1))?.[1];
    expect(pod('mongodb').terminationGracePeriodSeconds).toBeGreaterThan(Number(sleep) / 1000 + 14);
  });

  requires('promtool').it('has alerts that Prometheus accepts', { timeout: 60_000 }, async () => {
    for (const name of ['embedded with everything', 'mongodb, scaled']) {
      const rule = of(name).find(({ kind }) => kind === 'PrometheusRule');
      const file = join(folder, 'rules.json');
      writeFileSync(file, JSON.stringify(rule?.spec));
      const { code, stdout, stderr } = await run(tool('promtool'), ['check', 'rules', file]);
      expect(code, stdout + stderr).toBe(0);
    }
  });
});
