import type { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import * as fields from '../keys/key-fields.ts';
import type { ManageKeys } from '../keys/manage-keys.ts';
import type { Clock } from '../keys/ports/clock.ts';
import type { RotationLog } from '../keys/ports/rotations.ts';
import { toKeyMessage, toRotationMessage, wholeMillisOf } from './convert.ts';
import { rotationModeOf } from './enums.ts';
import type { ServiceImplementation } from './method.ts';
import { pageOf, tokenOf } from './page-token.ts';
import { ADMIN, checked, READ } from './requests.ts';

export interface RotationMethodsParts {
  readonly manageKeys: ManageKeys;
  readonly rotations: RotationLog;
  readonly clock: Clock;
}

/** The methods of ApiKeyAdmin that replace secrets. */
export function rotationMethods({ manageKeys, rotations, clock }: RotationMethodsParts) {
  return {
    rotateKey: {
      access: ADMIN,
      async handle(request, origin) {
        const { id, mode, grace } = checked((found) => ({
          id: fields.keyId(found, 'id', request.id),
          mode: rotationModeOf(found, 'mode', request.mode) ?? 'MANUAL',
          grace: wholeMillisOf(found, 'grace', request.grace),
        }));
        const { key, secret } = await manageKeys.rotate(id, mode, grace, origin);
        return { message: { key: toKeyMessage(key, clock.now()), secret } };
      },
    },
    completeRotation: {
      access: ADMIN,
      async handle(request, origin) {
        const id = checked((found) => fields.keyId(found, 'id', request.id));
        const key = await manageKeys.completeRotation(id, origin);
        return { message: { key: toKeyMessage(key, clock.now()) } };
      },
    },
    listRotations: {
      access: READ,
      async handle(request) {
        const { filter, page } = checked((found) => {
          const filter = request.keyId === '' ? {} : { keyId: fields.keyId(found, 'key_id', request.keyId) };
          return { filter, page: pageOf(found, request, 'rotations', filter) };
        });
        const { items, next } = await rotations.list(filter, page);
        return {
          message: {
            rotations: items.map(toRotationMessage),
            nextPageToken: tokenOf(next, 'rotations', filter),
          },
          event: { keyId: request.keyId },
        };
      },
    },
  } satisfies Partial<ServiceImplementation<typeof ApiKeyAdmin>>;
}
