import { excessiveLoad } from './frames.ts';

/** The most streams that a peer may reset, or cause to be reset, beyond those that finish: more is an attack. */
const MAX_ABANDONED = 1_000;
/** The most frames that cost work without effect (empty DATA, PRIORITY, …); each request resets the count. */
const MAX_IDLE_FRAMES = 1_000;
/** Subtracted from both counts each tick: a client that cancels watches all day is not an attacker. */
const FORGIVEN_PER_TICK = 20;

/** Counts a peer's frames and streams that cost work without effect. */
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
