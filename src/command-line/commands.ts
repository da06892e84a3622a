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
  completion: {
    synopsis: 'completion bash|zsh|fish',
    summary: 'print the completions for a shell',
    arity: [1, 1],
    options: groups.other,
  },
  help: {
    synopsis: 'help [COMMAND]',
    summary: 'print the help of a command',
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
