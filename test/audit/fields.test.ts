// If this fails, a field of the audit's events is hashed, stored, listed or filtered in one place and not in another.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ListAuditEventsRequestSchema } from '../../gen/apikey/v1/admin_pb.ts';
import { AuditEventSchema } from '../../gen/apikey/v1/audit_pb.ts';
import { ownEntry } from '../../src/audit/event.ts';
import {
  AUDIT_FIELDS,
  type AuditField,
  columnOf,
  compileEventText,
  eventText,
  isCanonical,
  parseEvent,
} from '../../src/audit/fields.ts';
import type { AuditEntry } from '../../src/keys/ports/audit.ts';
import { toEvent, toEventDoc } from '../../src/store/mongo/rows.ts';

const VALUES: Record<AuditField['kind'], fc.Arbitrary<unknown>> = {
  text: fc.string({ unit: 'binary' }),
  flag: fc.boolean(),
  number: fc.maxSafeInteger(),
  micros: fc.maxSafeInteger(),
  time: fc.maxSafeInteger(),
  slot: fc.constantFrom('', 'CURRENT', 'PREVIOUS'),
};
const fields: readonly AuditField[] = AUDIT_FIELDS;
const entries = fc
  .record({
    time: fc.integer({ min: -8.64e15, max: 8.64e15 }),
    ...Object.fromEntries(fields.map(({ name, kind }) => [name, VALUES[kind]])),
  })
  .map((entry) => entry as unknown as AuditEntry);

describe("the table of an event's fields", () => {
  it('gives every entry back from its canonical form and from its document, whatever the values', () => {
    fc.assert(
      fc.property(entries, (entry) => {
        const text = eventText(entry);
        expect(isCanonical(text)).toBe(true);
        expect(parseEvent(entry.time, text)).toEqual(entry);
        expect(toEvent(toEventDoc({ id: 'i', servedBy: 'p', entry })).entry).toEqual(entry);
      }),
    );
  });

  it('keeps the canonical form of the first release, which old chains were hashed over', () => {
    const entry = ownEntry({ time: 5, outcome: 'o', reason: 'r', clientIpIsPeer: true, cost: 7 });
    expect(eventText(entry)).toBe('["","o","r","","","","","",1,"","",7,0,0,"",0]');
  });

  it('leaves a field that came later out of the canonical form of events that are older or do not have it', () => {
    const now: AuditField[] = [
      { name: 'reason', kind: 'text' },
      { name: 'cost', kind: 'number', later: true },
      { name: 'requestId', kind: 'text', later: true },
    ];
    const text = compileEventText(now);
    const entry = ownEntry({ time: 1, outcome: '', reason: 'r' });
    expect(text(entry)).toBe('["r"]');
    expect(text({ ...entry, cost: 2 })).toBe('["r",2]');
    expect(text({ ...entry, requestId: 'q' })).toBe('["r",0,"q"]');
  });

  it('takes nothing but the canonical form for one', () => {
    const text = eventText(ownEntry({ time: 1, outcome: 'o', reason: 'r' }));
    for (const wrong of [
      text.replace(']', ',"more"]'),
      text.replace(',', ', '),
      text.replace('"o"', '1'),
      text.replace(',0,', ',2,'),
      text.slice(0, -1),
      '[]',
      '{}',
      'null',
      '',
    ])
      expect(isCanonical(wrong), wrong).toBe(false);
  });

  it('has a row for each field of the message, and of the filter, that is not the place of the event', () => {
    const rows = fields.map(({ name }) => columnOf(name).replace('_micros', ''));
    const place = ['id', 'time', 'process_id', 'sequence', 'served_by', 'hash'];
    expect(AuditEventSchema.fields.map(({ name }) => name).sort()).toEqual([...rows, ...place].sort());
    const filters = fields.filter(({ filter }) => filter).map(({ name }) => columnOf(name));
    const page = ['start_time', 'end_time', 'page_size', 'page_token'];
    expect(ListAuditEventsRequestSchema.fields.map(({ name }) => name).sort()).toEqual(
      [...filters, ...page].sort(),
    );
  });

  it('is the only list of them in the code that stores and converts events', () => {
    for (const file of [
      'store/mongo/rows',
      'store/mongo/audit-log',
      'store/sqlite/audit-rows',
      'rpc/convert',
    ])
      expect(readFileSync(`src/${file}.ts`, 'utf8'), file).not.toMatch(/keyFingerprint|refusedCalls/);
  });
});
