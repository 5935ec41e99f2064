import { createHash, X509Certificate } from 'node:crypto';
import { ConfigError } from '../config.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { TlsFiles } from '../transport/listener.ts';
import { checkTls } from './setting-files.ts';
import type { Logger } from './telemetry.ts';

/** How often the files are read. Polled: no watch of a file notices a swapped symlink, as Kubernetes uses. */
const LOOK_MS = 2_000;

export interface CertificateParts {
  /** The files in use since the start. */
  readonly tls: TlsFiles;
  /** Reads the current files. @throws ConfigError */
  readonly read: () => Promise<TlsFiles | undefined>;
  /** Applies the files to new connections. */
  readonly use: (tls: TlsFiles) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Uses changed TLS files for new connections; invalid files leave the last good ones in use. */
export class Certificates {
  readonly #parts: CertificateParts;
  /** The digest or the error of the last files tried, good or bad. */
  #tried: string;
  #notAfter: number;
  /** One look at a time. */
  #turn: Promise<void> = Promise.resolve();
  #looking: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(parts: CertificateParts) {
    this.#parts = parts;
    this.#tried = digestOf(parts.tls);
    this.#notAfter = notAfterOf(parts.tls);
  }

  /** Seconds until the certificate in use expires; negative afterwards. */
  get secondsLeft(): number {
    return (this.#notAfter - this.#parts.clock.now()) / 1000;
  }

  start(): void {
    if (this.#stopped) return;
    this.#looking = setTimeout(() => void this.look().then(() => this.start()), LOOK_MS).unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#looking);
  }

  /** Uses the files if they have changed since the last try. */
  look(): Promise<void> {
    this.#turn = this.#turn.then(() => this.#look());
    return this.#turn;
  }

  /** Like look, but on request of an operator: reports bad files again even if they are unchanged. */
  lookAgain(): Promise<void> {
    this.#turn = this.#turn.then(() => {
      this.#tried = '';
      return this.#look();
    });
    return this.#turn;
  }

  async #look(): Promise<void> {
    const { read, use, logger } = this.#parts;
    const found = await read().catch(refusal);
    if (found === undefined || this.#stopped) return;
    const tried = found instanceof ConfigError ? found.message : digestOf(found);
    if (tried === this.#tried) return;
    this.#tried = tried;
    try {
      if (found instanceof ConfigError) throw found;
      checkTls(found);
      const notAfter = notAfterOf(found);
      const expires = new Date(notAfter).toISOString();
      if (notAfter < this.#parts.clock.now())
        throw new ConfigError(`TLS_CERT_FILE: the certificate expired at ${expires}`);
      use(found);
      this.#notAfter = notAfter;
      logger.info({ expires }, 'TLS files read again: new connections use them');
    } catch (error) {
      const { message } = refusal(error);
      logger.warn({ reason: message }, 'TLS files cannot be used: the previous ones stay in use');
    }
  }
}

/** Only errors in the files are tolerated. */
function refusal(error: unknown): ConfigError {
  if (error instanceof ConfigError) return error;
  throw error;
}

function digestOf({ cert, key, clientCa }: TlsFiles): string {
  const hash = createHash('sha256');
  for (const file of [cert, key, clientCa ?? Buffer.alloc(0)])
    hash.update(createHash('sha256').update(file).digest());
  return hash.digest('hex');
}

/** The expiry of the server's own certificate, the first of its chain. */
const notAfterOf = ({ cert }: TlsFiles): number => new X509Certificate(cert).validToDate.getTime();
