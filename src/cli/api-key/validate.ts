import { DecisionSchema, ValidateKeyResponseSchema } from '../../../gen/apikey/v1/auth_pb.ts';
import { type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, state } from '../output.ts';
import { nameOf, secretFrom, wholeNumber } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

interface ValidateOptions extends ConnectionOptions {
  readonly scope?: string;
  readonly clientIp?: string;
  readonly cost?: number;
  readonly dryRun?: boolean;
}

/** `api-key validate` */
export function addValidate(context: VerbContext): void {
  addVerb(context, 'validate <->')
    .description('ask for a decision about the key on standard input')
    .option('--scope <scope>', 'scope that the key must grant')
    .option('--client-ip <address>', "the end client's address")
    .option('--cost <n>', 'how much to consume of each limit', wholeNumber)
    .option('--dry-run', 'name every reason for a denial; consume nothing')
    .addHelpText('after', '\nExample: apikeyd api-key validate - --scope traces:read < key.txt')
    .action(
      context.run((clients, options: ValidateOptions, argument) =>
        validate(clients, options, argument, context.print),
      ),
    );
}

async function validate(
  { auth }: Clients,
  options: ValidateOptions,
  argument: string,
  print: Print,
): Promise<number> {
  const response = await auth.validateKey({
    key: secretFrom(argument),
    clientIp: options.clientIp ?? '',
    cost: BigInt(options.cost ?? 0),
    dryRun: options.dryRun ?? false,
    ...(options.scope === undefined ? {} : { requiredScope: options.scope }),
  });
  const limits = response.rateLimits.map(
    ({ name, remaining, limit }) => `  ${name}: ${remaining} of ${limit} left`,
  );
  const reasons = response.reasons.map((reason) => nameOf(DecisionSchema, reason)).join(', ');
  const decision = nameOf(DecisionSchema, response.decision);
  const lines = [
    response.reasons.length > 1 ? `${state(decision)} (${reasons})` : state(decision),
    response.keyId,
    ...limits,
  ].filter(Boolean);
  print(options.json ? json(ValidateKeyResponseSchema, response) : lines.join('\n'));
  return response.valid ? EXIT.ok : EXIT.denied;
}
