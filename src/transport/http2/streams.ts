import { ConnectionError, ERROR, MAX_WINDOW } from './frames.ts';
import type { Http2Stream } from './stream.ts';

/** How many streams reset by this side are remembered: their frames may still arrive. */
const MAX_RESET = 200;

/** The streams of a connection. */
export class Streams {
  readonly #open = new Map<number, Http2Stream>();
  /** The streams that wait for a window or for the socket. */
  readonly #blocked = new Set<Http2Stream>();
  /** The streams whose bodies the current read has started or continued. */
  readonly #touched: Http2Stream[] = [];
  /** The ids of streams that this side reset, oldest first. */
  readonly #reset = new Set<number>();
  readonly #failed: (error: unknown) => void;

  /** @param failed called with an error that a receiver threw when its stream was closed */
  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  get size(): number {
    return this.#open.size;
  }

  get(id: number): Http2Stream | undefined {
    return this.#open.get(id);
  }

  has(stream: Http2Stream): boolean {
    return this.#open.get(stream.id) === stream;
  }

  add(stream: Http2Stream) {
    this.#open.set(stream.id, stream);
  }

  remove(stream: Http2Stream) {
    this.#open.delete(stream.id);
    this.#blocked.delete(stream);
  }

  noteReset(id: number) {
    this.#reset.add(id);
    if (this.#reset.size > MAX_RESET) for (const oldest of this.#reset) if (this.#reset.delete(oldest)) break;
  }

  wasReset(id: number): boolean {
    return this.#reset.has(id);
  }

  block(stream: Http2Stream) {
    this.#blocked.add(stream);
  }

  get areBlocked(): boolean {
    return this.#blocked.size > 0;
  }

  pumpBlocked() {
    const blocked = [...this.#blocked];
    this.#blocked.clear();
    for (const stream of blocked) stream.pump();
  }

  /** The streams whose peer has given no window for longer than this. */
  stalled(now: number, ms: number): Http2Stream[] {
    return [...this.#blocked].filter((stream) => stream.isStalled(now, ms));
  }

  touch(stream: Http2Stream) {
    if (stream.touched) return;
    stream.touched = true;
    this.#touched.push(stream);
  }

  /** Called after each read: receivers of incomplete bodies must copy the parts that they keep. */
  afterRead() {
    if (this.#touched.length === 0) return;
    for (const stream of this.#touched) {
      stream.touched = false;
      if (stream.remoteOpen) stream.receiver?.incomplete?.();
    }
    this.#touched.length = 0;
  }

  /** Changes the send windows of all streams. @throws ConnectionError */
  resize(more: number) {
    for (const stream of this.#open.values()) {
      stream.sendWindow += more;
      if (stream.sendWindow > MAX_WINDOW)
        throw new ConnectionError(ERROR.FLOW_CONTROL_ERROR, 'a window too large');
    }
  }

  close(stream: Http2Stream) {
    const over = !stream.localOpen && !stream.remoteOpen;
    stream.close();
    if (over) return;
    try {
      stream.receiver?.closed();
    } catch (error) {
      this.#failed(error);
    }
  }

  closeAll() {
    for (const stream of this.#open.values()) this.close(stream);
    this.#open.clear();
    this.#blocked.clear();
  }
}
