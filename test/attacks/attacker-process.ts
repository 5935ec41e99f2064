import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import type { Order } from './attack.ts';

/** Where attacks come from: what one costs its attacker slows nobody else down. */
export class AttackerProcess {
  readonly #child: ChildProcess = fork(new URL('attacker.ts', import.meta.url), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });

  /** @throws Error when the attacker, and not the attacked, has failed. */
  async attack(order: Order): Promise<void> {
    this.#child.send(order);
    const [{ failure }] = await once(this.#child, 'message');
    if (failure !== '') throw new Error(failure);
  }

  stop(): void {
    this.#child.kill();
  }
}
