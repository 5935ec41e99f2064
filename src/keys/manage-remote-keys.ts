import { auditEntry } from './audit-entry.ts';
import { ApiError } from './errors.ts';
import type { CallOrigin } from './ports/audit.ts';
import type { Clock } from './ports/clock.ts';
import type {
  NewRemoteKey,
  RemoteKeyChange,
  RemoteKeyLog,
  RemoteKeyRecord,
  RemoteLogin,
  RemoteSystem,
  SeenRemoteKey,
} from './remote-keys.ts';
import { hashSecret } from './secret.ts';

export interface ManageRemoteKeysParts {
  /** Undefined when it is switched off. */
  readonly system: RemoteSystem | undefined;
  /** The setting that switches it on. */
  readonly setting: string;
  readonly log: RemoteKeyLog;
  readonly clock: Clock;
}

/** One line of a list: what the other system has, what was made from here, or both. */
export interface ListedRemoteKey {
  readonly user: string;
  readonly seen: SeenRemoteKey | undefined;
  readonly record: RemoteKeyRecord | undefined;
}

/** Tokens of another system: made, listed, ended and verified there, and remembered here without their secrets. */
export class ManageRemoteKeys {
  readonly #parts: ManageRemoteKeysParts;

  constructor(parts: ManageRemoteKeysParts) {
    this.#parts = parts;
  }

  /** The record is written after the other system has made the key; if that fails, the key is taken back. */
  async create(login: RemoteLogin, key: NewRemoteKey, origin: CallOrigin) {
    const { log, clock } = this.#parts;
    const system = this.#system();
    const { secret, user, ...seen } = await system.create(login, key);
    const record: RemoteKeyRecord = {
      id: seen.id,
      user,
      name: seen.name,
      scopes: seen.scopes,
      lastEight: secret.slice(-8),
      hash: hashSecret(secret),
      createTime: clock.now(),
      expireTime: key.expireTime,
      deleteTime: undefined,
      lastVerifyTime: undefined,
      lastVerifyAlive: undefined,
    };
    try {
      await log.put(record, this.#entry(origin, `created ${seen.id}`));
    } catch (error) {
      await this.#takeBack(login, record, error);
    }
    return { record, secret };
  }

  /** What the other system has, newest first as it says, then what only this side knows. */
  async list(login: RemoteLogin, user: string): Promise<readonly ListedRemoteKey[]> {
    const answer = await this.#system().list(login, user);
    const records = new Map((await this.#parts.log.list(answer.user)).map((record) => [record.id, record]));
    const whose = { user: answer.user };
    const there = answer.keys.map((seen) => ({ ...whose, seen, record: records.get(seen.id) }));
    for (const { id } of answer.keys) records.delete(id);
    const here = [...records.values()].map((record) => ({ ...whose, seen: undefined, record }));
    return [...there, ...here];
  }

  /** @param key its id, or its name where the system has names. */
  async delete(login: RemoteLogin, user: string, key: string, origin: CallOrigin) {
    const { log, clock } = this.#parts;
    const answer = await this.#system().delete(login, user, key);
    const record =
      (await log.get(key)) ?? (await log.list(answer.user)).find((candidate) => candidate.name === key);
    // Somebody else's key may have the same name or number.
    const own = record?.user === answer.user ? record : undefined;
    if (own === undefined) {
      if (!answer.existed) throw new ApiError('REMOTE_NOT_FOUND', 'neither side has such a key');
      return { record: undefined, wasMissing: false, recorded: false };
    }
    const change = { deleteTime: own.deleteTime ?? clock.now() };
    const reason = `deleted ${own.id}${answer.existed ? '' : ', which was gone'}`;
    const recorded = await log.change(own.id, change, this.#entry(origin, reason));
    return { record: { ...own, ...change }, wasMissing: !answer.existed, recorded };
  }

  async verify(secret: string, origin: CallOrigin) {
    const { log, clock } = this.#parts;
    const alive = await this.#system().verify(secret);
    const record = await log.findByHash(hashSecret(secret));
    if (record === undefined) return { alive, record, recorded: false };
    const change: RemoteKeyChange = { lastVerifyTime: clock.now(), lastVerifyAlive: alive };
    const reason = `${record.id} is ${alive ? 'alive' : 'dead'}`;
    const recorded = await log.change(record.id, change, this.#entry(origin, reason));
    return { alive, record: { ...record, ...change }, recorded };
  }

  #system(): RemoteSystem {
    const { system, setting } = this.#parts;
    if (system !== undefined) return system;
    throw new ApiError('INTEGRATION_OFF', `switched off: set ${setting}`, { metadata: { setting } });
  }

  /** A key that nobody has been told, and that no record knows, must not live on. */
  async #takeBack(login: RemoteLogin, { id, user }: RemoteKeyRecord, cause: unknown): Promise<never> {
    try {
      await this.#system().delete(login, user, id);
    } catch {
      const text = `the key was made there as ${id}, but could not be recorded here nor taken back: delete it there`;
      throw new ApiError('STORE_UNAVAILABLE', text, { cause, metadata: { remote_id: id } });
    }
    throw cause;
  }

  #entry(origin: CallOrigin, reason: string) {
    return auditEntry(origin, this.#parts.clock, { outcome: 'OK', reason });
  }
}
