import type { AuditEvent } from '../../audit/event.ts';
import {
  AUDIT_FIELDS,
  type AuditField,
  type Column,
  columnOf,
  defaultOf,
  entryFrom,
} from '../../audit/fields.ts';
import { IpAllowlist } from '../../keys/ip.ts';
import type { Key, RateLimit } from '../../keys/key.ts';
import type { AuditEntry, AuditRecord } from '../../keys/ports/audit.ts';
import { type RotationEffects, rotationDueTime } from '../../keys/rotation.ts';
import { startOf } from '../paging.ts';

const DOC_FIELDS = AUDIT_FIELDS.map((field: AuditField) => ({
  name: field.name,
  column: columnOf(field.name),
  always: field.always === true,
  byDefault: defaultOf(field),
}));

/** Fields of AUDIT_FIELDS; most are left out when they have their default. */
type FieldDoc = { -readonly [F in Exclude<keyof AuditEntry, 'time'> as Column<F>]?: AuditEntry[F] };

export type EventDoc = FieldDoc & { id: string; served_by: string; time: Date };

export type AuditDoc = Omit<EventDoc, 'id'> & {
  _id: string;
  process_id: string;
  sequence: number;
  hash: string;
};

/** An event that is in an outbox for this long was left behind by a crash. */
export const ABANDONED_MS = 15_000;

/** An event in the outbox of a key document, with the other data that its change must publish or record. */
export type WaitingDoc = EventDoc & {
  change: string;
  begun?: { id: string; mode: string; start_time: Date; expire_time: Date; complete_time?: Date };
  completed?: { id: string; time: Date };
};

export interface RetiredDoc {
  _id: string;
  key_id: string;
  /** The time of the TTL index. */
  retire_time: Date;
}

export interface RotationDoc {
  _id: string;
  key_id: string;
  mode: string;
  start_time: Date;
  expire_time: Date;
  complete_time?: Date;
  grace_end_noted?: boolean;
  old_uses?: number;
  last_old_use_time?: Date;
  last_old_use_ip?: string;
}

export interface AnomalyDoc {
  _id: string;
  /** `key:type` while the anomaly is open; unique. */
  open_for?: string;
  key_id: string;
  type: string;
  state: string;
  count: number;
  first_time: Date;
  last_time: Date;
  resolve_time?: Date;
  outbox?: EventDoc[];
}

/** A token of Gitea or a key of n8n. */
export interface RemoteKeyDoc {
  _id: string;
  user: string;
  user_id?: string;
  name: string;
  scopes: string[];
  last_eight: string;
  hash: string;
  create_time: Date;
  expire_time?: Date;
  delete_time?: Date;
  last_verify_time?: Date;
  last_verify_alive?: boolean;
  /** Set beside `last_verify_alive: false`, so that an older process can read the result too. */
  last_verify_unusable?: true;
  outbox?: EventDoc[];
}

export interface AlertDoc {
  _id: string;
  type: string;
  time: Date;
  key_id?: string;
  client_ip?: string;
  text: string;
  detail: Record<string, string>;
  /** Set until the alert is delivered. */
  pending?: boolean;
}

export interface KeyDoc {
  _id: string;
  name: string;
  owner_id: string;
  key_type: string;
  secrets: { hash: string; create_time: Date }[];
  hint: string;
  scopes: string[];
  rate_limits: { name: string; limit: number; window_ms: number }[];
  rate_limit_bucket: string;
  ip_allowlist: string[];
  /** Pairs and not fields, since any text may be a name. */
  metadata: { name: string; value: string }[];
  disabled: boolean;
  create_time: Date;
  expire_time?: Date;
  expired: boolean;
  rotation?: { id: string; mode: string; start_time: Date; expire_time: Date };
  rotate_every_ms?: number;
  rotation_due_time?: Date;
  /** Set for keys with local validation, and for those that ever had it. */
  local_validation?: boolean;
  ever_local?: boolean;
  revoke_time?: Date;
  revoke_reason?: string;
  revoke_note: string;
  last_use_time?: Date;
  request_id?: string;
  etag: string;
  revision: number;
  /** Events that are not in the log yet, with the data to publish. */
  outbox: WaitingDoc[];
  /** The event ids of the last 16 changes: shows whether an unanswered write was applied. */
  ops: string[];
}

