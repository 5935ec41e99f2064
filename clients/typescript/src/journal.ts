import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type Decision, type LocalUse, LocalUseSchema } from '../../../gen/apikey/v1/auth_pb.ts';

const HOUR_MS = 3_600_000;
const MOST_CALLS = 1_000_000_000;
/** Uses that are not confirmed yet; beyond, the server is asked for each decision. */
const MOST_USES = 1_000;

/** Equal decisions within an hour, to which more may be added until they are sent. */
export interface OpenUse {
  readonly keyId: string;
  readonly decision: Decision;
  readonly scope: string | undefined;
  readonly clientIp: string;
  readonly firstTime: number;
  lastTime: number;
  count: number;
  open: boolean;
}

/** The decisions that the server has not confirmed. */
export class Journal {
  #open: OpenUse[] = [];
  #sent: LocalUse[] = [];
  #sequence = 0n;

  get isFull(): boolean {
    return this.#open.length + this.#sent.length >= MOST_USES;
  }

  get isEmpty(): boolean {
    return this.#open.length + this.#sent.length === 0;
  }

  /** Adds a decision to an earlier equal one, or to a new use, which is returned. @param now by the server's clock */
  add(
    use: OpenUse | undefined,
    made: Pick<OpenUse, 'keyId' | 'decision' | 'scope' | 'clientIp'>,
    now: number,
  ) {
    if (use?.open && use.count < MOST_CALLS && hourOf(use.firstTime) === hourOf(now)) {
      use.count++;
      if (now > use.lastTime) use.lastTime = now;
      return use;
    }
    const fresh: OpenUse = { ...made, firstTime: now, lastTime: now, count: 1, open: true };
    this.#open.push(fresh);
    return fresh;
  }

  /** Takes back a decision that was not given out. */
  takeBack(use: OpenUse): void {
    use.count--;
  }

  /** All that is to be confirmed, in the order of the sequences; equal decisions from now on are new uses. */
  send(): readonly LocalUse[] {
    for (const use of this.#open) {
      use.open = false;
      if (use.count > 0) this.#sent.push(this.#messageOf(use));
    }
    this.#open = [];
    return [...this.#sent];
  }

  /** The server has made these durable, or never will. */
  confirm(uses: readonly LocalUse[]): void {
    this.#sent = this.#sent.slice(uses.length);
  }

  #messageOf({ keyId, decision, scope, clientIp, count, firstTime, lastTime }: OpenUse): LocalUse {
    this.#sequence++;
    const fields: MessageInitShape<typeof LocalUseSchema> = {
      sequence: this.#sequence,
      keyId,
      decision,
      clientIp,
      count: BigInt(count),
      firstTime: timestampFromMs(Math.floor(firstTime)),
      lastTime: timestampFromMs(Math.floor(lastTime)),
    };
    if (scope !== undefined) fields.requiredScope = scope;
    return create(LocalUseSchema, fields);
  }
}

const hourOf = (time: number) => Math.floor(time / HOUR_MS);
