import { useSignal } from '@preact/signals';
import {
  RemoteDifference,
  RemoteDifferenceSchema,
  VerifyResultSchema,
} from '../../../gen/apikey/v1/integrations_pb.ts';
import { Action, Field, Form, Problem, problemOf, State, Table, tell } from '../parts.tsx';
import { SecretBox } from '../secret-box.tsx';
import type { Clients, Session } from '../session.ts';
import { linesOf, timeOf, wordOf } from '../words.ts';
import { useSecretGuard } from './create.tsx';

/** A token of either system, as the page shows it. */
interface Token {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly lastEight: string;
  readonly created: string;
  readonly difference: RemoteDifference;
  readonly verified: string;
}

interface Login {
  readonly name: string;
  readonly password: string;
  readonly code: string;
}

/** The differences between the two systems. */
interface System {
  readonly title: string;
  readonly loginLabel: string;
  readonly scopesHint: string;
  list(clients: Clients, login: Login): Promise<Token[]>;
  create(clients: Clients, login: Login, name: string, scopes: string[]): Promise<string>;
  remove(clients: Clients, login: Login, token: Token): Promise<boolean>;
  verify(clients: Clients, secret: string): Promise<number>;
}

const giteaLogin = ({ name, password, code }: Login) => ({ username: name, password, otp: code });
const n8nLogin = ({ name, password, code }: Login) => ({ loginId: name, password, mfaCode: code });

const SYSTEMS: Readonly<Record<string, System>> = {
  gitea: {
    title: 'Gitea',
    loginLabel: 'User name',
    scopesHint: 'One per line: read:repository, write:issue.',
    async list({ integrations }, login) {
      const { tokens } = await integrations.listGiteaTokens({ login: giteaLogin(login), user: login.name });
      return tokens.map((token) => ({ ...token, ...shown(token) }));
    },
    async create({ integrations }, login, name, scopes) {
      const request = { login: giteaLogin(login), user: login.name, name, scopes };
      return (await integrations.createGiteaToken(request)).secret;
    },
    async remove({ integrations }, login, { id }) {
      const request = { login: giteaLogin(login), user: login.name, token: id };
      return (await integrations.deleteGiteaToken(request)).wasMissing;
    },
    verify: async ({ integrations }, secret) => (await integrations.verifyGiteaToken({ secret })).result,
  },
  n8n: {
    title: 'n8n',
    loginLabel: 'E-mail address',
    scopesHint: 'One per line: workflow:read, workflow:list.',
    async list({ integrations }, login) {
      const { apiKeys } = await integrations.listN8nApiKeys({ login: n8nLogin(login) });
      return apiKeys.map((key) => ({ ...key, name: key.label, ...shown(key) }));
    },
    async create({ integrations }, login, label, scopes) {
      return (await integrations.createN8nApiKey({ login: n8nLogin(login), label, scopes })).secret;
    },
    async remove({ integrations }, login, { id }) {
      return (await integrations.deleteN8nApiKey({ login: n8nLogin(login), id })).wasMissing;
    },
    verify: async ({ integrations }, secret) => (await integrations.verifyN8nApiKey({ secret })).result,
  },
};

type Remote = Awaited<ReturnType<Clients['integrations']['listGiteaTokens']>>['tokens'][number];
type RemoteN8n = Awaited<ReturnType<Clients['integrations']['listN8nApiKeys']>>['apiKeys'][number];

function shown({ createTime, lastVerifyTime, lastVerifyResult }: Remote | RemoteN8n) {
  const verified =
    lastVerifyTime === undefined
      ? '—'
      : `${wordOf(VerifyResultSchema, lastVerifyResult)} ${timeOf(lastVerifyTime)}`;
  return { created: timeOf(createTime), verified };
}

export function TokensPage({ session }: { session: Session }) {
  const chosen = useSignal('gitea');
  const system = SYSTEMS[chosen.value];
  if (!session.admin)
    return <p class="empty">Tokens of other systems need a key with the scope apikeys:admin.</p>;
  return (
    <>
      <fieldset class="row">
        <legend class="unseen">System</legend>
        {Object.entries(SYSTEMS).map(([name, { title }]) => (
          <button
            key={name}
            type="button"
            aria-pressed={chosen.value === name}
            onClick={() => (chosen.value = name)}
          >
            {title}
          </button>
        ))}
      </fieldset>
      {system !== undefined && <SystemTokens key={chosen.value} session={session} system={system} />}
    </>
  );
}