export interface LimitDoc {
  _id: string;
  key: string;
  /** The time of the TTL index. */
  expire: Date;
  /** Lockout: the number of failures. */
  points?: number;
  /** Quota: the counters, by counterName. */
  c?: Record<string, { used: number; end: Date }>;
  /** Quota: the last updates, with the counters that each found. */
  ops?: {
    id: string;
    p?: string;
    n?: number;
    now: Date;
    before?: Record<string, { used: number; end: Date }>;
  }[];
}

/** The number of decisions with one outcome about one key ('' for all) in one hour of one chain. */
export interface UsageDoc {
  _id: string;
  key_id: string;
  /** The beginning of the hour. */
  time: Date;
  outcome: string;
  count: number;
  /** The count includes the chain's events up to this sequence. */
  reaches: number;
}

export interface MetaDoc {
  _id: string;
  revision?: number;
  recent?: { revision: number; key_id: string; change: string }[];
  /** With the revision: its epoch, and after a restore the revision after which changes are lost. */
  epoch?: string;
  behind_since?: number;
  version?: number;
  /** In the note of a chain's end. */
  sequence?: number;
  hash?: string;
  closed?: boolean;
  older?: boolean;
  mac?: string;
  cut?: { sequence: number; hash: string; time: number; mac: string };
  listed?: { sequence: number; mac: string };
  /** For a chain's counts of decisions: the sequence up to which they are written, and the end of the current round. */
  counted?: number;
  round_end?: number;
  /** In the entry of a process. */
  counter?: number;
  lease_ms?: number;
  /** The key of the grants of guards. */
  secret?: string;
  /** In the sweep lease. */
  holder?: string;
  until?: Date;
}

type KeyFields = Omit<KeyDoc, '_id' | 'revision' | 'outbox' | 'ops' | 'last_use_time'>;

/** The fields of a key: those to set, and the names of those to unset. */
export function keyFields(key: Key): { set: KeyFields; unset: string[] } {
  const date = (time: number | undefined) => (time === undefined ? undefined : new Date(time));
  const fields = {
    name: key.name,
    owner_id: key.ownerId,
    key_type: key.type,
    secrets: key.secrets.map(({ hash, createTime }) => ({ hash, create_time: new Date(createTime) })),
    hint: key.hint,
    scopes: [...key.scopes],
    rate_limits: key.rateLimits.map(({ name, limit, windowMs }) => ({ name, limit, window_ms: windowMs })),
    rate_limit_bucket: key.rateLimitBucket,
    ip_allowlist: [...key.ipAllowlist.cidrs],
    metadata: Object.entries(key.metadata).map(([name, value]) => ({ name, value })),
    disabled: key.disabled,
    create_time: new Date(key.createTime),
    expire_time: date(key.expireTime),
    expired: key.expired,
    rotation: key.rotation && {
      id: key.rotation.id,
      mode: key.rotation.mode,
      start_time: new Date(key.rotation.startTime),
      expire_time: new Date(key.rotation.expireTime),
    },
    rotate_every_ms: key.rotateEveryMs,
    rotation_due_time: date(rotationDueTime(key)),
    local_validation: key.localValidation || undefined,
    ever_local: key.everLocal || undefined,
    revoke_time: date(key.revokeTime),
    revoke_reason: key.revokeReason,
    revoke_note: key.revokeNote,
    request_id: key.requestId,
    etag: key.etag,
  };
  const entries = Object.entries(fields);
  const set = Object.fromEntries(entries.filter(([, value]) => value !== undefined)) as unknown as KeyFields;
  return { set, unset: entries.filter(([, value]) => value === undefined).map(([name]) => name) };
}

