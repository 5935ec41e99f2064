import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** The lease that an answer lent. Times are milliseconds since 1970, by the server's clock. */
export interface Grant {
  readonly time: number;
  readonly leaseMs: number;
}

/** The guard that a grant is for. */
export interface GuardName {
  readonly callerKeyId: string;
  readonly guardId: string;
}

const SEAL_BYTES = 16;
const RANDOM_BYTES = 8;
const BODY_BYTES = 8 + 4 + RANDOM_BYTES;

/**
 * Seals the id of a grant: any process on the store, and one after a restart, can tell which lease it lent to which guard,
 * without having kept it.
 */
export class GrantTokens {
  readonly #secret: string;
  readonly #epoch: () => string;

  constructor(secret: string, epoch: () => string) {
    this.#secret = secret;
    this.#epoch = epoch;
  }

  seal({ time, leaseMs }: Grant, guard: GuardName): string {
    const body = Buffer.alloc(BODY_BYTES);
    body.writeDoubleBE(time, 0);
    body.writeUInt32BE(Math.floor(leaseMs), 8);
    randomBytes(RANDOM_BYTES).copy(body, 12);
    return Buffer.concat([body, this.#sealOf(body, guard)]).toString('base64url');
  }

  /** Undefined for a token that this store did not seal for this guard, or sealed before a restore. */
  open(token: string, guard: GuardName): Grant | undefined {
    const bytes = Buffer.from(token, 'base64url');
    if (bytes.length !== BODY_BYTES + SEAL_BYTES) return undefined;
    const body = bytes.subarray(0, BODY_BYTES);
    if (!timingSafeEqual(bytes.subarray(BODY_BYTES), this.#sealOf(body, guard))) return undefined;
    return { time: body.readDoubleBE(0), leaseMs: body.readUInt32BE(8) };
  }

  #sealOf(body: Buffer, { callerKeyId, guardId }: GuardName): Buffer {
    const text = JSON.stringify([this.#epoch(), callerKeyId, guardId]);
    return createHmac('sha256', this.#secret).update(text).update(body).digest().subarray(0, SEAL_BYTES);
  }
}
