import { Code, ConnectError } from '@connectrpc/connect';
import { signal, useSignal } from '@preact/signals';
import type { AnchorHTMLAttributes, ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { BadRequestSchema, ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { go, hrefOf } from './router.ts';

/** The state or the result of a call. */
export interface Loaded<T> {
  readonly data: T | undefined;
  readonly error: unknown;
  readonly loading: boolean;
  reload(): void;
}

const refreshes = signal(0);

/** Loads everything that the page shows anew. */
export function refresh(): void {
  refreshes.value++;
}

/**
 * Loads when the page is shown, when `key` changes and on a refresh; the late response of an older call is dropped.
 */
export function useLoaded<T>(load: (signal: AbortSignal) => Promise<T>, key: string): Loaded<T> {
  const state = useSignal<{ data: T | undefined; error: unknown; loading: boolean }>({
    data: undefined,
    error: undefined,
    loading: true,
  });
  const turn = useSignal(0);
  useEffect(() => {
    const abort = new AbortController();
    state.value = { ...state.value, loading: true };
    load(abort.signal).then(
      (data) => {
        if (!abort.signal.aborted) state.value = { data, error: undefined, loading: false };
      },
      (error: unknown) => {
        if (!abort.signal.aborted) state.value = { data: state.value.data, error, loading: false };
      },
    );
    return () => abort.abort();
  }, [key, turn.value, refreshes.value]);
  return { ...state.value, reload: () => void turn.value++ };
}

/** The text of an error; problems of fields are shown at the fields. */
export function problemOf(error: unknown): { text: string; fields: Map<string, string>; reason: string } {
  // An error of this page has a text for people.
  if (error instanceof Error && !(error instanceof ConnectError))
    return { text: error.message, fields: new Map(), reason: '' };
  const failure = ConnectError.from(error);
  const fields = new Map<string, string>();
  for (const { fieldViolations } of failure.findDetails(BadRequestSchema))
    for (const { field, description } of fieldViolations) fields.set(field, description);
  const [info] = failure.findDetails(ErrorInfoSchema);
  const away = failure.code === Code.Unavailable || failure.code === Code.Unknown;
  const text =
    info === undefined && away
      ? 'The server cannot be reached. What you typed is kept; try again.'
      : failure.rawMessage;
  return { text, fields, reason: info?.reason ?? '' };
}

export function Problem({ error, shown = [] }: { error: unknown; shown?: readonly string[] }) {
  if (error === undefined) return null;
  const { text, fields } = problemOf(error);
  const rest = [...fields].filter(([field]) => !shown.includes(field));
  return (
    <div class="problem" role="alert">
      <strong>{fields.size > 0 ? 'Some fields need a change.' : text}</strong>
      {rest.map(([field, description]) => (
        <div key={field}>
          <code>{field}</code> {description}
        </div>
      ))}
    </div>
  );
}

export function Link({
  to,
  query,
  children,
  ...rest
}: {
  to: string;
  query?: URLSearchParams;
  children: ComponentChildren;
} & Pick<AnchorHTMLAttributes<HTMLAnchorElement>, 'class' | 'aria-current'>) {
  return (
    <a
      {...rest}
      href={hrefOf(to, query)}
      onClick={(event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
        event.preventDefault();
        go(to, query);
      }}
    >
      {children}
    </a>
  );
}

const GOOD = new Set(['active', 'valid', 'alive', 'ok', 'resolved', 'none']);
const BAD = new Set([
  'revoked',
  'expired',
  'dead',
  'open',
  'local only',
  'remote only',
  'rotated',
  'disabled',
]);

/** A state as a word, with a colour and a mark. */
export function State({ children, bad = BAD.has(children) }: { children: string; bad?: boolean }) {
  const kind = bad ? 'bad' : GOOD.has(children) ? 'good' : '';
  return <span class={`state ${kind}`}>{children}</span>;
}

export function Table({
  caption,
  head,
  children,
  empty,
}: {
  caption: string;
  head: readonly string[];
  children: ComponentChildren[];
  empty: string;
}) {
  if (children.length === 0) return <p class="empty">{empty}</p>;
  return (
    // A wide table scrolls by itself, also by keyboard.
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard.
    <section class="scroll" aria-label={caption} tabIndex={0}>
      <table>
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>
            {head.map((name) => (
              <th key={name} scope="col">
                {name === '' ? <span class="unseen">Actions</span> : name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </section>
  );
}

export interface FieldProps {
  readonly label: string;
  readonly name: string;
  readonly value: string;
  readonly set: (value: string) => void;
  readonly hint?: string;
  readonly type?: 'text' | 'password' | 'datetime-local';
  readonly rows?: number;
  readonly choices?: readonly { value: string; text: string }[];
  readonly none?: string;
  readonly error?: string | undefined;
  readonly autofocus?: boolean;
}

/** A labelled field with its hint and its error, tied to it for screen readers. */
export function Field(props: FieldProps) {
  const { label, name, value, set, hint, type = 'text', rows, choices, none, error, autofocus } = props;
  const element = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (autofocus === true) element.current?.focus();
  }, [autofocus]);
  const described = [hint === undefined ? '' : `${name}-hint`, error === undefined ? '' : `${name}-error`];
  const common = {
    id: name,
    name,
    value,
    'aria-describedby': described.join(' ').trim() || undefined,
    'aria-invalid': error !== undefined,
    onInput: (event: { currentTarget: { value: string } }) => set(event.currentTarget.value),
  };
  return (
    <div class="field">
      <label for={name}>{label}</label>
      {choices !== undefined ? (
        <select {...common}>
          {none !== undefined && <option value="">{none}</option>}
          {choices.map((choice) => (
            <option key={choice.value} value={choice.value}>
              {choice.text}
            </option>
          ))}
        </select>
      ) : rows !== undefined ? (
        <textarea {...common} rows={rows} spellcheck={false} />
      ) : (
        <input
          {...common}
          // The types of Preact allow one input type at a time.
          {...({ type } as { type: 'text' })}
          ref={element}
          autocomplete="off"
          spellcheck={false}
        />
      )}
      {hint !== undefined && (
        <small id={`${name}-hint`} class="hint">
          {hint}
        </small>
      )}
      {error !== undefined && (
        <small id={`${name}-error`} class="wrong">
          {error}
        </small>
      )}
    </div>
  );
}

/** A button that shows that its work is in progress, and cannot be pressed meanwhile. */
export function Action({
  label,
  act,
  kind = '',
  disabled = false,
}: {
  label: string;
  act: () => Promise<unknown>;
  kind?: 'main' | 'danger' | '';
  disabled?: boolean;
}) {
  const busy = useSignal(false);
  const run = async () => {
    busy.value = true;
    try {
      await act();
    } finally {
      busy.value = false;
    }
  };
  return (
    <button type="button" class={kind} disabled={disabled || busy.value} aria-busy={busy.value} onClick={run}>
      {busy.value ? `${label} …` : label}
    </button>
  );
}

/** Fields with a button that Enter also presses; `besides` are other buttons in its row. */
export function Form({
  label,
  act,
  kind = 'main',
  disabled = false,
  besides,
  cancel,
  children,
}: {
  label: string;
  act: () => Promise<unknown>;
  kind?: 'main' | 'danger';
  disabled?: boolean;
  /** Further buttons. */
  besides?: ComponentChildren;
  /** Closes the form without doing anything. */
  cancel?: () => void;
  children: ComponentChildren;
}) {
  const busy = useSignal(false);
  const element = useRef<HTMLFormElement>(null);
  const submitted = useSignal(0);
  // The first wrong field may be out of sight.
  useEffect(() => {
    element.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus();
  }, [submitted.value]);
  const submit = async (event: Event) => {
    event.preventDefault();
    if (busy.value || disabled) return;
    busy.value = true;
    try {
      await act();
    } finally {
      busy.value = false;
      submitted.value++;
    }
  };
  return (
    <form ref={element} onSubmit={submit} autocomplete="off">
      {children}
      <div class="row">
        <button type="submit" class={kind} disabled={disabled || busy.value} aria-busy={busy.value}>
          {busy.value ? `${label} …` : label}
        </button>
        {besides}
        {cancel && (
          <button type="button" onClick={cancel}>
            Cancel
          </button>
        )}
      </div>
    </form>
  );
}

/** The modal dialog of the browser, which keeps the focus inside and restores it afterwards. */
export function Dialog({
  title,
  close,
  children,
}: {
  title: string;
  close: () => void;
  children: ComponentChildren;
}) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    element.current?.showModal();
    return () => before?.focus();
  }, []);
  return (
    <dialog
      ref={element}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
    >
      <h2 id="dialog-title">{title}</h2>
      {children}
    </dialog>
  );
}

/** Short messages at the foot of the page, read out by screen readers. */
export const news = signal('');
let newsTimer = 0;
export function tell(text: string): void {
  news.value = text;
  clearTimeout(newsTimer);
  newsTimer = setTimeout(() => (news.value = ''), 6_000);
}

export function Facts({ rows }: { rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
