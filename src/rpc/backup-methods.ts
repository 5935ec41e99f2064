import { setTimeout as delay } from 'node:timers/promises';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { type Backups, type BackupUnderWay, isBackupName } from '../keys/ports/backups.ts';
import type { ServiceImplementation } from './method.ts';
import { ADMIN, checked } from './requests.ts';

const TELL_EVERY_MS = 200;

export function backupMethods({ backups }: { readonly backups: Backups }) {
  return {
    createBackup: {
      access: ADMIN,
      async open(request) {
        const name = checked((found) => {
          if (!isBackupName(request.name))
            found.add('name', '1 to 200 letters, digits, . _ and -, the first one a letter or a digit');
          return request.name;
        });
        const backup = backups.begin(name);
        return { messages: messagesOf(backup), end: () => backup.giveUp(), event: { reason: name } };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

async function* messagesOf(backup: BackupUnderWay) {
  const said = () => ({
    doneBytes: BigInt(backup.progress.doneBytes),
    totalBytes: BigInt(backup.progress.totalBytes),
  });
  for (;;) {
    const made = await Promise.race([backup.made, delay(TELL_EVERY_MS, undefined, { ref: false })]);
    if (made === undefined) {
      yield said();
      continue;
    }
    const { name, sizeBytes, revision, createTime } = made;
    const file = { name, sizeBytes: BigInt(sizeBytes), revision: BigInt(revision) };
    yield { ...said(), backup: { ...file, createTime: timestampFromMs(createTime) } };
    return;
  }
}
