import { excessiveLoad } from './frames.ts';

/** Streams that a peer may reset, or give cause to reset, beyond those it lets finish: more is an attack. */
const MAX_ABANDONED = 1_000;
/** Frames that cost work and bring nothing: empty DATA, CONTINUATION, PRIORITY, unknown ones; forgiven by each request. */
const MAX_IDLE_FRAMES = 1_000;
/** Of both counts, each second: who cancels watches all day is no attacker. */
const FORGIVEN_PER_TICK = 20;

/** What a peer does that costs work and brings nothing. */
export class Conduct {
  #abandoned = 0;
  #idleFrames = 0;

  /** @throws ConnectionError */
  countIdle() {
    if (++this.#idleFrames > MAX_IDLE_FRAMES) throw excessiveLoad('frames that bring nothing');
  }

  /** @throws ConnectionError */
  countAbandoned() {
    if (++this.#abandoned > MAX_ABANDONED) throw excessiveLoad('requests made to be reset');
  }

  requested() {
    this.#idleFrames = 0;
  }

  finished() {
    if (this.#abandoned > 0) this.#abandoned--;
  }

  tick() {
    this.#idleFrames = Math.max(0, this.#idleFrames - FORGIVEN_PER_TICK);
    this.#abandoned = Math.max(0, this.#abandoned - FORGIVEN_PER_TICK);
  }
}
