import type { MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { CreateKeyRequestSchema } from '../../gen/apikey/v1/admin_pb.ts';
import { type Key, KeyType, KeyTypeSchema } from '../../gen/apikey/v1/key_pb.ts';
import { Field } from './parts.tsx';
import { choicesOf, linesOf, secondsOf } from './words.ts';

/** The fields of a form about a key, as typed. */
export interface KeyForm {
  readonly name: string;
  readonly owner: string;
  readonly type: string;
  readonly scopes: string;
  readonly limits: string;
  readonly bucket: string;
  readonly expires: string;
  readonly addresses: string;
  readonly rotateEvery: string;
  readonly local: string;
  readonly metadata: string;
}

const [YES, NO] = ['yes', 'no'];
const YES_OR_NO = [
  { value: NO, text: 'no' },
  { value: YES, text: 'yes' },
];

export const EMPTY: KeyForm = {
  name: '',
  owner: '',
  type: String(KeyType.SERVICE),
  scopes: '',
  limits: '',
  bucket: '',
  expires: '',
  addresses: '',
  rotateEvery: '',
  local: NO,
  metadata: '',
};

export function formOf(key: Key): KeyForm {
  return {
    ...EMPTY,
    name: key.name,
    owner: key.ownerId,
    type: String(key.keyType),
    scopes: key.scopes.join('\n'),
    limits: key.rateLimits
      .map(({ name, limit, window }) => `${name}=${limit}/${window?.seconds ?? 0n}s`)
      .join('\n'),
    bucket: key.rateLimitBucket === key.id ? '' : key.rateLimitBucket,
    addresses: key.ipAllowlist.join('\n'),
    rotateEvery: key.rotateEvery === undefined ? '' : `${key.rotateEvery.seconds}s`,
    local: key.localValidation ? YES : NO,
    metadata: Object.entries(key.metadata)
      .map(([name, value]) => `${name}=${value}`)
      .join('\n'),
  };
}

type Fields = Pick<
  MessageInitShape<typeof CreateKeyRequestSchema> & object,
  | 'name'
  | 'ownerId'
  | 'keyType'
  | 'scopes'
  | 'rateLimits'
  | 'rateLimitBucket'
  | 'ipAllowlist'
  | 'metadata'
  | 'rotateEvery'
  | 'localValidation'
>;

/** The request for a form. Unreadable fields are reported under the names that the server uses. */
export function readForm(form: KeyForm): { fields: Fields; expireTime?: Date; wrong: Map<string, string> } {
  const wrong = new Map<string, string>();
  const rateLimits = linesOf(form.limits).map((line) => {
    const [, name, limit, window = ''] = /^(?:([A-Za-z0-9_.-]+)=)?(\d{1,18})\/(\w+)$/.exec(line) ?? [];
    const seconds = secondsOf(window);
    if (limit === undefined || seconds === undefined)
      wrong.set('rate_limits', `${line}: write it as 100/60s or burst=10/1s`);
    return {
      name: name ?? `per-${window}`,
      limit: BigInt(limit ?? 0),
      window: { seconds: BigInt(seconds ?? 0) },
    };
  });
  const every = form.rotateEvery.trim() === '' ? undefined : secondsOf(form.rotateEvery);
  if (form.rotateEvery.trim() !== '' && every === undefined)
    wrong.set('rotate_every', 'write it as 90d or 720h');
  const metadata: Record<string, string> = {};
  for (const line of form.metadata.split('\n').filter((text) => text.trim() !== '')) {
    const at = line.indexOf('=');
    if (at < 1) wrong.set('metadata', `${line}: write it as name=value`);
    else metadata[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  const fields: Fields = {
    name: form.name,
    ownerId: form.owner,
    keyType: Number(form.type) as KeyType,
    scopes: linesOf(form.scopes),
    rateLimits,
    rateLimitBucket: form.bucket.trim(),
    ipAllowlist: linesOf(form.addresses),
    metadata,
    localValidation: form.local === YES,
    ...(every === undefined ? {} : { rotateEvery: { seconds: BigInt(every) } }),
  };
  if (form.expires === '') return { fields, wrong };
  return { fields, wrong, expireTime: new Date(form.expires) };
}

export const timestamp = (time: Date) => timestampFromDate(time);

/** The error of a field or of one of its items, such as `scopes[0]`. */
export function errorAt(problems: ReadonlyMap<string, string>, field: string): string | undefined {
  for (const [name, text] of problems) {
    const bare = name.replace(/^key\./, '');
    if (bare === field || bare.startsWith(`${field}[`) || bare.startsWith(`${field}.`)) return text;
  }
  return undefined;
}

interface Row {
  readonly of: keyof KeyForm;
  /** The name of the field on the server. */
  readonly name: string;
  readonly label: string;
  readonly hint?: string;
  readonly rows?: number;
  readonly type?: 'datetime-local';
  readonly choices?: ReturnType<typeof choicesOf>;
  /** Whether the field is only for new keys. */
  readonly onlyNew?: true;
}

const ROWS: readonly Row[] = [
  { of: 'name', name: 'name', label: 'Name' },
  { of: 'owner', name: 'owner_id', label: 'Owner', hint: 'Who to ask about this key.' },
  { of: 'type', name: 'key_type', label: 'Type', choices: choicesOf(KeyTypeSchema), onlyNew: true },
  {
    of: 'scopes',
    name: 'scopes',
    label: 'Scopes',
    rows: 4,
    hint: 'One per line: traces:read, traces:* for any action, * for all but this service itself.',
  },
  {
    of: 'limits',
    name: 'rate_limits',
    label: 'Rate limits',
    rows: 2,
    hint: 'One per line: 100/60s, burst=10/1s. None: unlimited.',
  },
  {
    of: 'bucket',
    name: 'rate_limit_bucket',
    label: 'Bucket of the limits',
    hint: "Keys with the same bucket share their counters. Empty: the key's own.",
  },
  {
    of: 'addresses',
    name: 'ip_allowlist',
    label: 'Allowed client addresses',
    rows: 2,
    hint: 'One network per line: 10.0.0.0/8, 2001:db8::/32. None: any address.',
  },
  {
    of: 'expires',
    name: 'expire_time',
    label: 'Expires',
    type: 'datetime-local',
    hint: 'In your time zone. Empty: never.',
    onlyNew: true,
  },
  {
    of: 'rotateEvery',
    name: 'rotate_every',
    label: 'Rotate every',
    hint: 'Raises an alert when its secret is older: 90d.',
  },
  {
    of: 'local',
    name: 'local_validation',
    label: 'Backends may decide by themselves',
    choices: YES_OR_NO,
    hint: 'For keys without limits. Their uses reach the audit within a second, not before the response.',
  },
  { of: 'metadata', name: 'metadata', label: 'Metadata', rows: 2, hint: 'One name=value per line.' },
];

export const SHOWN_FIELDS = ROWS.map(({ name }) => name);

/** The fields of a key in the forms for a new key and for a change. */
export function KeyFields({
  form,
  change,
  problems,
  isNew,
}: {
  form: KeyForm;
  change: (fields: Partial<KeyForm>) => void;
  problems: ReadonlyMap<string, string>;
  isNew: boolean;
}) {
  const rows = ROWS.filter(({ onlyNew }) => isNew || onlyNew !== true);
  return (
    <div class="form">
      {rows.map(({ of, onlyNew: _, ...row }) => (
        <Field
          key={of}
          {...row}
          value={form[of]}
          set={(value) => change({ [of]: value })}
          error={errorAt(problems, row.name)}
          autofocus={isNew && of === 'name'}
        />
      ))}
    </div>
  );
}
