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

/** `apikeyd backup`: the server writes the backup and reports its progress. */
export function backupCommand(defaults: ClientDefaults, print: Print, exit: (code: number) => void): Command {
  return withConnection(
    new Command('backup').argument('<file>', 'name of the file, without a folder'),
    defaults,
  )
    .description('have the server write a copy of the embedded store to its BACKUP_DIR')
    .addHelpText('after', '\nExample: apikeyd backup monday.db\nTo restore it: apikeyd restore --help')
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
  // No deadline: a backup may take long.
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
  throw new CliError(EXIT.denied, 'the server stopped before the backup was complete: no backup was written');
}
