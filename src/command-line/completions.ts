import type { Option } from 'commander';
import { UsageError, printable } from '../errors.ts';
import { transports } from '../layout/local-source.ts';
import { runtimes, virtualMachines } from '../runtime/config-files.ts';
import { commands, options as everyOption, spellings } from './commands.ts';
import { topicNames } from './topics.ts';

const SCRIPTS: Readonly<Record<string, () => string>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
};

/**
 * The completion script for a shell.
 *
 * @throws UsageError for an unknown shell
 */
export function completionScript(shell: string): string {
  const script = Object.hasOwn(SCRIPTS, shell) ? SCRIPTS[shell] : undefined;
  if (script !== undefined) return script();
  throw new UsageError(`no completions for ${printable(shell)}`, {
    hint: `name one of ${Object.keys(SCRIPTS).join(', ')}`,
  });
}

/** What a shell offers for a word: these words, or what it finds itself. */
type Offer = 'files' | 'directories' | 'branches' | 'images' | 'nothing';
type Candidates = readonly string[] | Offer;

const commandWords: readonly string[] = Object.keys(commands).filter((name) => name !== 'pull');

/** Prefixes of images that are not in a registry; a file follows. */
const localSources: readonly string[] = transports.map((name) => `${name}:`);

const AFTER_FLAG: Readonly<Record<string, Candidates>> = {
  '--dest': 'directories',
  '--cert-dir': 'directories',
  '--cache-dir': 'directories',
  '--output': 'files',
  '--authfile': 'files',
  '--ca-file': 'files',
  '--cert-file': 'files',
  '--key-file': 'files',
  '--for': [...runtimes, ...virtualMachines],
  '--platform': [
    'linux/amd64',
    'linux/arm64',
    'linux/arm/v7',
    'linux/arm/v6',
    'linux/386',
    'linux/ppc64le',
    'linux/riscv64',
    'linux/s390x',
  ],
};

/** Candidates for a flag's value; undefined for a flag without one. */
function candidatesAfter(option: Option): Candidates | undefined {
  if (!option.required) return undefined;
  return option.argChoices ?? AFTER_FLAG[option.long!] ?? 'nothing';
}

/** Candidates for a command's word, by what the word is. */
const WORDS: Readonly<Record<string, Candidates>> = {
  image: 'images',
  branch: 'branches',
  shell: Object.keys(SCRIPTS),
  topic: [...new Set([...commandWords, ...topicNames])],
};

const commandArguments: Readonly<Record<string, Candidates>> = Object.fromEntries(
  Object.entries(commands).map(([name, { words: [word = ''] = [] }]) => {
    const meant = word.slice(1, -1);
    return [name, meant.includes('|') ? meant.split('|') : (WORDS[meant] ?? 'nothing')];
  }),
);

/** Where a function offers nothing, bash itself offers files (`complete -o default`). */
function bashCompletion(): string {
  const values = everyOption.flatMap((option) => {
    const candidates = candidatesAfter(option);
    return candidates === undefined
      ? []
      : [`    ${spellings(option).join('|')}) ${bashOffer(candidates)}; return ;;`];
  });
  const flags = Object.entries(commands).map(
    ([name, command]) => `    ${name}) flags='${command.options.flatMap(spellings).join(' ')}' ;;`,
  );
  const words = Object.entries(commandArguments).map(([name, candidates]) => {
    const also =
      name === 'pull' ? `_dlrootfs_words '${[...commandWords, ...localSources].join(' ')}'` : undefined;
    return `    ${name}) ${also ?? bashOffer(candidates)} ;;`;
  });
  return `# bash completions for dlrootfs
_dlrootfs_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word")
  [[ \${#COMPREPLY[@]} -ne 1 || $COMPREPLY != *: ]] || compopt -o nospace
}
_dlrootfs_nothing() { compopt +o default; }
_dlrootfs_directories() {
  compopt -o filenames
  mapfile -t COMPREPLY < <(compgen -d -- "$word")
}
_dlrootfs_branches() {
  local i dir=rootfs
  for ((i = 1; i < COMP_CWORD; i += 1)); do
    case \${COMP_WORDS[i]} in
      -d|--dest) dir=\${COMP_WORDS[i+1]}; [ "$dir" != = ] || dir=\${COMP_WORDS[i+2]} ;;
    esac
  done
  _dlrootfs_words "$(git -C "$dir" for-each-ref --format='%(refname:short)' refs/heads 2>/dev/null)"
  [ \${#COMPREPLY[@]} -gt 0 ] || _dlrootfs_nothing
}
_dlrootfs() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command=pull flags i
  # bash takes --flag=value and oci:file for three words.
  [ "$before" != : ] || return 0
  case $word in
    :) return 0 ;;
    =) word= ;;
    *) [ "$before" != = ] || before=\${COMP_WORDS[COMP_CWORD-2]} ;;
  esac
  for ((i = 1; i < COMP_CWORD; i += 1)); do
    case \${COMP_WORDS[i]} in ${commandWords.join('|')}) command=\${COMP_WORDS[i]}; break ;; esac
  done
  case $before in
${values.join('\n')}
  esac
  case $command in
${flags.join('\n')}
  esac
  if [[ $word == -* ]]; then _dlrootfs_words "$flags"; return; fi
  case $command in
${words.join('\n')}
  esac
}
complete -o default -F _dlrootfs dlrootfs
`;
}

const BASH: Readonly<Record<Offer, string>> = {
  files: ':',
  images: `_dlrootfs_words '${localSources.join(' ')}'`,
  directories: '_dlrootfs_directories',
  branches: '_dlrootfs_branches',
  nothing: '_dlrootfs_nothing',
};

