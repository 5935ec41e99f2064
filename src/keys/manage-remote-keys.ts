import { auditEntry } from './audit-entry.ts';
import { ApiError } from './errors.ts';
import type { CallOrigin } from './ports/audit.ts';
import type { Clock } from './ports/clock.ts';
import type {
  NewRemoteKey,
  RemoteKeyLog,
  RemoteKeyRecord,
  RemoteList,
  RemoteLogin,
  RemoteSession,
  RemoteSystem,
  RemoteUser,
  SeenRemoteKey,
} from './remote-keys.ts';
import { hashSecret } from './secret.ts';
import { hasSameSecret, whichRemoteKey } from './which-remote-key.ts';

export interface ManageRemoteKeysParts {
  /** Undefined when the integration is switched off. */
  readonly system: RemoteSystem | undefined;
  /** The setting that switches the integration on. */
  readonly setting: string;
  readonly log: RemoteKeyLog;
  readonly clock: Clock;
}

/** One entry of a list: a key of the other system, a record of a key created from here, or both. */
export interface ListedRemoteKey {
  readonly user: string;
  readonly seen: SeenRemoteKey | undefined;
  readonly record: RemoteKeyRecord | undefined;
  /** The secret of the key that was created from here has been replaced in the other system. */
  readonly rotatedThere: boolean;
}

/** Tokens of another system: created, listed, deleted and verified there, and recorded here without their secrets. */
export class ManageRemoteKeys {
  readonly #parts: ManageRemoteKeysParts;

  constructor(parts: ManageRemoteKeysParts) {
    this.#parts = parts;
  }

