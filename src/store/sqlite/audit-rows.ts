import { EVENT_WIDTH } from '../../audit/chain.ts';
import type { AuditRecord } from '../../keys/ports.ts';
import type { Value } from './thread.ts';

// In the canonical order of pushEvent; the three columns that the writer thread adds come first.
const COLUMNS = [
  'time',
  'method',
  'outcome',
  'reason',
  'key_id',
  'caller_key_id',
  'key_fingerprint',
  'required_scope',
  'client_ip',
  'client_ip_is_peer',
  'user_agent',
  'secret_slot',
  'cost',
  'dry_run',
  'latency_micros',
  'request_id',
  'refused_calls',
] as const;

/** Inserts so many events at once; process_id, sequence and hash come before the values of each. */
export function eventInsert(events: number): string {
  const row = `(?, ?, ?${', ?'.repeat(EVENT_WIDTH)})`;
  const columns = `process_id, sequence, hash, ${COLUMNS.join(', ')}`;
  return `INSERT INTO api_key_audit_log (${columns}) VALUES ${Array(events).fill(row).join(', ')}`;
}

/** A row as the log shows it. */
export function toRecord(row: Record<string, Value>): AuditRecord {
  const text = (name: string) => String(row[name]);
  const number = (name: string) => Number(row[name]);
  return {
    id: `${text('process_id')}-${number('sequence')}`,
    processId: text('process_id'),
    sequence: number('sequence'),
    servedBy: '',
    hash: text('hash'),
    time: number('time'),
    method: text('method'),
    outcome: text('outcome'),
    reason: text('reason'),
    keyId: text('key_id'),
    callerKeyId: text('caller_key_id'),
    keyFingerprint: text('key_fingerprint'),
    requiredScope: text('required_scope'),
    clientIp: text('client_ip'),
    clientIpIsPeer: number('client_ip_is_peer') === 1,
    userAgent: text('user_agent'),
    secretSlot: text('secret_slot') as AuditRecord['secretSlot'],
    cost: number('cost'),
    dryRun: number('dry_run') === 1,
    latencyMicros: number('latency_micros'),
    requestId: text('request_id'),
    refusedCalls: number('refused_calls'),
  };
}
