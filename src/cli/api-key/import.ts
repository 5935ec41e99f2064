import type { ImportKeysResult } from '../../../gen/apikey/v1/admin_pb.ts';
import { type Clients, EXIT } from '../client.ts';
import { type Print, Progress } from '../output.ts';
import { readKeyFile } from './key-file.ts';
import {
  CHUNKS_AT_ONCE,
  checkAll,
  chunksOf,
  each,
  type FileOptions,
  importKeys,
  interrupted,
  withOwner,
  withRetries,
} from './many-keys.ts';
import { addVerb, type VerbContext } from './verb.ts';

const IMPORT_EXAMPLE = `
Example: apikeyd api-key import keys.csv

A file as of "api-key create --from" with one column more, hash: the SHA-256 of the secret, 64 hex digits. The whole
file is checked before anything is written. Secrets of another shape than audit_v1_… work where the server has
ACCEPT_IMPORTED_SHAPES=true.`;

/** `api-key import` */
export function addImport(context: VerbContext): void {
  addVerb(context, 'import <file>')
    .description('take keys over from another system, by the SHA-256 of their secrets; can be repeated')
    .option('--owner <id>', 'owner of the keys whose line names none', context.defaults.owner)
    .addHelpText('after', IMPORT_EXAMPLE)
    .action(
      context.run((clients, options: FileOptions, file) => importFile(clients, options, file, context.print)),
    );
}

/** Checks the whole file first, then writes the keys that the server does not have yet. */
async function importFile(
  clients: Clients,
  options: FileOptions,
  path: string,
  print: Print,
): Promise<number> {
  const file = withOwner(readKeyFile(path), options.owner);
  const chunks = chunksOf(file.keys);
  await checkAll(clients, file, chunks, 'nothing was imported');
  const progress = new Progress('importing', file.keys.length);
  const results = new Map<number, ImportKeysResult>();
  try {
    await each(chunks, CHUNKS_AT_ONCE, async (chunk) => {
      const response = await withRetries(() =>
        importKeys(
          clients,
          chunk.map(({ key }) => key),
          false,
        ),
      );
      for (const [i, { line }] of chunk.entries()) {
        const result = response.results[i];
        if (result !== undefined) results.set(line, result);
      }
      progress.at(results.size);
    });
  } catch (error) {
    progress.end();
    throw interrupted(error, `${results.size} of ${file.keys.length} keys are imported`);
  }
  progress.end();
  if (options.json) {
    for (const { line } of file.keys) {
      const { id, existing } = results.get(line) ?? { id: '', existing: false };
      print(JSON.stringify({ line, id, existing }));
    }
    return EXIT.ok;
  }
  const existing = [...results.values()].filter((result) => result.existing).length;
  print(`imported ${results.size - existing} keys${existing > 0 ? `; ${existing} were here already` : ''}`);
  return EXIT.ok;
}
