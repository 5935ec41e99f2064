import { Command } from 'commander';
import { CliError, EXIT } from './client.ts';
import type { Print } from './output.ts';

/** The words that can follow each path of commands: `''`, `api-key`, `api-key create`. */
type Words = ReadonlyMap<string, readonly string[]>;

const SHELLS: Readonly<Record<string, (words: Words) => string>> = { bash, zsh, fish };

/** `apikeyd completion SHELL`: prints a completion script, generated from the commands. */
export function completionCommand(program: Command, print: Print): Command {
  return new Command('completion')
    .argument('<shell>', Object.keys(SHELLS).join(', '))
    .description('print a script that completes commands and options')
    .addHelpText(
      'after',
      '\nExamples:\n  source <(apikeyd completion bash)\n  apikeyd completion fish > ~/.config/fish/completions/apikeyd.fish',
    )
    .action((shell: string) => {
      const script = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined;
      if (script === undefined)
        throw new CliError(EXIT.usage, `no script for ${shell}: one of ${Object.keys(SHELLS).join(', ')}`);
      print(script(wordsOf(program)));
    });
}

function wordsOf(command: Command, path: readonly string[] = []): Words {
  const words = new Map<string, readonly string[]>();
  const options = command.options.flatMap(({ long }) => long ?? []);
  words.set(path.join(' '), [...command.commands.map((each) => each.name()), ...options, '--help']);
  for (const each of command.commands)
    for (const [below, found] of wordsOf(each, [...path, each.name()])) words.set(below, found);
  return words;
}

function bash(words: Words): string {
  const paths = [...words.keys()].filter(Boolean).map((path) => `"${path}"`);
  const cases = [...words].map(([path, found]) => `    "${path}") words="${found.join(' ')}" ;;`);
  return [
    '_apikeyd() {',
    '  local path="" word words=""',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the syntax of the shell
    '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the syntax of the shell
    '    case "${path:+$path }$word" in',
    `      ${paths.join('|')}) path="\${path:+$path }$word" ;;`,
    '    esac',
    '  done',
    '  case "$path" in',
    ...cases,
    '  esac',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the syntax of the shell
    '  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))',
    '}',
    'complete -o default -F _apikeyd apikeyd',
  ].join('\n');
}

function zsh(words: Words): string {
  return [
    'autoload -U +X compinit && compinit -u',
    'autoload -U +X bashcompinit && bashcompinit',
    bash(words),
  ].join('\n');
}

function fish(words: Words): string {
  const lines = [...words].flatMap(([path, found]) => {
    const seen = path.split(' ').filter(Boolean);
    const deeper = found.filter((word) => !word.startsWith('-'));
    const conditions = [
      ...seen.map((word) => `__fish_seen_subcommand_from ${word}`),
      ...(deeper.length > 0 ? [`not __fish_seen_subcommand_from ${deeper.join(' ')}`] : []),
    ];
    const when = conditions.length === 0 ? '' : ` -n '${conditions.join('; and ')}'`;
    return found.map((word) =>
      word.startsWith('--')
        ? `complete -c apikeyd${when} -l ${word.slice(2)}`
        : `complete -c apikeyd -f${when} -a ${word}`,
    );
  });
  return lines.join('\n');
}
