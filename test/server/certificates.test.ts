// If this fails, a renewed certificate is served only after a restart, a bad one ends the service, calls fail while
// certificates change, or clients with certificates of strangers are let in.
import { X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { readConfig } from '../../src/config.ts';
import { Certificates } from '../../src/server/certificates.ts';
import { readTls } from '../../src/server/setting-files.ts';
import type { TlsFiles } from '../../src/transport/listener.ts';
import { certificate } from '../support/certificate.ts';
import { TestClock } from '../support/clock.ts';
import { apikeyd, spawnServer } from '../support/process.ts';
import { freshDatabase, startServer } from '../support/server.ts';

type Pair = ReturnType<typeof certificate>;
const KEY = `audit_v1_${'k'.repeat(22)}`;

const ca = certificate({ name: 'our CA' });
const fromCa = (until?: Date) => certificate({ issuer: ca, ...(until === undefined ? {} : { until }) });

let folder: string;
let settings: { TLS_CERT_FILE: string; TLS_KEY_FILE: string };
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'certificates-'));
  // As Kubernetes lays a secret out: a link that is swapped.
  settings = {
    TLS_CERT_FILE: join(folder, 'now', 'tls.crt'),
    TLS_KEY_FILE: join(folder, 'now', 'tls.key'),
  };
});
afterEach(() => rmSync(folder, { recursive: true }));

let swaps = 0;
/** Swaps the link, so that the certificate and its key change at once. */
function swapIn({ cert, key }: { cert: Buffer; key: Buffer }): void {
  const version = join(folder, `version-${++swaps}`);
  mkdirSync(version);
  writeFileSync(join(version, 'tls.crt'), cert);
  writeFileSync(join(version, 'tls.key'), key);
  symlinkSync(version, join(folder, 'next'));
  renameSync(join(folder, 'next'), join(folder, 'now'));
}

const fingerprint = ({ cert }: { cert: Buffer }) => new X509Certificate(cert).fingerprint256;

interface Asked {
  readonly status: number | undefined;
  readonly shown: string;
}

/** One request on a connection of its own. */
function ask(port: number, client: { cert?: Buffer; key?: Buffer } = {}): Promise<Asked> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: '/healthz', ca: ca.cert, agent: false, ...client };
    get(options, (response) => {
      const shown = (response.socket as TLSSocket).getPeerX509Certificate()?.fingerprint256 ?? '';
      response.resume().once('end', () => resolve({ status: response.statusCode, shown }));
    }).once('error', reject);
  });
}

