import {
  changed,
  type Ledger,
  type LedgerRow,
  noteOf,
  relink,
  remove,
  removeNote,
  rowsOf,
} from './ledger.ts';
import { ALL, KEPT, rowAt, type Scene, type Tampering } from './scene.ts';

function cutTail(ledger: Ledger, processId: string, rows: number) {
  const gone = new Set(rowsOf(ledger, processId).slice(-rows));
  remove(ledger, (row) => gone.has(row));
}

/** Sets the note to the last row that is left, its proof as it was. */
function setNoteBack(ledger: Ledger, processId: string) {
  const { sequence, hash } = rowAt(ledger, processId, -1);
  Object.assign(noteOf(ledger, processId), { sequence: Number(sequence), hash });
}

function forgeCut(ledger: Ledger, processId: string, { sequence, hash }: LedgerRow) {
  noteOf(ledger, processId).cut = { sequence: Number(sequence), hash, time: 1_500, mac: '' };
}

/** Also those of what other chains say: everything fits, for those who have neither key nor anchor. */
function rewriteAll(ledger: Ledger, { first, middle, last }: Scene) {
  const before = new Map<string, string>();
  for (const processId of [first, middle, last]) {
    for (const row of rowsOf(ledger, processId))
      for (const [old, fresh] of before) row.text = row.text.replaceAll(old, fresh);
    const old = rowsOf(ledger, processId).map((row) => row.hash);
    relink(ledger, processId);
    for (const [i, row] of rowsOf(ledger, processId).entries()) before.set(old[i] ?? '', row.hash);
  }
}

/** What can be done to chains and to the notes of them. */
export const CHAIN_TAMPERINGS: readonly Tampering[] = [
  {
    name: 'the beginning of a chain is gone',
    without: ALL,
    withKey: ALL,
    do: (ledger, { middle }) => remove(ledger, (row) => row === rowAt(ledger, middle, 0)),
  },
  {
    name: 'the beginning is gone, and the note says that it was cut there',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      const end = rowAt(ledger, middle, 2);
      const gone = new Set(rowsOf(ledger, middle).slice(0, 3));
      remove(ledger, (row) => gone.has(row));
      forgeCut(ledger, middle, end);
    },
  },
  {
    name: 'the end of a chain is gone',
    without: ALL,
    withKey: ALL,
    do: (ledger, { last }) => cutTail(ledger, last, 3),
  },
  {
    name: 'the end of an earlier chain is gone, its note set back',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      cutTail(ledger, middle, 3);
      setNoteBack(ledger, middle);
    },
  },
  {
    name: 'the end of the last chain is gone, its note set back',
    without: KEPT,
    withKey: ALL,
    do(ledger, { last }) {
      cutTail(ledger, last, 3);
      setNoteBack(ledger, last);
    },
  },
  {
    name: 'the end of a chain is gone, and its note',
    without: ALL,
    withKey: ALL,
    do(ledger, { last }) {
      cutTail(ledger, last, 3);
      removeNote(ledger, last);
    },
  },
  {
    name: 'the rows of a chain are gone',
    without: ALL,
    withKey: ALL,
    do: (ledger, { last }) => remove(ledger, (row) => row.processId === last),
  },
  {
    name: 'the rows of a chain are gone, and its note says that it was cut at its end',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      const end = rowAt(ledger, middle, -1);
      remove(ledger, (row) => row.processId === middle);
      forgeCut(ledger, middle, end);
    },
  },
  {
    name: 'an earlier chain is gone, and its note',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      remove(ledger, (row) => row.processId === middle);
      removeNote(ledger, middle);
    },
  },
  {
    name: 'the last chain is gone, and its note',
    without: KEPT,
    withKey: KEPT,
    do(ledger, { last }) {
      remove(ledger, (row) => row.processId === last);
      removeNote(ledger, last);
    },
  },
  {
    name: 'everything is gone',
    without: KEPT,
    withKey: KEPT,
    do(ledger) {
      ledger.rows = [];
      ledger.notes = [];
    },
  },
  {
    name: 'an earlier copy of everything is put back',
    without: KEPT,
    withKey: KEPT,
    do: (ledger, { longAgo }) => void Object.assign(ledger, structuredClone(longAgo)),
  },
  {
    name: 'an earlier copy of the notes is put back, and what came later is gone from one chain',
    without: ALL,
    withKey: ALL,
    do(ledger, { longAgo, middle }) {
      const kept = rowsOf(longAgo, middle).length;
      cutTail(ledger, middle, rowsOf(ledger, middle).length - kept);
      Object.assign(noteOf(ledger, middle), noteOf(longAgo, middle));
    },
  },
  {
    name: 'a note is gone',
    without: ALL,
    withKey: ALL,
    do: (ledger, { middle }) => removeNote(ledger, middle),
  },
  {
    name: 'a note names a later place',
    without: ALL,
    withKey: ALL,
    do(ledger, { last }) {
      noteOf(ledger, last).sequence += 5;
    },
  },
  {
    name: 'a note names another hash',
    without: ALL,
    withKey: ALL,
    do(ledger, { last }) {
      noteOf(ledger, last).hash = 'b'.repeat(64);
    },
  },
  {
    name: 'a note says that its chain is still written',
    without: [],
    withKey: ALL,
    do(ledger, { last }) {
      noteOf(ledger, last).closed = false;
    },
  },
  {
    name: 'the note of a cut is gone',
    without: ALL,
    withKey: ALL,
    do(ledger, { first }) {
      delete noteOf(ledger, first).cut;
    },
  },
  {
    name: 'the event that proves a cut is gone',
    without: ALL,
    withKey: ALL,
    do: (ledger) => remove(ledger, ({ text }) => text.includes('"cut ')),
  },
  {
    name: 'an event of an earlier chain is changed, and the chain and its note computed anew',
    without: ALL,
    withKey: ALL,
    do(ledger, { middle }) {
      const row = rowAt(ledger, middle, 4);
      row.text = changed(row.text, { outcome: 'DECISION_REVOKED' });
      relink(ledger, middle);
    },
  },
  {
    name: 'an event of the last chain is changed, and the chain and its note computed anew',
    without: KEPT,
    withKey: ALL,
    do(ledger, { last }) {
      const row = rowAt(ledger, last, 4);
      row.text = changed(row.text, { outcome: 'DECISION_REVOKED' });
      relink(ledger, last);
    },
  },
  {
    name: 'an event is changed, and all chains and all notes computed anew',
    without: KEPT,
    withKey: ALL,
    do(ledger, scene) {
      const row = rowAt(ledger, scene.middle, 4);
      row.text = changed(row.text, { outcome: 'DECISION_REVOKED' });
      rewriteAll(ledger, scene);
    },
  },
  {
    name: 'the events of the last second are gone, and an earlier copy of the note is put back',
    without: ['heads'],
    withKey: ['heads'],
    do: (ledger, { earlier }) => void Object.assign(ledger, structuredClone(earlier)),
  },
];
