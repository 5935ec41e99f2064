import { useSignal } from '@preact/signals';
import { Decision, DecisionSchema, type ValidateKeyResponse } from '../../../gen/apikey/v1/auth_pb.ts';
import { Facts, Field, Form, Link, Problem, problemOf, State } from '../parts.tsx';
import type { Session } from '../session.ts';
import { timeOf, wordOf } from '../words.ts';

/** A dry run: nothing is consumed or counted, and every reason is shown. */
export function TryPage({ session }: { session: Session }) {
  const secret = useSignal('');
  const scope = useSignal('');
  const address = useSignal('');
  const answer = useSignal<ValidateKeyResponse | undefined>(undefined);
  const error = useSignal<unknown>(undefined);
  const fields = problemOf(error.value ?? new Error('')).fields;
  const ask = async () => {
    error.value = undefined;
    answer.value = undefined;
    try {
      answer.value = await session.clients.auth.validateKey({
        key: secret.value.trim(),
        clientIp: address.value.trim(),
        dryRun: true,
        ...(scope.value.trim() === '' ? {} : { requiredScope: scope.value.trim() }),
      });
    } catch (failure) {
      error.value = failure;
    }
  };
  const found = answer.value;
  return (
    <section class="narrow">
      <p>
        Nothing is consumed and no failure is counted. Your key needs the scope apikeys:validate for this
        page.
      </p>
      <Form label="Ask" act={ask}>
        <Field
          label="Secret"
          name="key"
          type="password"
          value={secret.value}
          set={(value) => (secret.value = value)}
          error={fields.get('key')}
        />
        <Field
          label="Required scope"
          name="required_scope"
          value={scope.value}
          set={(value) => (scope.value = value)}
          hint="Empty: only whether the key is good."
          error={fields.get('required_scope')}
        />
        <Field
          label="Client address"
          name="client_ip"
          value={address.value}
          set={(value) => (address.value = value)}
          error={fields.get('client_ip')}
        />
        <Problem error={error.value} shown={['key', 'required_scope', 'client_ip']} />
      </Form>
      {found !== undefined && (
        <div role="status">
          <p class="verdict">
            <State bad={found.decision !== Decision.VALID}>{wordOf(DecisionSchema, found.decision)}</State>
          </p>
          {found.reasons.length > 0 && (
            <p>Every reason: {found.reasons.map((reason) => wordOf(DecisionSchema, reason)).join(', ')}</p>
          )}
          {found.keyId !== '' && (
            <Facts
              rows={[
                [
                  'Key',
                  <Link key="key" to={`keys/${found.keyId}`}>
                    {found.keyId}
                  </Link>,
                ],
                ['Owner', found.ownerId],
                ['Matched scope', found.matchedScope || '—'],
                ['Expires', found.expireTime === undefined ? 'never' : timeOf(found.expireTime)],
                ...found.rateLimits.map(
                  (limit) => [limit.name, `${limit.remaining} of ${limit.limit} left`] as const,
                ),
              ]}
            />
          )}
        </div>
      )}
    </section>
  );
}
