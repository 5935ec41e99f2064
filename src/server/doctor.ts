import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { type Config, ConfigError, parseAddress, type SettingName } from '../config.ts';
import { inspectStore } from '../store/open-store.ts';
import { type Finding, StartError } from '../store/store.ts';

/** What would stop a server from working here, as far as it can be seen without starting one. */
export async function examine(config: Config, now: Date): Promise<Finding[]> {
  const findings = [...(await storeOf(config)), ...certificatesOf(config, now)];
  for (const name of ['GRPC_ADDR', 'HTTP_ADDR', 'METRICS_ADDR'] as const)
    findings.push(await portOf(config, name));
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

function validity(what: string, pem: Buffer, now: Date): Finding {
  const { validFromDate, validToDate } = new X509Certificate(pem);
  if (now > validToDate) return { what, ok: false, text: `expired at ${validToDate.toISOString()}` };
  if (now < validFromDate)
    return { what, ok: false, text: `not valid before ${validFromDate.toISOString()}` };
  return { what, ok: true, text: `valid until ${validToDate.toISOString()}` };
}

function portOf(config: Config, what: SettingName & `${string}_ADDR`): Promise<Finding> {
  return new Promise((resolve) => {
    let address: { host: string; port: number };
    try {
      address = parseAddress(what, config[what]);
    } catch (error) {
      const text = error instanceof ConfigError ? error.message : String(error);
      resolve({ what, ok: false, text });
      return;
    }
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE';
      resolve({
        what,
        ok: false,
        text: taken ? `${config[what]} is taken: is a server running?` : error.message,
      });
    });
    server.listen(address.port, address.host, () => {
      server.close(() => resolve({ what, ok: true, text: `${config[what]} is free` }));
    });
  });
}