const bashOffer = (candidates: Candidates): string =>
  typeof candidates === 'string' ? BASH[candidates] : `_dlrootfs_words '${candidates.join(' ')}'`;

/** For a file `_dlrootfs` in `$fpath` as well as for `source <(dlrootfs completion zsh)`. */
function zshCompletion(): string {
  const cases = Object.entries(commands).map(([name, { options }]) => {
    const flags = options.flatMap(flagSpecs).map((spec) => ` \\\n      ${zshQuoted(spec)}`);
    const words =
      name === 'pull'
        ? zshQuoted('1:image or command:_dlrootfs_first')
        : `${zshQuoted(`1: :(${name})`)} ${zshQuoted(`2:argument:${zshAction(commandArguments[name]!)}`)}`;
    return `    ${name})\n      _arguments -S${flags.join('')} \\\n      ${words} ;;`;
  });
  const described = commandWords.map((name) => zshQuoted(`${name}:${commands[name]!.summary}`));
  return `#compdef dlrootfs
_dlrootfs_first() {
  local -a commands=(
    ${described.join('\n    ')}
  )
  _describe command commands
  _dlrootfs_images
}
_dlrootfs_images() {
  if compset -P '(${localSources.join('|')})'; then _files; else compadd -S '' -- ${localSources.join(' ')}; fi
}
_dlrootfs_branches() {
  local dir=\${\${(v)opt_args[(I)(-d|--dest)]}:-rootfs}
  compadd -- \${(f)"$(git -C $dir for-each-ref --format='%(refname:short)' refs/heads 2>/dev/null)"}
}
_dlrootfs() {
  local command=pull word
  local -A opt_args
  for word in \${words[2,CURRENT-1]}; do
    case $word in ${commandWords.join('|')}) command=$word; break ;; esac
  done
  case $command in
${cases.join('\n')}
  esac
}
if [ "$funcstack[1]" = _dlrootfs ]; then _dlrootfs "$@"; else compdef _dlrootfs dlrootfs; fi
`;
}

const zshQuoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** Both spellings of a flag for _arguments; a long one may take its value after `=`. */
function flagSpecs(option: Option): string[] {
  const text = option.description.replaceAll(/[[\]:\\]/g, String.raw`\$&`);
  const candidates = candidatesAfter(option);
  const repeatable = option.parseArg === undefined ? '' : '*';
  return spellings(option).map((flag) => {
    if (candidates === undefined) return `${repeatable}${flag}[${text}]`;
    return `${repeatable}${flag}${flag.startsWith('--') ? '=' : ''}[${text}]:value:${zshAction(candidates)}`;
  });
}

const ZSH: Readonly<Record<Offer, string>> = {
  files: '_files',
  images: '_dlrootfs_images',
  directories: '_files -/',
  branches: '_dlrootfs_branches',
  nothing: ' ',
};

const zshAction = (candidates: Candidates): string =>
  typeof candidates === 'string' ? ZSH[candidates] : `(${candidates.join(' ')})`;

function fishCompletion(): string {
  const flags = everyOption.map((option) => {
    const takers = Object.keys(commands).filter((name) => commands[name]!.options.includes(option));
    const short = option.short === undefined ? '' : ` -s ${option.short.slice(1)}`;
    const candidates = candidatesAfter(option);
    const value = candidates === undefined ? '' : ` ${fishValue(candidates)}`;
    return `complete -c dlrootfs -n ${fishQuoted(fishWhen(takers))}${short} -l ${option.long!.slice(2)}${value} -d ${fishQuoted(option.description)}`;
  });
  const words = commandWords.map((name) => {
    const condition = '__dlrootfs_at_word 1';
    return `complete -c dlrootfs -n '${condition}' -a ${name} -d ${fishQuoted(commands[name]!.summary)}`;
  });
  const args = Object.entries(commandArguments).map(([name, candidates]) => {
    return `complete -c dlrootfs -n ${fishQuoted(fishWhen([name]))} ${fishWord(candidates)}`;
  });
  return `# fish completions for dlrootfs
function __dlrootfs_command
    for word in (commandline -opc)[2..-1]
        if contains -- $word ${commandWords.join(' ')}
            echo $word
            return
        end
    end
    echo pull
end
function __dlrootfs_at_word
    set -l words (string match -v -- '-*' (commandline -opc))
    test (count $words) -eq $argv[1]
end
function __dlrootfs_branches
    set -l words (commandline -opc)
    set -l dir rootfs
    for i in (seq (count $words))
        contains -- $words[$i] -d --dest; and set dir $words[(math $i + 1)]
    end
    git -C $dir for-each-ref --format='%(refname:short)' refs/heads 2>/dev/null
end
${[...words, ...args, ...flags].join('\n')}
`;
}

const fishQuoted = (text: string) => `'${text.replaceAll(/['\\]/g, String.raw`\$&`)}'`;
const fishWhen = (takers: readonly string[]) => `contains (__dlrootfs_command) ${takers.join(' ')}`;

/** fish offers files by default. */
function fishValue(candidates: Candidates): string {
  switch (candidates) {
    case 'files':
      return '-r -F';
    case 'directories':
      return `-x -a '(__fish_complete_directories)'`;
    default:
      return `-x${fishOffer(candidates)}`;
  }
}

function fishWord(candidates: Candidates): string {
  return candidates === 'images' ? `-a ${fishQuoted(localSources.join(' '))}` : `-f${fishOffer(candidates)}`;
}

function fishOffer(candidates: Candidates): string {
  if (candidates === 'branches') return ` -a '(__dlrootfs_branches)'`;
  return typeof candidates === 'string' ? '' : ` -a ${fishQuoted(candidates.join(' '))}`;
}
