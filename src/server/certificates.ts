import { createHash, X509Certificate } from 'node:crypto';
import { ConfigError } from '../config.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { TlsFiles } from '../transport/listener.ts';
import { checkTls } from './setting-files.ts';
import type { Logger } from './telemetry.ts';

/** How often the files are looked at: what swaps links, as Kubernetes does, is seen by no watch of one file. */
const LOOK_MS = 2_000;

export interface CertificateParts {
  /** In use since the start. */
  readonly tls: TlsFiles;
  /** The files as they are now. @throws ConfigError */
  readonly read: () => Promise<TlsFiles | undefined>;
  /** Whoever serves new connections with them. */
  readonly use: (tls: TlsFiles) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Puts changed TLS files to use for new connections; bad ones leave the last good ones in use. */
export class Certificates {
  readonly #parts: CertificateParts;
  /** Of the files that were tried last, good or bad. */
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

  /** Until the certificate in use expires; negative once it has. */
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

  /** Puts the files to use if they have changed since the last try. */
  look(): Promise<void> {
    this.#turn = this.#turn.then(() => this.#look());
    return this.#turn;
  }

  /** The same for an operator who asked, and is told of files that are as bad as before. */
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
      logger.warn({ reason: message }, 'TLS files cannot be used: the ones before stay in use');
    }
  }
}

/** Only what is wrong with the files is borne. */
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

/** Of the server's own certificate, the first of its chain. */
const notAfterOf = ({ cert }: TlsFiles): number => new X509Certificate(cert).validToDate.getTime();
