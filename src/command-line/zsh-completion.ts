import type { Option } from 'commander';
import type { Candidates } from './candidates.ts';
import { candidatesBehind, commandArguments, commandWords, localSources, spellings } from './candidates.ts';
import { commands } from './commands.ts';

/** Completions for zsh, for a file `_dlrootfs` in `$fpath` as well as for `source <(dlrootfs completion zsh)`. */
export function zshCompletion(): string {
  const cases = Object.entries(commands).map(([name, { options }]) => {
    const flags = options.flatMap(flagSpecs).map((spec) => ` \\\n      ${quoted(spec)}`);
    const words =
      name === 'pull'
        ? quoted('1:image or command:_dlrootfs_first')
        : `${quoted(`1: :(${name})`)} ${quoted(`2:argument:${action(commandArguments[name]!)}`)}`;
    return `    ${name})\n      _arguments -S${flags.join('')} \\\n      ${words} ;;`;
  });
  const described = commandWords.map((name) => quoted(`${name}:${commands[name]!.summary}`));
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

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** Both spellings of a flag, each in the form that _arguments takes; a long one may have its value behind `=`. */
function flagSpecs(option: Option): string[] {
  const text = option.description.replaceAll(/[[\]:\\]/g, String.raw`\$&`);
  const candidates = candidatesBehind(option);
  const repeatable = option.parseArg === undefined ? '' : '*';
  return spellings(option).map((flag) => {
    if (candidates === undefined) return `${repeatable}${flag}[${text}]`;
    return `${repeatable}${flag}${flag.startsWith('--') ? '=' : ''}[${text}]:value:${action(candidates)}`;
  });
}

function action(candidates: Candidates): string {
  switch (candidates) {
    case 'files':
      return '_files';
    case 'directories':
      return '_files -/';
    case 'nothing':
      return ' ';
    case 'images':
    case 'branches':
      return `_dlrootfs_${candidates}`;
    default:
      return `(${candidates.join(' ')})`;
  }
}
