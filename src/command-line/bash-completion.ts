import type { Option } from 'commander';
import type { Candidates } from './candidates.ts';
import { candidatesBehind, commandArguments, commandWords, localSources, spellings } from './candidates.ts';
import { commands } from './commands.ts';

/** Completions for bash. Where a function offers nothing, bash itself offers files (`complete -o default`). */
export function bashCompletion(options: readonly Option[]): string {
  const values = options.flatMap((option) => {
    const candidates = candidatesBehind(option);
    return candidates === undefined
      ? []
      : [`    ${spellings(option).join('|')}) ${offer(candidates)}; return ;;`];
  });
  const flags = Object.entries(commands).map(
    ([name, command]) => `    ${name}) flags='${command.options.flatMap(spellings).join(' ')}' ;;`,
  );
  const words = Object.entries(commandArguments).map(([name, candidates]) => {
    const also =
      name === 'pull' ? `_dlrootfs_words '${[...commandWords, ...localSources].join(' ')}'` : undefined;
    return `    ${name}) ${also ?? offer(candidates)} ;;`;
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
  for ((i = 1; i < COMP_CWORD; i++)); do
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
  for ((i = 1; i < COMP_CWORD; i++)); do
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

function offer(candidates: Candidates): string {
  switch (candidates) {
    case 'files':
      return ':';
    case 'images':
      return `_dlrootfs_words '${localSources.join(' ')}'`;
    case 'directories':
    case 'branches':
    case 'nothing':
      return `_dlrootfs_${candidates}`;
    default:
      return `_dlrootfs_words '${candidates.join(' ')}'`;
  }
}
