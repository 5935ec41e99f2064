import { DatabaseSync } from 'node:sqlite';
import type { Ledger, LedgerNote, LedgerRow, LedgerStore } from './ledger.ts';

const fileOf = (url: string) => url.replace('sqlite:', '');

export const sqliteLedger: LedgerStore = {
  async read(url) {
    const db = new DatabaseSync(fileOf(url), { readOnly: true });
    const rows = db.prepare('SELECT * FROM api_key_audit_log ORDER BY row').all();
    const notes = db.prepare('SELECT * FROM api_key_chain_heads').all();
    db.close();
    return {
      rows: rows.map(
        (row): LedgerRow => ({
          id: `${row.process_id}-${row.sequence}`,
          processId: String(row.process_id),
          sequence: Number(row.sequence),
          hash: String(row.hash),
          time: Number(row.time),
          text: String(row.event),
          row: Number(row.row),
        }),
      ),
      notes: notes.map(
        (note): LedgerNote => ({
          processId: String(note.process_id),
          sequence: Number(note.sequence),
          hash: String(note.hash),
          closed: note.closed === 1,
          mac: String(note.mac),
          older: note.older === 1,
          ...(note.cut === null ? {} : { cut: JSON.parse(String(note.cut)) }),
          ...(note.listed === null ? {} : { listed: JSON.parse(String(note.listed)) }),
        }),
      ),
    };
  },

  async write(url, { rows, notes }: Ledger) {
    const db = new DatabaseSync(fileOf(url));
    try {
      db.exec('BEGIN; DELETE FROM api_key_audit_log; DELETE FROM api_key_chain_heads');
      const columns = '(row, process_id, sequence, hash, time, event)';
      const insert = db.prepare(`INSERT INTO api_key_audit_log ${columns} VALUES (?, ?, ?, ?, ?, ?)`);
      for (const { row, processId, sequence, hash, time, text, more } of rows) {
        const event = more === undefined ? text : String(more.event ?? text.replace(/\]$/, ',"more"]'));
        insert.run(row ?? null, processId, sequence, hash, time, event);
      }
      const note = db.prepare('INSERT INTO api_key_chain_heads VALUES (?, ?, ?, ?, ?, ?, ?, ?)');
      const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));
      for (const { processId, sequence, hash, closed, cut, mac, older, listed } of notes)
        note.run(
          processId,
          sequence,
          hash,
          closed ? 1 : 0,
          json(cut),
          mac,
          older === true ? 1 : 0,
          json(listed),
        );
      db.exec('COMMIT');
    } finally {
      db.close();
    }
  },
};

/** What can be done to the tables that lists with a filter go by. The schema holds no proof of them but VerifyAudit. */
export const LIST_TAMPERINGS: readonly { readonly name: string; readonly sql: string }[] = [
  {
    name: 'a row of the look-up table of keys is gone',
    sql: 'DELETE FROM api_key_audit_by_key WHERE row = (SELECT max(row) FROM api_key_audit_by_key)',
  },
  {
    name: 'a row of the look-up table of addresses is gone',
    sql: 'DELETE FROM api_key_audit_by_ip WHERE row = (SELECT min(row) FROM api_key_audit_by_ip)',
  },
  {
    name: 'the look-up tables are empty',
    sql: 'DELETE FROM api_key_audit_by_key; DELETE FROM api_key_audit_by_ip',
  },
  {
    name: 'a row of the look-up tables leads to the event of another key',
    sql: "INSERT INTO api_key_audit_by_key SELECT 'key-other', time, row FROM api_key_audit_by_key LIMIT 1",
  },
  {
    name: 'a row of the look-up tables says another time',
    sql: 'INSERT INTO api_key_audit_by_key SELECT key_id, time + 1, row FROM api_key_audit_by_key LIMIT 1',
  },
  {
    name: 'the tables are said to hold rows that they do not hold',
    sql: `DELETE FROM api_key_audit_by_key; DELETE FROM api_key_audit_by_ip;
      UPDATE api_key_meta SET value = 9000000000000000000 WHERE id = 'audit_looked_up'`,
  },
  {
    name: 'nothing says any more how far the tables go',
    sql: `DELETE FROM api_key_audit_by_key; DELETE FROM api_key_audit_by_ip;
      DELETE FROM api_key_meta WHERE id = 'audit_looked_up'`,
  },
];
