import { toJson } from '@bufbuild/protobuf';
import { Command } from 'commander';
import { CreateBackupResponseSchema } from '../../gen/apikey/v1/admin_pb.ts';
import {
  CliError,
  type ClientDefaults,
  type Clients,
  type ConnectionOptions,
  EXIT,
  runner,
  withConnection,
} from './client.ts';
import { type Print, Progress, plain } from './output.ts';

/** `apikeyd backup`: the server writes, and tells how far it is. */
export function backupCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  return withConnection(new Command('backup').argument('<file>', 'its name, without a folder'), defaults)
    .description('have the server write a copy of the embedded store below its BACKUP_DIR')
    .addHelpText('after', '\nExample: apikeyd backup monday.db\nBack with it: apikeyd restore --help')
    .action(
      runner(exit)((clients, options: ConnectionOptions, file) => backUp(clients, options, file, print)),
    );
}

async function backUp(
  { admin }: Clients,
  options: ConnectionOptions,
  name: string,
  print: Print,
): Promise<number> {
  const progress = new Progress('copying');
  // However long it takes.
  const responses = admin.createBackup({ name }, { timeoutMs: 0 });
  try {
    for await (const response of responses) {
      const { doneBytes, totalBytes, backup } = response;
      if (options.json) print(JSON.stringify(toJson(CreateBackupResponseSchema, response)));
      else progress.at(Number(doneBytes), Number(totalBytes));
      if (backup === undefined) continue;
      progress.end();
      if (!options.json)
        print(`wrote ${plain(backup.name)}: ${backup.sizeBytes} bytes, up to revision ${backup.revision}`);
      return EXIT.ok;
    }
  } finally {
    progress.end();
  }
  throw new CliError(EXIT.denied, 'the server ended before the backup was whole: there is none');
}
