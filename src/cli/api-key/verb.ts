import type { Command } from 'commander';
import { type ClientDefaults, type Runner, withConnection } from '../client.ts';
import type { Print } from '../output.ts';

/** The parts that each verb of `apikeyd api-key` needs; each verb has its own file. */
export interface VerbContext {
  readonly group: Command;
  readonly defaults: ClientDefaults;
  readonly run: Runner;
  readonly print: Print;
}

/** A command of the group with the options that every client command has. `usage` is its name and arguments. */
export function addVerb({ group, defaults }: VerbContext, usage: string): Command {
  return withConnection(group.command(usage), defaults);
}
