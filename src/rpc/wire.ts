import { type DescMessage, fromBinary, type Message } from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { ApiError } from '../keys/errors.ts';
import { refuseTooMany } from '../messages/message-size.ts';
import { LIMITS } from './limits.ts';

/** Reads a binary message. Unknown fields are refused, since they may be conditions on the response. */
export function readMessage(schema: DescMessage, bytes: Uint8Array, skipsUnknownFields = false): Message {
  if (bytes.length > LIMITS.messageBytes) throw tooLarge();
  refuseTooMany(schema, bytes);
  let message: Message;
  try {
    message = fromBinary(schema, bytes);
  } catch (error) {
    throw unreadable(error);
  }
  if (!skipsUnknownFields) refuseUnknownFields(schema, message);
  return message;
}

export function tooLarge(most: number = LIMITS.messageBytes): ApiError {
  return new ApiError('MESSAGE_TOO_LARGE', `a message may have at most ${most} bytes here`);
}

/** An unknown field is an error, in JSON as in binary: an older server must not silently skip a condition. */
export function refuseUnknownFields(schema: DescMessage, message: Message, at = ''): void {
  const [unknown] = message.$unknown ?? [];
  if (unknown !== undefined) {
    const description = `no field has the number ${unknown.no}`;
    const field = at === '' ? '' : at.slice(0, -1);
    throw new ApiError('INVALID_REQUEST', description, { violations: [{ field, description }] });
  }
  if (!schema.fields.some(({ message: inner }) => inner !== undefined)) return;
  const reflected = reflect(schema, message);
  for (const field of schema.fields) {
    if (field.message === undefined || !reflected.isSet(field)) continue;
    if (field.fieldKind === 'message')
      refuseUnknownFields(field.message, reflected.get(field).message, `${at}${field.name}.`);
    if (field.fieldKind === 'list') {
      for (const [i, item] of [...reflected.get(field)].entries()) {
        refuseUnknownFields(
          field.message,
          (item as { message: Message }).message,
          `${at}${field.name}[${i}].`,
        );
      }
    }
  }
}

const UNKNOWN_FIELD = /key "([\w.]{1,64})" is unknown/;

/** The refusal of a message that cannot be read. Only a field's name is quoted: values may be secrets. */
export function unreadable(cause: unknown): ApiError {
  const text = cause instanceof Error ? cause.message : String(cause);
  const field = UNKNOWN_FIELD.exec(text.replaceAll('\\"', '"'))?.[1];
  const description = field === undefined ? 'the message cannot be read' : `there is no field ${field}`;
  return new ApiError('INVALID_REQUEST', description, {
    cause,
    violations: [{ field: field ?? '', description }],
  });
}
