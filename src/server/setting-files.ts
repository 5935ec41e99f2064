import { readFileSync } from 'node:fs';
import { type Config, ConfigError, type SettingName } from '../config.ts';
import type { TlsFiles } from '../transport/listener.ts';

export function readTls(config: Config): TlsFiles | undefined {
  const cert = readFileOf(config, 'TLS_CERT_FILE');
  const key = readFileOf(config, 'TLS_KEY_FILE');
  const clientCa = readFileOf(config, 'TLS_CLIENT_CA_FILE');
  if (cert === undefined && key === undefined && clientCa === undefined) return undefined;
  if (cert === undefined)
    throw new ConfigError('TLS_CERT_FILE: needed with TLS_KEY_FILE and TLS_CLIENT_CA_FILE');
  if (key === undefined) throw new ConfigError('TLS_KEY_FILE: needed with TLS_CERT_FILE');
  return { cert, key, clientCa };
}

/** The bytes of the file that a setting names; undefined when it names none. */
export function readFileOf(config: Config, name: SettingName & `${string}_FILE`): Buffer | undefined {
  if (config[name] === '') return undefined;
  try {
    return readFileSync(config[name]);
  } catch (error) {
    throw new ConfigError(`${name}: cannot be read: ${(error as Error).message}`);
  }
}
