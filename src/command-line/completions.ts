import type { Option } from 'commander';
import { UsageError, printable } from '../errors.ts';
import { transports } from '../layout/local-source.ts';
import { runtimes, virtualMachines } from '../runtime/config-files.ts';
import { commands, optionNamed, spellings } from './commands.ts';
import { splitArguments } from './program.ts';
import { topicNames } from './topics.ts';

/**
 * The scripts run `dlrootfs __complete SHELL`, and offer what it prints for the last of the words on its
 * standard input. The words are not arguments, which other users can see: they may contain a password. No
 * image is called `__complete`.
 */
const SCRIPTS = {
  bash: `# bash completions for dlrootfs
_dlrootfs() {
  local word=\${COMP_WORDS[COMP_CWORD]} offers
  mapfile -t offers < <(printf '%s\\0' "\${COMP_WORDS[@]:1:COMP_CWORD}" | "$1" __complete bash 2>/dev/null)
  case \${offers[0]} in
    :files) ;;
    :directories)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -d -- "\${word#=}") ;;
    *)
      compopt +o default
      COMPREPLY=("\${offers[@]%%$'\\t'*}")
      [[ \${#COMPREPLY[@]} -ne 1 || $COMPREPLY != *: ]] || compopt -o nospace ;;
  esac
}
complete -o default -F _dlrootfs dlrootfs
`,
  // Works as a file in `$fpath`, and by `source <(dlrootfs completion zsh)`.
  zsh: `#compdef dlrootfs
_dlrootfs() {
  local -a offers
  offers=("\${(@f)$(printf '%s\\0' "\${(Q@)words[2,CURRENT-1]}" "$PREFIX" | "\${(Q)words[1]}" __complete zsh 2>/dev/null)}")
  compset -P '-*='
  case $offers[1] in
    '') ;;
    :files) compset -P '*:'; _files ;;
    :directories) _files -/ ;;
    *)
      compadd -S '' -- \${(M)offers:#*:}
      offers=(\${offers:#*:})
      offers=(\${\${offers//:/\\\\:}/$'\\t'/:})
      _describe dlrootfs offers ;;
  esac
}
if [ "$funcstack[1]" = _dlrootfs ]; then _dlrootfs "$@"; else compdef _dlrootfs dlrootfs; fi
`,
  fish: `# fish completions for dlrootfs
function __dlrootfs_offers
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -g __dlrootfs_offered (string join0 -- $words[2..-1] "$word" | $words[1] __complete fish 2>/dev/null)
    switch "$__dlrootfs_offered[1]"
        case :files
            return 1
        case :directories
            string match -q -- '-*=*' $word; and return 1
            set -g __dlrootfs_offered (__fish_complete_directories $word)
    end
end
complete -c dlrootfs -n __dlrootfs_offers -f -a '$__dlrootfs_offered'
`,
} as const;

const shells = Object.keys(SCRIPTS);

/**
 * Returns the completion script for a shell.
 *
 * @throws UsageError for an unknown shell
 */
export function completionScript(shell: string): string {
  if (Object.hasOwn(SCRIPTS, shell)) return SCRIPTS[shell as keyof typeof SCRIPTS];
  throw new UsageError(`no completions for ${printable(shell)}`, {
    hint: `name one of ${shells.join(', ')}`,
  });
}

/** The candidates for a word, some with a meaning; or the kind of names that the shell itself offers. */
type Offer = ':files' | ':directories' | Candidates;
type Candidates = readonly (readonly [word: string, meaning?: string])[];

const offered = (words: readonly string[]): Candidates => words.map((word) => [word]);

/**
 * A placeholder in the arguments for the last word, which may be a flag's value. No argument contains NUL.
 */
const HERE = '\0';

/**
 * Returns what a shell offers for the last word of a command line.
 *
 * @param input the words after the program's name, each terminated by NUL
 * @returns a line for each candidate, its meaning after a tab; or one line that asks for names of files
 * @throws UsageError for a command line that is wrong before that word
 */
export function completions(shell: string | undefined, input: string): string {
  const typed = input.split('\0').slice(0, -1);
  // bash splits --flag=value and oci:file into three words.
  const joined = typed.join('\0').replaceAll(/\0?([=:])(?:\0|$)/g, '$1');
  const words = shell === 'bash' ? joined.split('\0') : typed;
  const word = words.at(-1) ?? '';
  const [, flag, value] = /^(-[^=]*=)([^]*)$/.exec(word) ?? [];
  const offer = offerFor(words.slice(0, -1), word, flag?.replaceAll(/^--?|=$/g, ''));
  if (typeof offer === 'string') return `${offer}\n`;
  const prefix = shell === 'fish' ? (flag ?? '') : '';
  return offer
    .filter(([candidate]) => candidate.startsWith(value ?? word))
    .map(([candidate, meaning]) => `${prefix}${candidate}${meaning === undefined ? '' : `\t${meaning}`}\n`)
    .join('');
}

/** @param flag without dashes, if the word is a flag with its value */
function offerFor(before: readonly string[], word: string, flag: string | undefined): Offer {
  const { flags, words } = splitArguments([...before, HERE]);
  const option = flag === undefined ? flags.find(({ value }) => value === HERE)?.option : optionNamed(flag);
  if (option !== undefined) return valueOffer(option);
  const [name = ''] = words;
  const isCommand = words.length > 1 && name !== 'pull' && Object.hasOwn(commands, name);
  const { options, words: expected = [] } = commands[isCommand ? name : 'pull']!;
  if (word.startsWith('-')) {
    const given = new Set(flags.map((each) => each.option));
    return options
      .filter((each) => !given.has(each) || each.description.endsWith('(repeatable)'))
      .flatMap((each) => spellings(each).map((spelled) => [spelled, each.description] as const));
  }
  const kind = expected[words.length - (isCommand ? 2 : 1)]?.slice(1, -1);
  if (kind === 'image') return imageOffer(word, words.length === 1);
  return offered(CANDIDATES[kind ?? ''] ?? []);
}

const AFTER_FLAG: Readonly<Record<string, Offer>> = {
  '--for': offered([...runtimes, ...virtualMachines]),
  '--platform': offered([
    'linux/amd64',
    'linux/arm64',
    'linux/arm/v7',
    'linux/arm/v6',
    'linux/386',
    'linux/ppc64le',
    'linux/riscv64',
    'linux/s390x',
  ]),
};

function valueOffer({ argChoices, long, flags }: Option): Offer {
  if (flags.endsWith('<dir>')) return ':directories';
  if (flags.endsWith('<file>')) return ':files';
  return argChoices === undefined ? (AFTER_FLAG[long!] ?? []) : offered(argChoices);
}

const commandWords = Object.keys(commands).filter((name) => name !== 'pull');

/** Candidates for a word of a command, by its name in the synopsis. */
const CANDIDATES: Readonly<Record<string, readonly string[]>> = {
  shell: shells,
  'topic...': [...new Set([...commandWords, ...topicNames])],
  'size|list|prune|add|rm': ['size', 'list', 'prune', 'add', 'rm'],
};

/** @param isFirst true if the word may be a command too */
function imageOffer(word: string, isFirst: boolean): Offer {
  const prefixes = transports.map((name) => `${name}:`);
  if (prefixes.some((prefix) => word.startsWith(prefix))) return ':files';
  const names = isFirst ? commandWords.map((name) => [name, commands[name]!.summary] as const) : [];
  return [...names, ...offered(prefixes)];
}
