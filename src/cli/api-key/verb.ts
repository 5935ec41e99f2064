import type { Command } from 'commander';
import { type ClientDefaults, type Runner, withConnection } from '../client.ts';
import type { Print } from '../output.ts';

/** What each verb of `apikeyd api-key` is added with: one verb a file. */
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