function SystemTokens({ session, system }: { session: Session; system: System }) {
  const login = useSignal<Login>({ name: '', password: '', code: '' });
  const tokens = useSignal<readonly Token[] | undefined>(undefined);
  const error = useSignal<unknown>(undefined);
  const set = (field: keyof Login) => (value: string) => (login.value = { ...login.value, [field]: value });
  const attempt = async (work: () => Promise<void>) => {
    error.value = undefined;
    try {
      await work();
    } catch (failure) {
      error.value = failure;
    } finally {
      // A one-time code works only once.
      login.value = { ...login.value, code: '' };
    }
  };
  const list = () =>
    attempt(async () => {
      tokens.value = await system.list(session.clients, login.value);
    });
  const remove = (token: Token) =>
    attempt(async () => {
      const missing = await system.remove(session.clients, login.value, token);
      tell(missing ? `${token.name} was gone there already.` : `${token.name} has ended.`);
      tokens.value = tokens.value?.filter(({ id }) => id !== token.id);
    });
  return (
    <>
      <p class="narrow">
        Your login of {system.title} goes along with each call and is kept nowhere but on this page.
      </p>
      <Form label={`List ${system.title}'s tokens`} act={list}>
        <div class="filters">
          <Field label={system.loginLabel} name="login" value={login.value.name} set={set('name')} />
          <Field
            label="Password"
            name="password"
            type="password"
            value={login.value.password}
            set={set('password')}
          />
          <Field
            label="One-time code"
            name="code"
            value={login.value.code}
            set={set('code')}
            hint="With two factors."
          />
        </div>
      </Form>
      <Problem error={error.value} />
      {tokens.value !== undefined && (
        <Table
          caption="tokens"
          head={['Name', 'Scopes', 'Ends with', 'Made', 'Verified', 'Where', '']}
          empty="None."
        >
          {tokens.value.map((token) => (
            <tr key={token.id}>
              <th scope="row">
                {token.name} <small class="id">{token.id}</small>
              </th>
              <td>{token.scopes.join(' ')}</td>
              <td>
                <code>{token.lastEight}</code>
              </td>
              <td>{token.created}</td>
              <td>{token.verified}</td>
              <td>
                {token.difference === RemoteDifference.UNSPECIFIED ? (
                  'here and there'
                ) : (
                  <State>{wordOf(RemoteDifferenceSchema, token.difference)}</State>
                )}
              </td>
              <td>
                <Action label="Delete" kind="danger" act={() => remove(token)} />
              </td>
            </tr>
          ))}
        </Table>
      )}
      <NewToken session={session} system={system} login={login.value} made={list} />
      <VerifyToken session={session} system={system} />
    </>
  );
}

function NewToken({
  session,
  system,
  login,
  made,
}: {
  session: Session;
  system: System;
  login: Login;
  made: () => Promise<void>;
}) {
  const name = useSignal('');
  const scopes = useSignal('');
  const secret = useSignal('');
  const copied = useSignal(false);
  const error = useSignal<unknown>(undefined);
  useSecretGuard(secret.value, copied.value);
  const create = async () => {
    error.value = undefined;
    copied.value = false;
    try {
      secret.value = await system.create(session.clients, login, name.value, linesOf(scopes.value));
    } catch (failure) {
      error.value = failure;
    }
  };
  const problems = error.value === undefined ? new Map<string, string>() : problemOf(error.value).fields;
  return (
    <section class="narrow">
      <h2>New token</h2>
      {secret.value === '' ? (
        <Form label="Create token" act={create}>
          <Field
            label="Name"
            name="token_name"
            value={name.value}
            set={(value) => (name.value = value)}
            error={problems.get('name') ?? problems.get('label')}
          />
          <Field
            label="Scopes"
            name="token_scopes"
            rows={3}
            value={scopes.value}
            set={(value) => (scopes.value = value)}
            hint={system.scopesHint}
            error={problems.get('scopes')}
          />
          <Problem error={error.value} shown={['name', 'label', 'scopes']} />
        </Form>
      ) : (
        <>
          <SecretBox secret={secret.value} copied={() => (copied.value = true)} />
          <Action
            label="Done"
            disabled={!copied.value}
            act={async () => {
              secret.value = '';
              await made();
            }}
          />
        </>
      )}
    </section>
  );
}

function VerifyToken({ session, system }: { session: Session; system: System }) {
  const secret = useSignal('');
  const result = useSignal('');
  const error = useSignal<unknown>(undefined);
  const verify = async () => {
    error.value = undefined;
    result.value = '';
    try {
      result.value = wordOf(VerifyResultSchema, await system.verify(session.clients, secret.value.trim()));
    } catch (failure) {
      error.value = failure;
    }
  };
  return (
    <section class="narrow">
      <h2>Does a token still work?</h2>
      <Form
        label="Verify"
        act={verify}
        besides={<span role="status">{result.value !== '' && <State>{result.value}</State>}</span>}
      >
        <Field
          label="Token"
          name="token"
          type="password"
          value={secret.value}
          set={(value) => (secret.value = value)}
        />
        <Problem error={error.value} />
      </Form>
    </section>
  );
}
