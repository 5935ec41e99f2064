import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

/** A secret that is shown once: leaving the page before it is copied needs a confirmation. */
export function SecretBox({ secret, copied }: { secret: string; copied: () => void }) {
  const done = useSignal('');
  const element = useRef<HTMLInputElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(secret);
      done.value = 'Copied.';
    } catch {
      // Without a secure origin scripts have no clipboard: the text is selected, to be copied by hand.
      element.current?.select();
      done.value = 'Selected: press Ctrl+C (⌘C) to copy.';
    }
    copied();
  };
  useEffect(() => element.current?.focus(), []);
  return (
    <div class="secret">
      <p>
        <strong>This secret is shown once.</strong> Copy it now: nobody, not even the server, can show it
        again.
      </p>
      <div class="row">
        <input
          ref={element}
          readOnly
          value={secret}
          aria-label="the new secret"
          onCopy={copied}
          onFocus={(event) => event.currentTarget.select()}
        />
        <button type="button" class="main" onClick={copy}>
          Copy
        </button>
      </div>
      <p role="status">{done.value}</p>
    </div>
  );
}
