import { useSignal } from '@preact/signals';
import { type KeyType, KeyTypeSchema } from '../../../gen/apikey/v1/key_pb.ts';
import { Action, Problem, Table, tell } from '../parts.tsx';
import { go } from '../router.ts';
import type { Session } from '../session.ts';
import { linesOf, wordOf } from '../words.ts';

const MAX_FILE_BYTES = 5 << 20;
const MAX_KEYS_A_CALL = 1_000;
/** Below the 1 MiB of a message; a key takes fewer bytes in a message than on its line. */
const MAX_BYTES_A_CALL = 900_000;

interface Row {
  readonly line: number;
  /** Of the line, as UTF-8. */
  readonly bytes: number;
  readonly name: string;
  readonly ownerId: string;
  readonly keyType: KeyType;
  readonly scopes: string[];
  readonly keyHash: string;
}

const encoder = new TextEncoder();

/** Reads one JSON object per line, as `apikeyd api-key import` does. */
function readLines(text: string): { rows: Row[]; wrong: string[] } {
  const rows: Row[] = [];
  const wrong: string[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    try {
      const { name, owner, owner_id, key_type, scopes, key_hash } = JSON.parse(line);
      const types = KeyTypeSchema.values.map(({ number }) => wordOf(KeyTypeSchema, number));
      rows.push({
        line: i + 1,
        bytes: encoder.encode(line).length,
        name: String(name ?? ''),
        ownerId: String(owner_id ?? owner ?? ''),
        keyType: Math.max(0, types.indexOf(String(key_type ?? '').toLowerCase())) as KeyType,
        scopes: Array.isArray(scopes) ? scopes.map(String) : linesOf(String(scopes ?? '')),
        keyHash: String(key_hash ?? ''),
      });
    } catch {
      // The line itself is not shown, since it may contain data that must not be on a screen.
      wrong.push(`line ${i + 1}: not a JSON object`);
    }
  }
  return { rows, wrong };
}

/** Splits rows into those of one call each. */
function* partsOf(rows: readonly Row[]): Generator<readonly Row[]> {
  let [from, bytes] = [0, 0];
  for (const [at, row] of rows.entries()) {
    bytes += row.bytes;
    if (at > from && (bytes > MAX_BYTES_A_CALL || at - from === MAX_KEYS_A_CALL)) {
      yield rows.slice(from, at);
      [from, bytes] = [at, row.bytes];
    }
  }
  if (from < rows.length) yield rows.slice(from);
}

/** Imports keys of another system from a file: all lines are checked before any key is written. */
export function ImportPage({ session }: { session: Session }) {
  const rows = useSignal<readonly Row[]>([]);
  const wrong = useSignal<readonly string[]>([]);
  const checked = useSignal(false);
  const error = useSignal<unknown>(undefined);
  const progress = useSignal('');
  const imported = useSignal(0);
  if (!session.admin) return <p class="empty">Your key may look only.</p>;
  const choose = async (event: { currentTarget: HTMLInputElement }) => {
    const [file] = event.currentTarget.files ?? [];
    checked.value = false;
    imported.value = 0;
    error.value = undefined;
    if (file === undefined) return;
    if (file.size > MAX_FILE_BYTES) {
      rows.value = [];
      wrong.value = [
        `The file has more than ${MAX_FILE_BYTES >> 20} MiB: split it, or use apikeyd api-key import.`,
      ];
      return;
    }
    ({ rows: rows.value, wrong: wrong.value } = readLines(await file.text()));
  };
  const send = async (validateOnly: boolean) => {
    error.value = undefined;
    const problems: string[] = [];
    try {
      let done = 0;
      for (const part of partsOf(rows.value)) {
        const keys = part.map(({ line: _line, bytes: _bytes, ...key }) => key);
        const { results } = await session.clients.admin.importKeys({ keys, validateOnly });
        for (const [i, result] of results.entries())
          for (const problem of result.problems) problems.push(`line ${part[i]?.line}: ${problem}`);
        done += part.length;
        progress.value = `${done} of ${rows.value.length}`;
        if (!validateOnly) imported.value = done;
      }
    } catch (failure) {
      error.value = failure;
      return;
    } finally {
      progress.value = '';
    }
    wrong.value = problems;
    checked.value = validateOnly && problems.length === 0;
    if (!validateOnly && problems.length === 0) {
      tell(`${rows.value.length} keys are here now.`);
      go('keys');
    }
  };
  return (
    <section class="narrow">
      <p>
        A file with one JSON object per line: <code>name</code>, <code>owner_id</code>, <code>key_type</code>,{' '}
        <code>scopes</code> and <code>key_hash</code>, the SHA-256 of the secret. Secrets themselves stay
        where they are.
      </p>
      <div class="field">
        <label for="import-file">File</label>
        <input id="import-file" type="file" accept=".jsonl,.ndjson,.json,.txt" onChange={choose} />
      </div>
      <Problem error={error.value} />
      {error.value !== undefined && imported.value > 0 && (
        <p class="problem" role="alert">
          {imported.value} of {rows.value.length} keys are here, the rest is not. Importing the file again
          changes nothing of those that are here.
        </p>
      )}
      {wrong.value.length > 0 && (
        <div class="problem" role="alert">
          <strong>{wrong.value.length} lines need a change. Nothing was imported.</strong>
          <ul>
            {wrong.value.slice(0, 100).map((text) => (
              <li key={text}>{text}</li>
            ))}
          </ul>
        </div>
      )}
      {rows.value.length > 0 && (
        <>
          <p role="status">
            {rows.value.length} keys{checked.value ? ', all good' : ''} {progress.value}
          </p>
          <Table caption="the first keys of the file" head={['Line', 'Name', 'Owner', 'Scopes']} empty="">
            {rows.value.slice(0, 10).map((row) => (
              <tr key={row.line}>
                <td class="number">{row.line}</td>
                <td>{row.name}</td>
                <td>{row.ownerId}</td>
                <td>{row.scopes.join(' ')}</td>
              </tr>
            ))}
          </Table>
          <div class="row">
            <Action label="Check the file" act={() => send(true)} kind={checked.value ? '' : 'main'} />
            <Action
              label="Import"
              act={() => send(false)}
              kind={checked.value ? 'main' : ''}
              disabled={!checked.value}
            />
          </div>
        </>
      )}
    </section>
  );
}
