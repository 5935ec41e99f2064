import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { type Config, ConfigError, parseAddress, type SettingName } from '../config.ts';
import { inspectStore } from '../store/open-store.ts';
import { type Finding, StartError } from '../store/store.ts';
import { knock } from './knock.ts';
import { findNeighbour, type Neighbour, shownStore } from './neighbour.ts';

/** Problems that would stop a server from working here, as far as they show without starting one. */
export async function examine(config: Config, now: Date): Promise<Finding[]> {
  const findings = [...(await storeOf(config)), ...certificatesOf(config, now)];
  for (const name of ['GRPC_ADDR', 'HTTP_ADDR', 'METRICS_ADDR'] as const) {
    const { ours, ...port } = await portOf(config, name, () => neighbourOf(config));
    findings.push(port);
    if (ours === true && name !== 'METRICS_ADDR') findings.push(...(await knock(config, name)));
  }
  return findings;
}

async function storeOf(config: Config): Promise<Finding[]> {
  try {
    return await inspectStore(config.STORE_URL);
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    return [{ what: 'store', ok: false, text: error.message }];
  }
}

function certificatesOf(config: Config, now: Date): Finding[] {
  const findings: Finding[] = [];
  for (const what of ['TLS_CERT_FILE', 'TLS_KEY_FILE', 'TLS_CLIENT_CA_FILE'] as const) {
    if (config[what] === '') continue;
    try {
      const pem = readFileSync(config[what]);
      findings.push(
        what === 'TLS_KEY_FILE' ? { what, ok: true, text: 'can be read' } : validity(what, pem, now),
      );
    } catch (error) {
      findings.push({ what, ok: false, text: `cannot be used: ${(error as Error).message}` });
    }
  }
  return findings;
}

/** Automatic renewal has replaced a certificate by this many days before its expiry. */
const RENEWED_DAYS = 14;

function validity(what: string, pem: Buffer, now: Date): Finding {
  const { validFromDate, validToDate } = new X509Certificate(pem);
  if (now > validToDate) return { what, ok: false, text: `expired at ${validToDate.toISOString()}` };
  if (now < validFromDate)
    return { what, ok: false, text: `not valid before ${validFromDate.toISOString()}` };
  const days = (validToDate.getTime() - now.getTime()) / 86_400_000;
  if (days < RENEWED_DAYS)
    return { what, ok: false, text: `expires within ${RENEWED_DAYS} days, at ${validToDate.toISOString()}` };
  return { what, ok: true, text: `valid until ${validToDate.toISOString()}` };
}

/** A finding about a port; `ours` when a server of this program listens on it. */
type PortFinding = Finding & { readonly ours?: true };
type AddressSetting = SettingName & `${string}_ADDR`;

/** The apikeyd server that already listens at the metrics address of these settings, if any. */
function neighbourOf(config: Config): Promise<Neighbour | undefined> {
  const { host, port } = parseAddress('METRICS_ADDR', config.METRICS_ADDR);
  return findNeighbour(host, port);
}

async function portOf(
  config: Config,
  what: AddressSetting,
  neighbour: () => Promise<Neighbour | undefined>,
): Promise<PortFinding> {
  try {
    const error = await bindError(parseAddress(what, config[what]));
    if (error === undefined) return { what, ok: true, text: `${config[what]} is free` };
    if (error.code !== 'EADDRINUSE') return { what, ok: false, text: error.message };
    return takenBy(config, what, await neighbour());
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { what, ok: false, text: error.message };
  }
}

/** A server of this program on the port is no fault, unless it uses another store or cannot decide. */
function takenBy(config: Config, what: AddressSetting, server: Neighbour | undefined): PortFinding {
  const address = config[what];
  if (server?.addresses[what] !== address)
    return { what, ok: false, text: `${address} is taken by another program` };
  const text = `${address} is served by apikeyd ${server.version} on ${server.store}`;
  const store = shownStore(config.STORE_URL);
  if (server.store !== store) return { what, ok: false, ours: true, text: `${text}, and not on ${store}` };
  return server.serving
    ? { what, ok: true, ours: true, text }
    : { what, ok: false, ours: true, text: `${text}, which cannot decide now: see its log` };
}

function bindError({
  host,
  port,
}: {
  host: string;
  port: number;
}): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', resolve);
    server.listen(port, host, () => server.close(() => resolve(undefined)));
  });
}