describe('TLS files that change', () => {
  const clock = new TestClock();
  let used: TlsFiles[];
  let log: { level: number; msg: string; reason?: string }[];
  let certificates: Certificates;

  async function begin(more: Record<string, string> = {}): Promise<void> {
    const config = readConfig({ ...settings, ...more });
    const tls = await readTls(config);
    if (tls === undefined) throw new Error('no TLS');
    used = [];
    log = [];
    certificates = new Certificates({
      tls,
      read: () => readTls(config),
      use: (files) => used.push(files),
      clock,
      logger: pino({}, { write: (line: string) => log.push(JSON.parse(line)) }),
    });
  }

  it('are used after a change, and the metric of the time left is that of the new certificate', async () => {
    swapIn(fromCa(new Date(clock.now() + 60_000)));
    await begin();
    expect(certificates.secondsLeft).toBe(60);
    await certificates.look();
    expect([used, log]).toEqual([[], []]);
    const next = fromCa(new Date(clock.now() + 120_000));
    swapIn(next);
    await certificates.look();
    await certificates.look();
    expect(used).toEqual([{ cert: next.cert, key: next.key, clientCa: undefined }]);
    expect(log).toMatchObject([{ level: 30 }]);
    expect(certificates.secondsLeft).toBe(120);
    clock.advance(121_000);
    expect(certificates.secondsLeft).toBe(-1);
  });

  it('are checked periodically until the server stops', async () => {
    swapIn(fromCa());
    await begin();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      certificates.start();
      for (let turn = 1; turn <= 2; turn++) {
        swapIn(fromCa());
        vi.advanceTimersByTime(2_000);
        await vi.waitUntil(() => used.length === turn && vi.getTimerCount() === 1);
      }
      certificates.stop();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  const good = fromCa();
  const half = (pem: Buffer) => pem.subarray(0, pem.length / 2);
  it.each<[string, { cert: Buffer; key: Buffer } | undefined, RegExp]>([
    [
      'the key of another certificate',
      { cert: good.cert, key: fromCa().key },
      /^TLS_KEY_FILE: cannot be used/,
    ],
    ['a half-written certificate', { ...good, cert: half(good.cert) }, /^TLS_CERT_FILE: holds no whole/],
    [
      'a chain whose second certificate is half written',
      { ...good, cert: Buffer.concat([good.cert, half(ca.cert)]) },
      /^TLS_CERT_FILE: a certificate of it has no end/,
    ],
    ['a half-written key', { ...good, key: half(good.key) }, /^TLS_KEY_FILE: cannot be used/],
    ['empty files', { cert: Buffer.alloc(0), key: Buffer.alloc(0) }, /^TLS_CERT_FILE: holds no whole/],
    [
      'bytes that are no certificate',
      {
        ...good,
        cert: Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'),
      },
      /^TLS_CERT_FILE: certificate 1 cannot be read/,
    ],
    [
      'a certificate that has expired',
      fromCa(new Date('2020-01-01')),
      /^TLS_CERT_FILE: the certificate expired/,
    ],
    ['no file', undefined, /^TLS_CERT_FILE: cannot be read: ENOENT/],
  ])('with %s are logged once, and tried again after the next change', async (_what, bad, reason) => {
    swapIn(fromCa());
    await begin();
    if (bad === undefined) unlinkSync(join(folder, 'now'));
    else swapIn(bad);
    for (let turn = 0; turn < 3; turn++) await certificates.look();
    expect(used).toEqual([]);
    expect(log).toMatchObject([{ level: 40, reason: expect.stringMatching(reason) }]);
    // An explicit request is logged again.
    await certificates.lookAgain();
    expect(log).toHaveLength(2);
    const next = fromCa();
    swapIn(next);
    await certificates.look();
    expect(used.map(fingerprint)).toEqual([fingerprint(next)]);
  });

  it('keep the old client CA while its file is half written, which would refuse every client', async () => {
    swapIn(fromCa());
    const file = join(folder, 'ca.pem');
    writeFileSync(file, ca.cert);
    await begin({ TLS_CLIENT_CA_FILE: file });
    writeFileSync(file, half(ca.cert));
    await certificates.look();
    expect(used).toEqual([]);
    expect(log).toMatchObject([
      { level: 40, reason: expect.stringMatching(/^TLS_CLIENT_CA_FILE: holds no/) },
    ]);
    const both = Buffer.concat([ca.cert, certificate({ name: 'new CA' }).cert]);
    writeFileSync(file, both);
    await certificates.look();
    expect(used).toMatchObject([{ clientCa: both }]);
  });
});

describe('a server with TLS', () => {
  const database = () => freshDatabase('sqlite', '');

  it('fails no call while its certificate is replaced, on SIGHUP and without', async () => {
    const store = database();
    swapIn(fromCa());
    const server = await spawnServer(store.url, store.folder, { ...settings, ADMIN_BOOTSTRAP_KEY: KEY });
    const failures: unknown[] = [];
    let served = 0;
    let ending = false;
    const again = async (call: () => Promise<unknown>) => {
      while (!ending)
        await call().then(
          () => served++,
          (error) => failures.push(error),
        );
    };
    // One connection that stays, and new ones all the time, on both ports.
    const transport = createGrpcTransport({
      baseUrl: `https://127.0.0.1:${server.ports.grpc}`,
      nodeOptions: { ca: ca.cert },
      interceptors: [
        (next) => (request) => {
          request.header.set('authorization', `Bearer ${KEY}`);
          return next(request);
        },
      ],
    });
    const auth = createClient(ApiKeyAuth, transport);
    const { grpc, http } = server.ports;
    const calls = [
      again(() => auth.validateKey({ key: KEY })),
      ...[grpc, http].map((p) => again(() => ask(p))),
    ];
    try {
      for (let turn = 0; turn < 6; turn++) {
        const before = served;
        const next = fromCa();
        swapIn(next);
        if (turn > 0) server.child.kill('SIGHUP');
        for (const port of [grpc, http])
          await vi.waitUntil(async () => (await ask(port)).shown === fingerprint(next), { timeout: 60_000 });
        await vi.waitUntil(() => served > before + 20, { timeout: 60_000 });
      }
    } finally {
      ending = true;
      await Promise.all(calls);
      await server.end('SIGTERM');
      await store.drop();
    }
    expect(failures).toEqual([]);
    expect(server.output()).not.toContain('"level":"warn"');
  }, 120_000);

  it('keeps its certificate when the next one is invalid', async () => {
    const store = database();
    const first = fromCa();
    swapIn(first);
    const server = await startServer(store.url, store.folder, settings);
    swapIn({ cert: fromCa().cert, key: fromCa().key });
    await server.running.readCertificates();
    const { grpc, http } = server.running.ports;
    for (const port of [grpc, http])
      expect(await ask(port)).toEqual({ status: 200, shown: fingerprint(first) });
    expect(server.log.filter((line) => line.includes('TLS files cannot be used'))).toHaveLength(1);
    await server.stop();
    await store.drop();
  });

  it('accepts only client certificates of the current CA file that have not expired', async () => {
    const store = database();
    const file = join(folder, 'ca.pem');
    writeFileSync(file, ca.cert);
    swapIn(fromCa());
    const server = await startServer(store.url, store.folder, { ...settings, TLS_CLIENT_CA_FILE: file });
    const other = certificate({ name: 'other CA' });
    const ours = fromCa();
    const foreign = certificate({ issuer: other });
    const namesake = certificate({ issuer: certificate({ name: ca.name }) });
    const expired = fromCa(new Date(Date.now() - 60_000));
    const early = certificate({ issuer: ca, from: new Date(Date.now() + 3_600_000) });
    const { grpc, http } = server.running.ports;
    const letIn = async (client: Pair | Record<string, never>) => {
      const { cert, key } = client as Partial<Pair>;
      const asked = [grpc, http].map((port) =>
        ask(port, cert === undefined || key === undefined ? {} : { cert, key }).then(
          ({ status }) => status === 200,
          () => false,
        ),
      );
      const [onGrpc, onHttp] = await Promise.all(asked);
      expect(onGrpc).toBe(onHttp);
      return onHttp;
    };
    try {
      expect(await letIn(ours)).toBe(true);
      for (const stranger of [foreign, namesake, expired, early, {}])
        expect(await letIn(stranger)).toBe(false);
      writeFileSync(file, other.cert);
      await server.running.readCertificates();
      expect([await letIn(foreign), await letIn(ours)]).toEqual([true, false]);
    } finally {
      await server.stop();
      await store.drop();
    }
  });

  it('does not resume a session of a CA that was removed', async () => {
    const store = database();
    const file = join(folder, 'ca.pem');
    writeFileSync(file, ca.cert);
    swapIn(fromCa());
    const server = await startServer(store.url, store.folder, { ...settings, TLS_CLIENT_CA_FILE: file });
    const { cert, key } = fromCa();
    const { http: port } = server.running.ports;
    /** Whether a request was answered, whether the session was resumed, and the session to come back with. */
    const visit = (session?: Buffer) =>
      new Promise<{ answered: boolean; resumed: boolean; session: Buffer | undefined }>((resolve) => {
        const socket = connect({
          host: '127.0.0.1',
          port,
          ca: ca.cert,
          cert,
          key,
          ...(session && { session }),
        });
        let [given, text, resumed]: [Buffer | undefined, string, boolean] = [undefined, '', false];
        socket.on('session', (next: Buffer) => (given = next));
        socket.on('data', (chunk) => (text += chunk));
        socket.on('error', () => {});
        socket.once('secureConnect', () => (resumed = socket.isSessionReused()));
        socket.once('close', () =>
          resolve({
            answered: text.startsWith('HTTP/1.1 200'),
            resumed,
            session: given,
          }),
        );
        socket.write('GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
      });
    try {
      const first = await visit();
      expect(first.answered).toBe(true);
      expect(await visit(first.session)).toMatchObject({ answered: true, resumed: true });
      writeFileSync(file, certificate({ name: 'other CA' }).cert);
      await server.running.readCertificates();
      expect(await visit(first.session)).toMatchObject({ answered: false, resumed: false });
    } finally {
      await server.stop();
      await store.drop();
    }
  });

  it('has a metric of the expiry of its certificate, only with TLS', async () => {
    const store = database();
    swapIn(fromCa(new Date(Date.now() + 3_600_000)));
    const seconds = async (more: Record<string, string>) => {
      const server = await startServer(store.url, store.folder, more);
      const page = await fetch(`http://127.0.0.1:${server.running.ports.metrics}/metrics`);
      const text = await page.text();
      await server.stop();
      return /^apikeyd_tls_certificate_expires_seconds (\S+)$/m.exec(text)?.[1];
    };
    const left = Number(await seconds(settings));
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(3_600);
    expect(await seconds({})).toBeUndefined();
    await store.drop();
  });

  it('does not start with unusable files, and names them', async () => {
    const store = database();
    swapIn({ cert: fromCa().cert, key: fromCa().key });
    const { code, stderr } = await apikeyd(['serve'], { env: { STORE_URL: store.url, ...settings } });
    expect([code, stderr]).toEqual([78, expect.stringMatching(/TLS_KEY_FILE: cannot be used with/)]);
    await store.drop();
  });
});
