import type { Option } from 'commander';
import { UsageError, printable } from '../errors.ts';
import { commands } from './commands.ts';

const shells: Readonly<Record<string, () => string>> = { bash, zsh, fish };

/** The completion script for a shell; throws UsageError for one that we do not know. */
export function completionScript(shell: string): string {
  const write = Object.hasOwn(shells, shell) ? shells[shell] : undefined;
  if (write === undefined) {
    throw new UsageError(`no completions for ${printable(shell)}`, {
      hint: `there are ${Object.keys(shells).join(', ')}`,
    });
  }
  return write();
}

/** Flags whose value is a file or a directory. */
const pathValues = new Set([
  '--dest',
  '--authfile',
  '--cert-dir',
  '--ca-file',
  '--cert-file',
  '--key-file',
  '--cache-dir',
  '--output',
]);

const words = Object.keys(commands).filter((name) => name !== 'pull');
const spellings = (option: Option) => [option.short, option.long].filter((flag) => flag !== undefined);
const flagsOf = (name: string) => commands[name]!.options.flatMap(spellings).join(' ');
const everyOption = [
  ...new Map(
    Object.values(commands).flatMap(({ options }) => options.map((option) => [option.long, option])),
  ).values(),
];

function bash(): string {
  const values = everyOption
    .filter((option) => option.required)
    .map((option) => {
      const candidates = option.argChoices === undefined ? '' : `-W '${option.argChoices.join(' ')}'`;
      const kind = pathValues.has(option.long!) ? '-o default' : candidates;
      return `    ${spellings(option).join('|')}) COMPREPLY=($(compgen ${kind || "-W ''"} -- "$word")); return ;;`;
    });
  const cases = Object.keys(commands).map((name) => `    ${name}) flags='${flagsOf(name)}' ;;`);
  return `# bash completions for dlrootfs
_dlrootfs() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command=pull flags i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in ${words.join('|')}) command=\${COMP_WORDS[i]}; break ;; esac
  done
  case $before in
${values.join('\n')}
    completion) COMPREPLY=($(compgen -W '${Object.keys(shells).join(' ')}' -- "$word")); return ;;
    help) COMPREPLY=($(compgen -W '${words.join(' ')}' -- "$word")); return ;;
  esac
  case $command in
${cases.join('\n')}
  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) [ "$command" = pull ] && COMPREPLY=($(compgen -W '${words.join(' ')}' -- "$word")) ;;
  esac
}
complete -o default -F _dlrootfs dlrootfs
`;
}

function zsh(): string {
  const flags = everyOption.flatMap((option) => {
    const value = option.required ? `:value:${zshValue(option)}` : '';
    const text = option.description
      .replaceAll(/[[\]':\\]/g, String.raw`\$&`)
      .replaceAll(String.raw`\'`, `'\\''`);
    return spellings(option).map((flag) => `    '${flag}[${text}]${value}' \\`);
  });
  const commandWords = words.map((name) => `'${name}:${commands[name]!.summary}'`).join(' ');
  return `#compdef dlrootfs
_dlrootfs_words() {
  local -a words=(${commandWords})
  _describe 'command' words
}
_dlrootfs() {
  _arguments -S \\
${flags.join('\n')}
    '1:image or command:_dlrootfs_words' \\
    '2:argument:(${[...Object.keys(shells), ...words].join(' ')})'
}
_dlrootfs "$@"
`;
}

function zshValue(option: Option): string {
  if (pathValues.has(option.long!)) return '_files';
  return option.argChoices === undefined ? '' : `(${option.argChoices.join(' ')})`;
}

const quote = (text: string) => `'${text.replaceAll(/['\\]/g, String.raw`\$&`)}'`;

function fish(): string {
  const flags = everyOption.map((option) => {
    const short = option.short === undefined ? '' : ` -s ${option.short.slice(1)}`;
    const values = option.argChoices === undefined ? '' : ` -a ${quote(option.argChoices.join(' '))}`;
    const takes = option.required ? ` -x${pathValues.has(option.long!) ? ' -F' : ''}` : '';
    return `complete -c dlrootfs${short} -l ${option.long!.slice(2)}${takes.replace(' -x -F', ' -r -F')}${values} -d ${quote(option.description)}`;
  });
  const first = words.map((name) => {
    return `complete -c dlrootfs -n __fish_use_subcommand -f -a ${name} -d ${quote(commands[name]!.summary)}`;
  });
  return `# fish completions for dlrootfs
${[...first, ...flags].join('\n')}
complete -c dlrootfs -n '__fish_seen_subcommand_from completion' -f -a '${Object.keys(shells).join(' ')}'
complete -c dlrootfs -n '__fish_seen_subcommand_from help' -f -a '${words.join(' ')}'
`;
}
