import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

interface Wanted {
  readonly name?: string;
  readonly from?: Date;
  readonly until?: Date;
  /** The issuer; self-signed without one. */
  readonly issuer?: Pair;
}

interface Pair {
  readonly name: string;
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly privateKey: KeyObject;
}

/** A self-signed certificate for 127.0.0.1, made without openssl, which not every machine has. */
export function selfSigned(
  folder: string,
  times: { readonly from?: Date; readonly until?: Date } = {},
): { certFile: string; keyFile: string; cert: Buffer; key: Buffer } {
  const { cert, key } = certificate(times);
  const [certFile, keyFile] = [join(folder, 'tls.crt'), join(folder, 'tls.key')];
  writeFileSync(certFile, cert);
  writeFileSync(keyFile, key);
  return { certFile, keyFile, cert, key };
}

/** A certificate for 127.0.0.1, with its key; one that signs itself may sign others. */
export function certificate({
  name = 'apikeyd',
  from = new Date('2000-01-01'),
  until = new Date('2049-01-01'),
  issuer,
}: Wanted = {}): Pair {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const names = der(0x30, der(0x87, Buffer.from([127, 0, 0, 1])), der(0x82, Buffer.from('localhost')));
  const serial = Buffer.concat([Buffer.from([1]), randomBytes(8)]);
  const extensions = [der(0x30, SUBJECT_ALT_NAME, der(0x04, names))];
  if (issuer === undefined) extensions.push(der(0x30, BASIC_CONSTRAINTS, der(0x04, MAY_SIGN)));
  const signed = der(
    0x30,
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, serial),
    ECDSA_WITH_SHA256,
    commonName(issuer?.name ?? name),
    der(0x30, time(from), time(until)),
    commonName(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, der(0x30, ...extensions)),
  );
  const signature = Buffer.concat([
    Buffer.from([0]),
    sign('sha256', signed, issuer?.privateKey ?? privateKey),
  ]);
  const bytes = der(0x30, signed, ECDSA_WITH_SHA256, der(0x03, signature)).toString('base64');
  const lines = bytes.match(/.{1,64}/g)?.join('\n');
  const cert = Buffer.from(`-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`);
  const key = Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return { name, cert, key, privateKey };
}

const COMMON_NAME = Buffer.from('0603550403', 'hex');
const SUBJECT_ALT_NAME = Buffer.from('0603551d11', 'hex');
const BASIC_CONSTRAINTS = Buffer.from('0603551d13', 'hex');
const MAY_SIGN = Buffer.from('30030101ff', 'hex');
const ECDSA_WITH_SHA256 = Buffer.from('300a06082a8648ce3d040302', 'hex');

const commonName = (name: string) =>
  der(0x30, der(0x31, der(0x30, COMMON_NAME, der(0x0c, Buffer.from(name)))));

/** One element of DER: its tag, its length and its content. */
function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const { length } = body;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), body]);
}

/** UTCTime, which knows the years 1950 to 2049. */
const time = (at: Date) =>
  der(0x17, Buffer.from(`${at.toISOString().slice(2, 19).replaceAll(/[-:T]/g, '')}Z`));
