import type { DatabaseSync } from 'node:sqlite';
import { AUDIT_FIELDS, columnOf, parseEvent, placeOf } from '../../audit/fields.ts';
import type { AuditRecord } from '../../keys/ports/audit.ts';
import type { Value } from './thread-messages.ts';

/** The columns that a record is read from. */
export const RECORD_COLUMNS = ['row', 'process_id', 'sequence', 'hash', 'time', 'event'] as const;

/** The INSERT for this many events; the values of each are process_id, sequence, hash, time, event. */
export function eventInsert(events: number): string {
  const rows = Array(events).fill('(?, ?, ?, ?, ?)').join(', ');
  return `INSERT INTO api_key_audit_log (process_id, sequence, hash, time, event) VALUES ${rows}`;
}

/** Converts a row to a record of the log. */
export function toRecord({ process_id, sequence, hash, time, event }: Record<string, Value>): AuditRecord {
  return {
    id: `${process_id}-${sequence}`,
    processId: String(process_id),
    sequence: Number(sequence),
    servedBy: '',
    hash: String(hash),
    ...parseEvent(Number(time), String(event)),
  };
}

/** Adds a column for each field with a filter that is newer than the schema. */
export function addFilterColumns(db: DatabaseSync): void {
  const columns = db.prepare("SELECT name FROM pragma_table_xinfo('api_key_audit_log')").all();
  const there = new Set(columns.map(({ name }) => name));
  for (const field of AUDIT_FIELDS) {
    const column = columnOf(field.name);
    if (!('filter' in field) || there.has(column)) continue;
    db.exec(
      `ALTER TABLE api_key_audit_log ADD COLUMN ${column} TEXT AS (event ->> ${placeOf(field.name)}) VIRTUAL`,
    );
  }
}
