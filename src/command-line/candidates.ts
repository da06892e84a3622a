import type { Option } from 'commander';
import { transports } from '../layout/source.ts';
import { runtimes } from '../runtime/place.ts';
import { commands } from './commands.ts';
import { topicNames } from './topics.ts';

/** What a shell offers where a word stands: these words, or what it finds itself. */
export type Candidates = readonly string[] | 'files' | 'directories' | 'branches' | 'images' | 'nothing';

/** Shells that there are completions for. */
export const shellNames = ['bash', 'zsh', 'fish'] as const;

/** Words that are commands. */
export const commandWords: readonly string[] = Object.keys(commands).filter((name) => name !== 'pull');

/** What an image may begin with, that is not in a registry; a file follows. */
export const localSources: readonly string[] = transports.map((name) => `${name}:`);

const behindFlag: Readonly<Record<string, Candidates>> = {
  '--dest': 'directories',
  '--cert-dir': 'directories',
  '--cache-dir': 'directories',
  '--output': 'files',
  '--authfile': 'files',
  '--ca-file': 'files',
  '--cert-file': 'files',
  '--key-file': 'files',
  '--for': runtimes,
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

/** What stands behind a flag; undefined for one that takes no word of its own. */
export function candidatesBehind(option: Option): Candidates | undefined {
  if (!option.required) return undefined;
  return option.argChoices ?? behindFlag[option.long!] ?? 'nothing';
}

/** What stands behind a command word, and for `pull` where the image stands. */
export const commandArguments: Readonly<Record<string, Candidates>> = {
  pull: 'images',
  inspect: 'images',
  tags: 'nothing',
  cache: ['size', 'prune'],
  checkout: 'branches',
  completion: shellNames,
  help: [...new Set([...commandWords, ...topicNames])],
  version: 'nothing',
};

/** A flag as it may be written, short one first. */
export function spellings({ short, long }: Option): string[] {
  return [short, long].filter((flag) => flag !== undefined);
}
