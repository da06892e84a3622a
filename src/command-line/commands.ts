import type { Option } from 'commander';
import { optionGroups as groups } from './options-table.ts';

/** A command as help, man page, completions and the parser know it. */
export interface CommandDescription {
  /** What stands behind the program's name, words only. */
  readonly synopsis: string;
  readonly summary: string;
  /** How many words it takes: at least, at most. */
  readonly arity: readonly [least: number, most: number];
  readonly options: readonly Option[];
}

/** `pull` is what runs without a command word; every other name wins over an image of that name. */
export const commands: Readonly<Record<string, CommandDescription>> = {
  pull: {
    synopsis: 'IMAGE[:TAG|@DIGEST]',
    summary: 'turn an image into a root file system',
    arity: [1, 1],
    options: [
      ...groups.what,
      ...groups.credentials,
      ...groups.registry,
      ...groups.transfer,
      ...groups.output,
      ...groups.other,
    ],
  },
  inspect: {
    synopsis: 'inspect IMAGE',
    summary: 'say what an image is, and what a pull of it would fetch',
    arity: [1, 1],
    options: [
      ...groups.platform,
      ...groups.credentials,
      ...groups.registry,
      ...groups.transfer,
      ...groups.output,
      ...groups.other,
    ],
  },
  tags: {
    synopsis: 'tags REPOSITORY',
    summary: 'list the tags of a repository, one a line',
    arity: [1, 1],
    options: [...groups.credentials, ...groups.registry, ...groups.output, ...groups.other],
  },
  cache: {
    synopsis: 'cache [size|prune]',
    summary: 'say what the store holds; prune empties it, or makes it fit --cache-size',
    arity: [0, 1],
    options: [...groups.cache, ...groups.json, ...groups.other],
  },
  checkout: {
    synopsis: 'checkout BRANCH',
    summary: 'make a rootfs pulled with -g exactly what it was after a layer (layer1_…, or layer1)',
    arity: [1, 1],
    options: [...groups.destination, ...groups.force, ...groups.other],
  },
  completion: {
    synopsis: 'completion bash|zsh|fish',
    summary: 'print the completions for a shell',
    arity: [1, 1],
    options: groups.other,
  },
  help: {
    synopsis: 'help [COMMAND|TOPIC]',
    summary: 'print the help of a command, or on a topic',
    arity: [0, 1],
    options: groups.other,
  },
  version: {
    synopsis: 'version',
    summary: 'print the version',
    arity: [0, 0],
    options: groups.other,
  },
};
