import { changed, noteOf, relink, remove } from './ledger.ts';
import { ALL, forge, rowAt, type Tampering } from './scene.ts';

/** What can be done to single events. */
export const EVENT_TAMPERINGS: readonly Tampering[] = [
  {
    name: 'a field of an event is changed',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      const row = rowAt(ledger, middle, 3);
      row.text = changed(row.text, { outcome: 'DECISION_REVOKED' });
    },
  },
  {
    name: 'the time of an event is changed',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      rowAt(ledger, middle, 3).time += 1;
    },
  },
  {
    name: 'the hash of an event is changed',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      rowAt(ledger, middle, -1).hash = 'a'.repeat(64);
    },
  },
  {
    name: 'an event is taken out of the middle',
    without: ALL,
    withKey: ALL,
    do: (ledger, { middle }) => remove(ledger, (row) => row === rowAt(ledger, middle, 4)),
  },
  {
    name: 'two events change places',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      const [one, other] = [rowAt(ledger, middle, 3), rowAt(ledger, middle, 4)];
      [one.text, other.text] = [other.text, one.text];
    },
  },
  {
    name: 'an event stands twice',
    without: ALL,
    withKey: ALL,
    do: (ledger, { middle }) => {
      const { row: _, ...twin } = rowAt(ledger, middle, 4);
      ledger.rows.push(twin);
    },
  },
  {
    name: 'an event is put behind the end of a chain',
    without: ALL,
    withKey: ALL,
    do: (ledger, { last }) => forge(ledger, last, Number(rowAt(ledger, last, -1).sequence) + 1),
  },
  {
    name: 'the same, with a hash that fits',
    without: ALL,
    withKey: ALL,
    do(ledger, { last }) {
      const note = { ...noteOf(ledger, last) };
      forge(ledger, last, Number(rowAt(ledger, last, -1).sequence) + 1);
      relink(ledger, last);
      Object.assign(noteOf(ledger, last), note);
    },
  },
  {
    name: 'a row is numbered below zero',
    without: ALL,
    withKey: ALL,
    do: (ledger, { middle }) => forge(ledger, middle, -5, { row: -5 }),
  },
  {
    name: 'a row lies below all others and says that it is the next of its chain',
    without: ALL,
    withKey: ALL,
    only: 'sqlite',
    do: (ledger, { last }) =>
      forge(ledger, last, Number(rowAt(ledger, last, -1).sequence) + 1, { row: -9_223_372_036_854_775_808n }),
  },
  {
    name: 'a row has a number beyond all bounds',
    without: ALL,
    withKey: ALL,
    do: (ledger, { last }) => forge(ledger, last, 4_611_686_018_427_387_904n),
  },
  {
    name: 'a row has a number that is none',
    without: ALL,
    withKey: ALL,
    only: 'mongo',
    do: (ledger, { last }) => forge(ledger, last, 'x'),
  },
  {
    name: 'a row belongs to no chain',
    without: ALL,
    withKey: ALL,
    do: (ledger) => forge(ledger, '', 1),
  },
  {
    name: 'a document has no process',
    without: ALL,
    withKey: ALL,
    only: 'mongo',
    do: (ledger) => forge(ledger, 'none', 1, { more: { process_id: 7 } }),
  },
  {
    name: 'a chain is put in, without a note',
    without: ALL,
    withKey: ALL,
    do(ledger) {
      forge(ledger, 'f00d', 1);
      relink(ledger, 'f00d');
    },
  },
  {
    name: 'a chain is put in, with a note',
    without: [],
    withKey: ALL,
    do(ledger) {
      forge(ledger, 'f00d', 1);
      ledger.notes.push({ processId: 'f00d', sequence: 1, hash: '', closed: true, mac: '' });
      relink(ledger, 'f00d');
    },
  },
  {
    name: 'an event holds more than its canonical form',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      const row = rowAt(ledger, middle, 4);
      row.more = { note: 'more' };
    },
  },
  {
    name: 'an event is no event',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      rowAt(ledger, middle, 4).more = { event: '{}', time: 'no time' };
    },
  },
];
