import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { useSignal } from '@preact/signals';
import {
  type Key,
  type RevokeReason,
  RevokeReasonSchema,
  RotationMode,
  RotationState,
} from '../../gen/apikey/v1/key_pb.ts';
import { formOf, KeyFields, type KeyForm, readForm, SHOWN_FIELDS } from './key-form.tsx';
import { useSecretGuard } from './pages/create.tsx';
import { Action, Dialog, Field, Form, Problem, problemOf, tell, useLoaded } from './parts.tsx';
import { SecretBox } from './secret-box.tsx';
import { serverNow } from './server-clock.ts';
import type { Session } from './session.ts';
import { choicesOf } from './words.ts';

interface Props {
  readonly session: Session;
  readonly given: Key;
  readonly changed: () => void;
}
type Shown = '' | 'edit' | 'rotate' | 'expire' | 'revoke';

/** The buttons of a key and the dialogs behind them. */
export function KeyActions({ session, given, changed }: Props) {
  const shown = useSignal<Shown>('');
  const error = useSignal<unknown>(undefined);
  const done = (text: string) => {
    shown.value = '';
    tell(text);
    changed();
  };
  const toggle = async () => {
    error.value = undefined;
    try {
      await session.clients.admin.updateKey({
        key: { id: given.id, disabled: !given.disabled, etag: given.etag },
        updateMask: { paths: ['disabled'] },
      });
      done(given.disabled ? 'The key works again.' : 'The key is disabled everywhere.');
    } catch (failure) {
      error.value = failure;
      changed();
    }
  };
  const props = { session, given, done, close: () => (shown.value = '') };
  return (
    <div>
      <div class="row">
        <button type="button" onClick={() => (shown.value = 'edit')}>
          Edit …
        </button>
        <button type="button" onClick={() => (shown.value = 'rotate')}>
          Rotate …
        </button>
        <Action label={given.disabled ? 'Enable' : 'Disable'} act={toggle} />
        <button type="button" onClick={() => (shown.value = 'expire')}>
          Expire …
        </button>
        <button type="button" class="danger" onClick={() => (shown.value = 'revoke')}>
          Revoke …
        </button>
      </div>
      <Problem error={error.value} />
      {shown.value === 'edit' && <EditDialog {...props} />}
      {shown.value === 'rotate' && <RotateDialog {...props} changed={changed} />}
      {shown.value === 'expire' && <ExpireDialog {...props} />}
      {shown.value === 'revoke' && <RevokeDialog {...props} />}
    </div>
  );
}

interface DialogProps {
  readonly session: Session;
  readonly given: Key;
  readonly done: (text: string) => void;
  readonly close: () => void;
}

const PATHS = {
  name: 'name',
  owner: 'owner_id',
  scopes: 'scopes',
  limits: 'rate_limits',
  bucket: 'rate_limit_bucket',
  addresses: 'ip_allowlist',
  rotateEvery: 'rotate_every',
  local: 'local_validation',
  metadata: 'metadata',
} as const;

/** Changes the fields that differ. After a concurrent change the user sees both versions and decides. */
function EditDialog({ session, given, done, close }: DialogProps) {
  const before = useSignal(formOf(given));
  const etag = useSignal(given.etag);
  const form = useSignal(before.value);
  const theirs = useSignal<KeyForm | undefined>(undefined);
  const wrong = useSignal<ReadonlyMap<string, string>>(new Map());
  const error = useSignal<unknown>(undefined);
  const changedNames = () =>
    (Object.keys(PATHS) as (keyof typeof PATHS)[]).filter((name) => form.value[name] !== before.value[name]);
  const save = async () => {
    const { fields, wrong: unreadable } = readForm(form.value);
    wrong.value = unreadable;
    error.value = undefined;
    const names = changedNames();
    if (unreadable.size > 0) return;
    if (names.length === 0) return close();
    try {
      await session.clients.admin.updateKey({
        key: { ...fields, id: given.id, etag: etag.value },
        updateMask: { paths: names.map((name) => PATHS[name]) },
      });
      done('The change holds everywhere.');
    } catch (failure) {
      error.value = failure;
      const { fields: named, reason } = problemOf(failure);
      wrong.value = named;
      if (reason !== 'ETAG_MISMATCH') return;
      const { key } = await session.clients.admin.getKey({ id: given.id });
      if (key === undefined) return;
      etag.value = key.etag;
      theirs.value = formOf(key);
      before.value = theirs.value;
    }
  };
  return (
    <Dialog title={`Edit ${given.name}`} close={close}>
      {theirs.value !== undefined && (
        <div class="problem" role="alert">
          <strong>Somebody else has changed this key meanwhile.</strong> Theirs and yours, where they differ;
          saving writes yours:
          {changedNames().map((name) => (
            <div key={name}>
              <code>{PATHS[name]}</code> theirs: {theirs.value?.[name] || '(empty)'} — yours:{' '}
              {form.value[name] || '(empty)'}
            </div>
          ))}
        </div>
      )}
      <Form label="Save" kind="main" act={save} cancel={close}>
        <KeyFields
          form={form.value}
          change={(fields) => (form.value = { ...form.value, ...fields })}
          problems={wrong.value}
          isNew={false}
        />
        {theirs.value === undefined && <Problem error={error.value} shown={SHOWN_FIELDS} />}
      </Form>
    </Dialog>
  );
}