export function toKey(doc: KeyDoc): Key {
  return {
    id: doc._id,
    name: doc.name,
    ownerId: doc.owner_id,
    type: doc.key_type as Key['type'],
    secrets: doc.secrets.map(({ hash, create_time }) => ({ hash, createTime: create_time.getTime() })),
    hint: doc.hint,
    scopes: doc.scopes,
    rateLimits: doc.rate_limits.map(
      ({ name, limit, window_ms }): RateLimit => ({ name, limit, windowMs: window_ms }),
    ),
    rateLimitBucket: doc.rate_limit_bucket,
    ipAllowlist: new IpAllowlist(doc.ip_allowlist),
    metadata: Object.fromEntries(doc.metadata.map(({ name, value }) => [name, value])),
    disabled: doc.disabled,
    createTime: doc.create_time.getTime(),
    expireTime: doc.expire_time?.getTime(),
    expired: doc.expired,
    rotation: doc.rotation && {
      id: doc.rotation.id,
      mode: doc.rotation.mode as 'MANUAL' | 'FORCED',
      startTime: doc.rotation.start_time.getTime(),
      expireTime: doc.rotation.expire_time.getTime(),
    },
    rotateEveryMs: doc.rotate_every_ms,
    localValidation: doc.local_validation === true,
    everLocal: doc.ever_local === true,
    revokeTime: doc.revoke_time?.getTime(),
    revokeReason: doc.revoke_reason as Key['revokeReason'],
    revokeNote: doc.revoke_note,
    lastUseTime: doc.last_use_time?.getTime(),
    requestId: doc.request_id,
    etag: doc.etag,
    revision: doc.revision,
  };
}

/** Filters the documents after `[time, id]` in a list with the newest first. */
export function beforeTime(field: string, after: readonly (string | number)[]) {
  const [time, id] = startOf(after, 'number', 'string').map(String);
  const at = new Date(Number(time));
  return { $or: [{ [field]: { $lt: at } }, { [field]: at, _id: { $lt: id ?? '' } }] };
}

/** Filters the documents after `[time, id]` in a list with the oldest first. */
export function afterTime(field: string, after: readonly (string | number)[]) {
  const [time, id] = startOf(after, 'number', 'string').map(String);
  const at = new Date(Number(time));
  return { $or: [{ [field]: { $gt: at } }, { [field]: at, _id: { $gt: id ?? '' } }] };
}

/** Converts an event to its form in an outbox or in the log; empty values are left out. */
export function toEventDoc({ id, entry, servedBy }: AuditEvent): EventDoc {
  const doc: Record<string, unknown> = { id, served_by: servedBy, time: new Date(entry.time) };
  for (const { name, column, always, byDefault } of DOC_FIELDS) {
    const value = entry[name];
    if (always || value !== byDefault) doc[column] = value;
  }
  return doc as EventDoc;
}

/** Converts an event for an outbox, with the other data of its change. */
export function toWaitingDoc(
  event: AuditEvent,
  change: string,
  { begun, completed }: Partial<RotationEffects> = {},
): WaitingDoc {
  const doc: WaitingDoc = { ...toEventDoc(event), change };
  if (begun !== undefined) {
    doc.begun = {
      id: begun.id,
      mode: begun.mode,
      start_time: new Date(begun.startTime),
      expire_time: new Date(begun.expireTime),
    };
    if (begun.completeTime !== undefined) doc.begun.complete_time = new Date(begun.completeTime);
  }
  if (completed !== undefined) doc.completed = { id: completed.id, time: new Date(completed.time) };
  return doc;
}

/** Reads an event from an outbox. */
export function toEvent(doc: EventDoc): AuditEvent {
  return { id: doc.id, servedBy: doc.served_by, entry: toEntry(doc) };
}

function toEntry(doc: Omit<EventDoc, 'id'>): AuditEntry {
  return entryFrom(doc.time.getTime(), ({ name }) => doc[columnOf(name)]);
}

export function toRecord(doc: AuditDoc): AuditRecord {
  const servedBy = doc.served_by === doc.process_id ? '' : doc.served_by;
  const { _id: id, process_id: processId, sequence, hash } = doc;
  return { ...toEntry(doc), id, processId, sequence, servedBy, hash };
}

/** In REVOCATION_LOG: the state of a key when it was last narrowed, a retired hash, or the reach of the log. */
export interface RevocationDoc {
  _id: string;
  revision?: number;
  /** The record as JSON, without its retired hashes. */
  text?: string;
  mac?: string;
  key_id?: string;
  /** In a retired hash: the time of the TTL index. */
  retire_time?: Date;
  begins?: number;
  covered?: number;
  covered_mac?: string;
}
