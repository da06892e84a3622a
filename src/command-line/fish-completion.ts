import type { Option } from 'commander';
import type { Candidates } from './candidates.ts';
import { candidatesBehind, commandArguments, commandWords, localSources } from './candidates.ts';
import { commands } from './commands.ts';

/** Completions for fish. */
export function fishCompletion(options: readonly Option[]): string {
  const flags = options.map((option) => {
    const takers = Object.keys(commands).filter((name) => commands[name]!.options.includes(option));
    const short = option.short === undefined ? '' : ` -s ${option.short.slice(1)}`;
    const candidates = candidatesBehind(option);
    const value = candidates === undefined ? '' : ` ${behindFlag(candidates)}`;
    return `complete -c dlrootfs -n ${quoted(when(takers))}${short} -l ${option.long!.slice(2)}${value} -d ${quoted(option.description)}`;
  });
  const words = commandWords.map((name) => {
    const condition = '__dlrootfs_at_word 1';
    return `complete -c dlrootfs -n '${condition}' -a ${name} -d ${quoted(commands[name]!.summary)}`;
  });
  const args = Object.entries(commandArguments).map(([name, candidates]) => {
    return `complete -c dlrootfs -n ${quoted(when([name]))} ${inPlace(candidates)}`;
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

const quoted = (text: string) => `'${text.replaceAll(/['\\]/g, String.raw`\$&`)}'`;
const when = (takers: readonly string[]) => `contains (__dlrootfs_command) ${takers.join(' ')}`;

/** fish offers files unless it is told not to. */
function behindFlag(candidates: Candidates): string {
  switch (candidates) {
    case 'files':
      return '-r -F';
    case 'directories':
      return `-x -a '(__fish_complete_directories)'`;
    default:
      return `-x${offered(candidates)}`;
  }
}

function inPlace(candidates: Candidates): string {
  return candidates === 'images' ? `-a ${quoted(localSources.join(' '))}` : `-f${offered(candidates)}`;
}

function offered(candidates: Candidates): string {
  if (candidates === 'branches') return ` -a '(__dlrootfs_branches)'`;
  return typeof candidates === 'string' ? '' : ` -a ${quoted(candidates.join(' '))}`;
}