const PRESETS = [
  {
    value: 'planned',
    text: 'Planned: the old secret works on for 24 h',
    mode: RotationMode.MANUAL,
    seconds: 86_400n,
  },
  { value: 'gradual', text: 'Gradual: 7 days, for many users', mode: RotationMode.MANUAL, seconds: 604_800n },
  {
    value: 'emergency',
    text: 'Emergency: 1 h, older secrets end at once',
    mode: RotationMode.FORCED,
    seconds: 3_600n,
  },
  {
    value: 'leaked',
    text: 'In wrong hands: every old secret ends at once',
    mode: RotationMode.FORCED,
    seconds: 0n,
  },
] as const;

function RotateDialog({ session, given, done, close, changed }: DialogProps & { changed: () => void }) {
  const preset = useSignal<string>('planned');
  const error = useSignal<unknown>(undefined);
  const secret = useSignal('');
  const copied = useSignal(false);
  useSecretGuard(secret.value, copied.value);
  const rotate = async () => {
    const { mode, seconds } = PRESETS.find(({ value }) => value === preset.value) ?? PRESETS[0];
    error.value = undefined;
    try {
      const answer = await session.clients.admin.rotateKey({ id: given.id, mode, grace: { seconds } });
      secret.value = answer.secret;
      changed();
    } catch (failure) {
      error.value = failure;
    }
  };
  const complete = async () => {
    error.value = undefined;
    try {
      await session.clients.admin.completeRotation({ id: given.id });
      done('The old secret has ended everywhere.');
    } catch (failure) {
      error.value = failure;
    }
  };
  const leave = () => {
    if (
      secret.value !== '' &&
      !copied.value &&
      !confirm('The secret was not copied yet. Leave, and lose it?')
    )
      return;
    close();
  };
  const inRotation = given.rotation !== undefined && given.rotation.state !== RotationState.NONE;
  return (
    <Dialog title={`Rotate ${given.name}`} close={leave}>
      {secret.value !== '' ? (
        <>
          <SecretBox secret={secret.value} copied={() => (copied.value = true)} />
          <button type="button" onClick={leave}>
            Done
          </button>
        </>
      ) : (
        <Form
          label="Make a new secret"
          kind="main"
          act={rotate}
          besides={inRotation && <Action label="End the old secret now" act={complete} />}
          cancel={close}
        >
          <Field
            label="How"
            name="preset"
            value={preset.value}
            set={(value) => (preset.value = value)}
            choices={PRESETS}
          />
          <Problem error={error.value} />
        </Form>
      )}
    </Dialog>
  );
}

function ExpireDialog({ session, given, done, close }: DialogProps) {
  const at = useSignal('');
  const error = useSignal<unknown>(undefined);
  const expire = async () => {
    error.value = undefined;
    try {
      const expireTime = at.value === '' ? {} : { expireTime: timestampFromMs(new Date(at.value).getTime()) };
      await session.clients.admin.expireKey({ id: given.id, ...expireTime });
      done(at.value === '' ? 'The key has expired everywhere.' : 'The key expires then.');
    } catch (failure) {
      error.value = failure;
    }
  };
  return (
    <Dialog title={`Expire ${given.name}`} close={close}>
      <Form label={at.value === '' ? 'Expire now' : 'Expire then'} kind="danger" act={expire} cancel={close}>
        <Field
          label="When"
          name="expire_at"
          type="datetime-local"
          value={at.value}
          set={(value) => (at.value = value)}
          hint="In your time zone; never later than it would have. Empty: now."
        />
        <Problem error={error.value} />
      </Form>
    </Dialog>
  );
}

const HOUR_MS = 3_600_000;

/** Asks the user to type the key's name, and shows recent uses of the key. */
function RevokeDialog({ session, given, done, close }: DialogProps) {
  const typed = useSignal('');
  const reason = useSignal('1');
  const note = useSignal('');
  const error = useSignal<unknown>(undefined);
  const { data } = useLoaded(
    () =>
      session.clients.admin.getUsage({
        keyId: given.id,
        startTime: timestampFromMs(serverNow() - HOUR_MS),
        endTime: timestampFromMs(serverNow()),
      }),
    'last hour',
  );
  const uses = data?.rows.reduce((sum, { count }) => sum + count, 0n);
  const revoke = async () => {
    error.value = undefined;
    try {
      await session.clients.admin.revokeKey({
        id: given.id,
        reason: Number(reason.value) as RevokeReason,
        note: note.value,
      });
      done(`${given.name} is revoked everywhere.`);
    } catch (failure) {
      error.value = failure;
    }
  };
  return (
    <Dialog title={`Revoke ${given.name}`} close={close}>
      <p>
        {uses === undefined
          ? 'Looking for its uses …'
          : `It was asked about ${uses} times in this hour and the one before. `}
        Revoking ends it for good: nobody can undo this.
      </p>
      <Form
        label="Revoke for good"
        kind="danger"
        act={revoke}
        disabled={typed.value !== given.name}
        cancel={close}
      >
        <Field
          label="Reason"
          name="reason"
          value={reason.value}
          set={(value) => (reason.value = value)}
          choices={choicesOf(RevokeReasonSchema)}
        />
        <Field label="Note" name="note" value={note.value} set={(value) => (note.value = value)} />
        <Field
          label="Type the key's name to confirm"
          name="confirm"
          value={typed.value}
          set={(value) => (typed.value = value)}
          hint={given.name}
        />
        <Problem error={error.value} />
      </Form>
    </Dialog>
  );
}
