import { useSignal } from '@preact/signals';
import { Field, problemOf } from '../parts.tsx';
import { farewell, signIn } from '../session.ts';

/** Asks for a key, pasted or read from the key file of the server. */
export function SignIn() {
  const key = useSignal('');
  const keep = useSignal(false);
  const error = useSignal('');
  const busy = useSignal(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    busy.value = true;
    error.value = '';
    try {
      await signIn(key.value.trim(), keep.value);
    } catch (failure) {
      const { text, reason } = problemOf(failure);
      error.value =
        reason === 'CREDENTIAL_INVALID'
          ? 'This key does not work. A wrong key counts as a failed attempt of this address.'
          : text;
    } finally {
      busy.value = false;
    }
  };
  const choose = async (event: { currentTarget: HTMLInputElement }) => {
    const [file] = event.currentTarget.files ?? [];
    if (file !== undefined) key.value = (await file.slice(0, 2_048).text()).trim();
  };
  return (
    <main class="sign-in">
      <form onSubmit={submit}>
        <h1>apikeyd</h1>
        {farewell.value !== '' && (
          <p class="problem" role="alert">
            {farewell.value}
          </p>
        )}
        <Field
          label="API key"
          name="key"
          type="password"
          value={key.value}
          set={(value) => (key.value = value)}
          hint="A key with the scope apikeys:admin, or apikeys:audit to look only."
          error={error.value === '' ? undefined : error.value}
          autofocus
        />
        <div class="field">
          <label for="file">or its file</label>
          <input id="file" type="file" onChange={choose} />
          <small class="hint">The first start of a server writes data/admin.key.</small>
        </div>
        <label class="check">
          <input
            type="checkbox"
            checked={keep.value}
            onChange={(event) => (keep.value = event.currentTarget.checked)}
          />
          Keep me signed in for this tab, also after a reload
        </label>
        <button
          type="submit"
          class="main"
          disabled={busy.value || key.value.trim() === ''}
          aria-busy={busy.value}
        >
          Sign in
        </button>
      </form>
    </main>
  );
}
