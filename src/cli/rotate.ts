import type { Command } from 'commander';
import { CompleteRotationResponseSchema, RotateKeyResponseSchema } from '../../gen/apikey/v1/admin_pb.ts';
import { RotationMode } from '../../gen/apikey/v1/key_pb.ts';
import { CliError, type Clients, type ConnectionOptions, EXIT } from './client.ts';
import { json, type Print, time } from './output.ts';
import { seconds } from './values.ts';

/** What the runbooks use. A secret that is known to be in wrong hands asks for `--force --grace 0s`. */
const PRESETS: Readonly<Record<string, { force: boolean; graceSeconds: number }>> = {
  planned: { force: false, graceSeconds: 24 * 3_600 },
  emergency: { force: true, graceSeconds: 3_600 },
  gradual: { force: false, graceSeconds: 7 * 86_400 },
};

export interface RotateOptions extends ConnectionOptions {
  readonly grace?: number;
  readonly force?: boolean;
  readonly preset?: string;
  readonly complete?: boolean;
}

export function describeRotate(command: Command): Command {
  return command
    .description('replace its secret; the old one works on for the grace, the new one is printed once')
    .option(
      '--grace <length>',
      'how long the old secret works on, e.g. 24h; by default as its type says',
      seconds,
    )
    .option('--force', 'also during a rotation: ends every secret but the present one at once')
    .option('--preset <name>', 'planned (24h), emergency (forced, 1h) or gradual (7d)')
    .option('--complete', 'end the rotation it is in: the old secret ends at once')
    .option('--quiet', 'print the new secret only')
    .addHelpText('after', '\nExample: apikeyd api-key rotate uid-apikey-0123456789abcdef --preset planned');
}

export async function rotate(
  { admin }: Clients,
  options: RotateOptions,
  id: string,
  print: Print,
): Promise<number> {
  if (options.complete === true) {
    const answer = await admin.completeRotation({ id });
    print(
      options.json
        ? json(CompleteRotationResponseSchema, answer)
        : `completed: only the new secret of ${id} works`,
    );
    return EXIT.ok;
  }
  const preset = options.preset === undefined ? undefined : PRESETS[options.preset];
  if (options.preset !== undefined && preset === undefined)
    throw new CliError(EXIT.usage, `--preset: one of ${Object.keys(PRESETS).join(', ')}`);
  const grace = options.grace ?? preset?.graceSeconds;
  const forced = options.force ?? preset?.force ?? false;
  const answer = await admin.rotateKey({
    id,
    mode: forced ? RotationMode.FORCED : RotationMode.MANUAL,
    ...(grace === undefined ? {} : { grace: { seconds: BigInt(grace) } }),
  });
  if (options.json) print(json(RotateKeyResponseSchema, answer));
  else if (options.quiet) print(answer.secret);
  else {
    const until = answer.key?.rotation?.expireTime;
    const old = until === undefined ? 'has ended' : `works until ${time(until)}`;
    print(
      `id      ${id}\nsecret  ${answer.secret}\n\nThe old secret ${old}. The new one is not shown again.`,
    );
  }
  return EXIT.ok;
}
