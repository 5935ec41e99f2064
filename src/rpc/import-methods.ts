import type { ApiKeyAdmin, ImportedKey as ImportedKeyMessage } from '../../gen/apikey/v1/admin_pb.ts';
import { Violations } from '../keys/errors.ts';
import type { ImportedKey, ImportKeys, ImportResult } from '../keys/import-keys.ts';
import * as fields from '../keys/key-fields.ts';
import { isHash } from '../keys/secret.ts';
import { timeOf } from './convert.ts';
import type { ServiceImplementation } from './method.ts';
import { newKeyFieldsOf } from './new-key.ts';
import { ADMIN, checked } from './requests.ts';

export function importMethods({ importKeys }: { readonly importKeys: ImportKeys }) {
  return {
    importKeys: {
      access: ADMIN,
      async handle({ keys, validateOnly }, origin) {
        const items = checked((found) => {
          if (keys.length < 1 || keys.length > fields.BOUNDS.importedKeys)
            found.add('keys', `1 to ${fields.BOUNDS.importedKeys}`);
          const read = readAll(keys);
          // With validate_only, problems are returned as data.
          if (validateOnly) return read;
          for (const [i, { problems }] of read.entries())
            for (const { field, description } of problems) found.add(`keys[${i}].${field}`, description);
          return read;
        });
        if (!validateOnly) {
          const results = await importKeys.run(items, origin);
          // Each created key has its own event already.
          const event = results.every(({ existing }) => existing) ? { event: {} } : {};
          return { message: { results: results.map(toResult) }, ...event };
        }
        const checks = await importKeys.check(items, origin);
        const results = checks.map((check, i) => ({
          ...toResult(check),
          problems: [...(items[i]?.problems ?? []), ...check.problems].map(
            ({ field, description }) => `${field}: ${description}`,
          ),
        }));
        return { message: { results }, event: { reason: 'validate_only' } };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}

function toResult({ keyId, existing }: ImportResult) {
  return { id: keyId ?? '', existing };
}

/** The keys, each with the problems of its fields. */
function readAll(keys: readonly ImportedKeyMessage[]) {
  const places = new Map<string, number>();
  return keys.map((message, i) => {
    const found = new Violations();
    const item = importedKeyOf(found, message);
    const before = places.get(item.secretHash);
    if (before !== undefined) found.add('key_hash', `the same as of keys[${before}]`);
    places.set(item.secretHash, i);
    return { ...item, problems: found.found };
  });
}

function importedKeyOf(found: Violations, message: ImportedKeyMessage): ImportedKey {
  if (!isHash(message.keyHash)) found.add('key_hash', 'SHA-256 as 64 lower-case hex digits');
  // A past time is valid, so that a file can be imported again. In other systems year 1 means "never".
  const expireTime = timeOf(found, 'expire_time', message.expireTime);
  if (expireTime !== undefined && expireTime < 0)
    found.add('expire_time', 'a time from 1970 to 9999; leave it out for a key that does not expire');
  return {
    secretHash: message.keyHash,
    key: {
      ...newKeyFieldsOf(found, message),
      requestId: '',
      expireTime,
    },
  };
}
