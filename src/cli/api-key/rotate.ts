import { CompleteRotationResponseSchema, RotateKeyResponseSchema } from '../../../gen/apikey/v1/admin_pb.ts';
import { RotationMode } from '../../../gen/apikey/v1/key_pb.ts';
import { CliError, type Clients, type ConnectionOptions, EXIT } from '../client.ts';
import { json, type Print, time } from '../output.ts';
import { seconds } from '../values.ts';
import { addVerb, type VerbContext } from './verb.ts';

/** The rotations of docs/runbooks.md. For a leaked secret use `--force --grace 0s` instead. */
const PRESETS: Readonly<Record<string, { force: boolean; graceSeconds: number }>> = {
  planned: { force: false, graceSeconds: 24 * 3_600 },
  emergency: { force: true, graceSeconds: 3_600 },
  gradual: { force: false, graceSeconds: 7 * 86_400 },
};

interface RotateOptions extends ConnectionOptions {
  readonly grace?: number;
  readonly force?: boolean;
  readonly preset?: string;
  readonly complete?: boolean;
}

/** `api-key rotate` */
export function addRotate(context: VerbContext): void {
  addVerb(context, 'rotate <id>')
    .description('replace the secret; the old one still works during the grace, the new one is printed once')
    .option(
      '--grace <length>',
      'how long the old secret still works, e.g. 24h; the default depends on the type',
      seconds,
    )
    .option('--force', 'also during a rotation: every secret but the current one ends at once')
    .option('--preset <name>', 'planned (24h), emergency (forced, 1h) or gradual (7d)')
    .option('--complete', 'complete the rotation under way: the old secret ends at once')
    .option('--quiet', 'print the new secret only')
    .addHelpText('after', '\nExample: apikeyd api-key rotate uid-apikey-0123456789abcdef --preset planned')
    .action(
      context.run((clients, options: RotateOptions, id) => rotate(clients, options, id, context.print)),
    );
}

async function rotate({ admin }: Clients, options: RotateOptions, id: string, print: Print): Promise<number> {
  if (options.complete === true) {
    const response = await admin.completeRotation({ id });
    print(
      options.json
        ? json(CompleteRotationResponseSchema, response)
        : `completed: only the new secret of ${id} works`,
    );
    return EXIT.ok;
  }
  const preset = options.preset === undefined ? undefined : PRESETS[options.preset];
  if (options.preset !== undefined && preset === undefined)
    throw new CliError(EXIT.usage, `--preset: one of ${Object.keys(PRESETS).join(', ')}`);
  const grace = options.grace ?? preset?.graceSeconds;
  const forced = options.force ?? preset?.force ?? false;
  const response = await admin.rotateKey({
    id,
    mode: forced ? RotationMode.FORCED : RotationMode.MANUAL,
    ...(grace === undefined ? {} : { grace: { seconds: BigInt(grace) } }),
  });
  if (options.json) print(json(RotateKeyResponseSchema, response));
  else if (options.quiet) print(response.secret);
  else {
    const until = response.key?.rotation?.expireTime;
    const old = until === undefined ? 'has ended' : `works until ${time(until)}`;
    print(
      `id      ${id}\nsecret  ${response.secret}\n\nThe old secret ${old}. The new one is not shown again.`,
    );
  }
  return EXIT.ok;
}
