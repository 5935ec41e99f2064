import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { EMPTY, KeyFields, readForm, SHOWN_FIELDS, timestamp } from '../key-form.tsx';
import { Form, Problem, problemOf } from '../parts.tsx';
import { go, guardLeaving } from '../router.ts';
import { SecretBox } from '../secret-box.tsx';
import type { Session } from '../session.ts';

/** A new secret stays on the page until it is copied or the user gives it up. */
export function useSecretGuard(secret: string, copied: boolean): void {
  useEffect(() => {
    if (secret === '' || copied) guardLeaving(undefined);
    else guardLeaving(() => confirm('The secret was not copied yet. Leave, and lose it?'));
    return () => guardLeaving(undefined);
  }, [secret, copied]);
}

export function CreatePage({ session }: { session: Session }) {
  const form = useSignal(EMPTY);
  const wrong = useSignal<ReadonlyMap<string, string>>(new Map());
  const error = useSignal<unknown>(undefined);
  const made = useSignal<{ id: string; name: string; secret: string } | undefined>(undefined);
  const copied = useSignal(false);
  // A retry after a lost response must not create a second key.
  const requestId = useSignal(crypto.randomUUID());
  useSecretGuard(made.value?.secret ?? '', copied.value);
  if (!session.admin) return <p class="empty">Your key may look only.</p>;
  const create = async () => {
    const { fields, expireTime, wrong: unreadable } = readForm(form.value);
    wrong.value = unreadable;
    error.value = undefined;
    if (unreadable.size > 0) return;
    try {
      const { key, secret } = await session.clients.admin.createKey({
        ...fields,
        requestId: requestId.value,
        ...(expireTime === undefined ? {} : { expiry: { case: 'expireTime', value: timestamp(expireTime) } }),
      });
      made.value = { id: key?.id ?? '', name: key?.name ?? '', secret };
    } catch (failure) {
      error.value = failure;
      wrong.value = problemOf(failure).fields;
    }
  };
  if (made.value !== undefined) {
    const { id, name, secret } = made.value;
    return (
      <section class="narrow">
        <p>
          The key <strong>{name}</strong> was made: <code>{id}</code>
        </p>
        <SecretBox secret={secret} copied={() => (copied.value = true)} />
        <button type="button" onClick={() => go(`keys/${id}`)}>
          Show the key
        </button>
      </section>
    );
  }
  return (
    <section class="narrow">
      <Form label="Create key" kind="main" act={create} cancel={() => go('keys')}>
        <KeyFields
          form={form.value}
          change={(fields) => (form.value = { ...form.value, ...fields })}
          problems={wrong.value}
          isNew
        />
        <Problem error={error.value} shown={SHOWN_FIELDS} />
      </Form>
    </section>
  );
}