  /** The record is written after the other system has created the key; if the write fails, the key is deleted there. */
  async create(login: RemoteLogin, key: NewRemoteKey, origin: CallOrigin) {
    const { log, clock } = this.#parts;
    const session = await this.#system().open(login);
    const { secret, user, userId, ...seen } = await session.create(key);
    const record: RemoteKeyRecord = {
      id: seen.id,
      user,
      userId,
      name: seen.name,
      scopes: seen.scopes,
      lastEight: secret.slice(-8),
      hash: hashSecret(secret),
      createTime: clock.now(),
      expireTime: key.expireTime,
      deleteTime: undefined,
      lastVerifyTime: undefined,
      lastVerifyResult: undefined,
    };
    try {
      await log.put(record, this.#entry(origin, `created ${seen.id}`));
    } catch (error) {
      await this.#takeBack(session, record, error);
    }
    return { record, secret };
  }

  /** The other system's keys in its order, newest first, then keys known only here. Corrects records that differ. */
  async list(login: RemoteLogin, user: string, origin: CallOrigin): Promise<readonly ListedRemoteKey[]> {
    const session = await this.#system().open(login);
    const listed = await session.list(user);
    const records = await this.#recordsOf(listed, origin);
    const whose = { user: listed.user };
    const there = listed.keys.map((seen) => {
      const record = records.get(seen.id);
      const rotatedThere = record !== undefined && !hasSameSecret(record, seen);
      return { ...whose, seen, record, rotatedThere };
    });
    for (const { id } of listed.keys) records.delete(id);
    const here = [...records.values()].map((record) => ({
      ...whose,
      seen: undefined,
      record,
      rotatedThere: false,
    }));
    return [...there, ...here];
  }

  /** @param asked the id of a key, or its name. Only an id from a list of the other system is sent. */
  async delete(login: RemoteLogin, user: string, asked: string, origin: CallOrigin) {
    const { log, clock } = this.#parts;
    const session = await this.#system().open(login);
    const listed = await session.list(user);
    const records = await this.#recordsOf(listed, origin);
    const which = whichRemoteKey(asked, listed.keys, [...records.values()]);
    const meant = which ?? { id: asked };
    const { id, existed } = await end(session, listed, meant);
    const known = records.get(id) ?? (await log.find([id]))[0];
    // A key of another user was deleted by its id: its record follows.
    const record = known !== undefined && (existed || isOf(listed, known)) ? known : undefined;
    if (record === undefined) {
      if (!existed) throw new ApiError('REMOTE_NOT_FOUND', 'neither side has such a key of this user');
      return { record: undefined, wasMissing: false, recorded: false };
    }
    const change = { deleteTime: record.deleteTime ?? clock.now() };
    const reason = `deleted ${id}${existed ? '' : ', which was gone'}`;
    const recorded = await log.change(id, change, this.#entry(origin, reason));
    return { record: { ...record, ...change }, wasMissing: !existed, recorded };
  }

  /** @param login for a system that answers more to a user; undefined without one. */
  async verify(secret: string, login: RemoteLogin | undefined, origin: CallOrigin) {
    const { log, clock } = this.#parts;
    const verified = await this.#system().verify(secret, login);
    const record = await log.findByHash(hashSecret(secret));
    // The other system itself has reported that this key is deleted.
    const ended = verified.result === 'UNKNOWN' && record?.deleteTime !== undefined;
    const result = ended ? 'DEAD' : verified.result;
    const why = ended ? '' : verified.why;
    if (record === undefined || result === 'UNKNOWN') return { result, why, record, recorded: false };
    const change = { lastVerifyTime: clock.now(), lastVerifyResult: result };
    const reason = `${record.id} is ${result.toLowerCase()}`;
    const recorded = await log.change(record.id, change, this.#entry(origin, reason));
    return { result, why, record: { ...record, ...change }, recorded };
  }

  /** The records of the user's keys by id; records that the list proves wrong are corrected first. */
  async #recordsOf(listed: RemoteList, origin: CallOrigin): Promise<Map<string, RemoteKeyRecord>> {
    const { log } = this.#parts;
    const { user, userId } = listed;
    const records = new Map((await log.list({ user, userId })).map((record) => [record.id, record]));
    const found = new Map(
      (await log.find(listed.keys.map(({ id }) => id))).map((record) => [record.id, record]),
    );
    for (const seen of listed.keys) {
      const record = found.get(seen.id);
      // The id was reused after its first key was deleted.
      if (record === undefined || (record.deleteTime !== undefined && !hasSameSecret(record, seen))) continue;
      records.set(record.id, await this.#putRight(record, { user, userId }, origin));
    }
    return records;
  }

  async #putRight(record: RemoteKeyRecord, now: RemoteUser, origin: CallOrigin): Promise<RemoteKeyRecord> {
    const userId = now.userId ?? record.userId;
    const deleted = record.deleteTime !== undefined;
    if (!deleted && record.user === now.user && record.userId === userId) return record;
    const reason = deleted ? `${record.id} is not deleted` : `${record.id} is of another user name`;
    await this.#parts.log.change(record.id, { seenOf: now }, this.#entry(origin, reason));
    return { ...record, deleteTime: undefined, user: now.user, userId };
  }

  #system(): RemoteSystem {
    const { system, setting } = this.#parts;
    if (system !== undefined) return system;
    throw new ApiError('INTEGRATION_OFF', `switched off: set ${setting}`, { metadata: { setting } });
  }

  /** A key whose secret nobody has received, and that no record knows, must not remain valid. */
  async #takeBack(session: RemoteSession, { id, user }: RemoteKeyRecord, cause: unknown): Promise<never> {
    const taken = await session.delete(user, id).catch(() => false);
    if (!taken) {
      const text = `the key was made there as ${id}, but could not be recorded here nor taken back: delete it there`;
      throw new ApiError('STORE_UNAVAILABLE', text, { cause, metadata: { remote_id: id } });
    }
    throw cause;
  }

  #entry(origin: CallOrigin, reason: string) {
    return auditEntry(origin, this.#parts.clock, { outcome: 'OK', reason });
  }
}

function isOf({ user, userId }: RemoteUser, record: RemoteKeyRecord): boolean {
  return record.user === user || (userId !== undefined && record.userId === userId);
}

type Meant = { there: SeenRemoteKey } | { record: RemoteKeyRecord } | { id: string };

/** Deletes a listed key, or one of another user. Only a list without the key proves that it is gone. */
async function end(session: RemoteSession, listed: RemoteList, meant: Meant) {
  const { user } = listed;
  if ('record' in meant) return { id: meant.record.id, existed: false };
  if ('id' in meant) {
    // The list has proved that the user has no such key; whether another user has, only the other system knows.
    const existed = listed.othersById && (await session.delete(user, meant.id));
    return { id: meant.id, existed };
  }
  const { id } = meant.there;
  if (await session.delete(user, id)) return { id, existed: true };
  const again = await session.list(user);
  if (again.keys.some((key) => key.id === id))
    throw new ApiError('REMOTE_REFUSED', `${id} was not deleted: it is listed there, and said to be missing`);
  return { id, existed: false };
}
