import type { Config } from '../config.ts';
import type { Running } from './serve.ts';

/** The defaults of the client commands, in main.ts. */
const DEFAULT_ADDRESS = '127.0.0.1:50051';
const DEFAULT_KEY_FILE = './data/admin.key';

/** Shown once at a terminal when the server is ready: its addresses, and how to make a first key. */
export function firstSteps(config: Config, { addresses }: Running, keyFileExists: boolean): string {
  const scheme = config.TLS_CERT_FILE === '' ? '' : 'https://';
  const address = `${scheme}${addresses.GRPC_ADDR}`;
  const keyFile = config.APIKEYD_KEY_FILE;
  const options = [
    ...(address === DEFAULT_ADDRESS ? [] : ['--address', address]),
    ...(keyFile === DEFAULT_KEY_FILE ? [] : ['--key-file', keyFile]),
  ];
  const create = 'npx apikeyd api-key create ci --key-type service --scope traces:read';
  return [
    '',
    `Ready: gRPC on ${addresses.GRPC_ADDR}, HTTP with JSON on ${addresses.HTTP_ADDR}, metrics on ${addresses.METRICS_ADDR}.`,
    keyFileExists
      ? `The admin key is in ${keyFile}, which only you can read.`
      : `There is no admin key in ${keyFile}: name the file of one with --key-file, or make one with "npx apikeyd recover".`,
    'A first key, in a second terminal:',
    `  ${[create, ...options].join(' ')}`,
    'Next: docs/quick-start.md, "npx apikeyd --help". Ctrl-C ends the server.',
    '',
    '',
  ].join('\n');
}
