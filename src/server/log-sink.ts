import { fstatSync, write, writeSync } from 'node:fs';
import { Socket } from 'node:net';

/** Characters of lines waiting for a reader; beyond this limit, lines are dropped and counted. */
const MAX_WAITING = 1 << 20;

/** Writes a text to the log's destination without waiting; `done` receives the error, if any. */
export type LogWriter = (text: string, done: (error: unknown) => void) => void;

/**
 * The destination of the log. It never throws and never delays a call: when a disk is full, or a reader is gone or
 * stalled, lines are dropped, counted, and reported with the next line that can be written.
 */
export class LogSink {
  readonly #write: LogWriter;
  readonly #told: (dropped: number) => string;
  #waiting: string[] = [];
  #size = 0;
  #writing = 0;
  #dropped = 0;
  #untold = 0;
  #drained: (() => void) | undefined;

  /** @param told formats the number of dropped lines as a line */
  constructor(write: LogWriter, told: (dropped: number) => string) {
    this.#write = write;
    this.#told = told;
  }

  /** The number of lines lost. */
  get dropped(): number {
    return this.#dropped;
  }

  write(line: string): void {
    if (this.#size + line.length > MAX_WAITING) {
      this.#drop(1);
      return;
    }
    this.#waiting.push(line);
    this.#size += line.length;
    if (this.#writing === 0) this.#next();
  }

  /** Resolves when no line is waiting, or after `withinMs`. */
  async drained(withinMs: number): Promise<void> {
    if (this.#writing === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
      setTimeout(resolve, withinMs);
    });
  }

  #next(): void {
    const lines = this.#waiting;
    this.#waiting = [];
    this.#writing = lines.length;
    const untold = this.#untold;
    const text = (untold > 0 ? this.#told(untold) : '') + lines.join('');
    this.#write(text, (error) => {
      this.#size -= lines.reduce((sum, line) => sum + line.length, 0);
      this.#writing = 0;
      if (error) this.#drop(lines.length);
      else this.#untold -= untold;
      if (this.#waiting.length > 0) this.#next();
      else this.#drained?.();
    });
  }

  #drop(lines: number): void {
    this.#dropped += lines;
    this.#untold += lines;
  }
}

/** Standard error: a pipe or socket is written as fast as it is read, a file by a thread of Node's. */
export function standardError(): LogWriter {
  const stat = fstatSync(2);
  if (!stat.isFIFO() && !stat.isSocket()) return (text, done) => writeWhole(Buffer.from(text), done);
  const socket = new Socket({ fd: 2, readable: false, writable: true });
  // `done` receives the error of each write.
  socket.on('error', () => {});
  return (text, done) => void socket.write(text, (error) => done(error));
}

function writeWhole(bytes: Buffer, done: (error: unknown) => void): void {
  write(2, bytes, (error, written) => {
    if (error !== null || written === bytes.length) done(error);
    else writeWhole(bytes.subarray(written), done);
  });
}

/** For last words and for commands that end soon: written at once or, if that fails, dropped. */
export function writeAtOnce(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // Nobody reads standard error; the exit code still reports the failure.
  }
}
