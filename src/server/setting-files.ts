import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { type Config, ConfigError, type SettingName } from '../config.ts';
import type { TlsFiles } from '../transport/listener.ts';

type FileSetting = SettingName & `${string}_FILE`;

/** The files of the TLS settings, unchecked; undefined without TLS. @throws ConfigError */
export async function readTls(config: Config): Promise<TlsFiles | undefined> {
  const [cert, key, clientCa] = await Promise.all(
    (['TLS_CERT_FILE', 'TLS_KEY_FILE', 'TLS_CLIENT_CA_FILE'] as const).map(async (name) => {
      if (config[name] === '') return undefined;
      return await readFile(config[name]).catch((error: Error) => unreadable(name, error));
    }),
  );
  if (cert === undefined && key === undefined && clientCa === undefined) return undefined;
  if (cert === undefined)
    throw new ConfigError('TLS_CERT_FILE: needed with TLS_KEY_FILE and TLS_CLIENT_CA_FILE');
  if (key === undefined) throw new ConfigError('TLS_KEY_FILE: needed with TLS_CERT_FILE');
  return { cert, key, clientCa };
}

/** Rejects files that cannot serve a connection, including half-written ones. @throws ConfigError */
export function checkTls({ cert, key, clientCa }: TlsFiles): void {
  checkCertificates('TLS_CERT_FILE', cert);
  // OpenSSL silently skips a CA that it cannot read, and would then refuse every client.
  if (clientCa !== undefined) checkCertificates('TLS_CLIENT_CA_FILE', clientCa);
  try {
    createSecureContext({ cert, key, ca: clientCa });
  } catch (error) {
    throw new ConfigError(
      `TLS_KEY_FILE: cannot be used with the certificate of TLS_CERT_FILE: ${(error as Error).message}`,
    );
  }
}

const CERTIFICATE = /-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----[\s\S]*?-----END \1-----/g;
const BEGIN = /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/g;

function checkCertificates(name: FileSetting, pem: Buffer): void {
  const text = pem.toString('latin1');
  const certificates = text.match(CERTIFICATE) ?? [];
  if (certificates.length === 0) throw new ConfigError(`${name}: holds no whole certificate in PEM`);
  if (certificates.length !== text.match(BEGIN)?.length)
    throw new ConfigError(`${name}: a certificate of it has no end`);
  for (const [at, certificate] of certificates.entries()) {
    try {
      new X509Certificate(certificate);
    } catch (error) {
      throw new ConfigError(`${name}: certificate ${at + 1} cannot be read: ${(error as Error).message}`);
    }
  }
}

/** The bytes of the file that a setting names; undefined when the setting is empty. */
export function readFileOf(config: Config, name: FileSetting): Buffer | undefined {
  if (config[name] === '') return undefined;
  try {
    return readFileSync(config[name]);
  } catch (error) {
    return unreadable(name, error as Error);
  }
}

function unreadable(name: FileSetting, error: Error): never {
  throw new ConfigError(`${name}: cannot be read: ${error.message}`);
}
