import { Command, CommanderError } from 'commander';
import { UsageError, printable } from '../errors.ts';
import type { FoundFlag } from './flags.ts';
import { splitArguments } from './flags.ts';
import { commands } from './commands.ts';
import { flagShapes } from './options-table.ts';

/** Option values as commander names them (camel case); repeatable ones as lists. */
export type FlagValues = Readonly<Record<string, unknown>>;

export interface Invocation {
  readonly command: string;
  /** Words behind the command word; for `pull` the image. */
  readonly words: readonly string[];
  readonly values: FlagValues;
  /** Long names of the flags that were given on the command line. */
  readonly given: ReadonlySet<string>;
}

/**
 * argv (without node and script) → command, words and values. A command word wins over an image of that name.
 * `--help` and `--version` win over everything. Throws UsageError that names what is wrong.
 */
export function parseArguments(argv: readonly string[]): Invocation {
  const { flags, words } = splitArguments(argv, flagShapes());
  const asks = (name: string) => flags.some((flag) => flag.name === name && flag.value !== false);
  const first = words[0];
  const isCommand = first !== undefined && first !== 'pull' && Object.hasOwn(commands, first);
  const command = isCommand ? first : 'pull';
  const rest = isCommand ? words.slice(1) : words;
  if (asks('help'))
    return { command: 'help', words: isCommand ? [command] : [], values: {}, given: new Set() };
  if (asks('version')) return { command: 'version', words: [], values: {}, given: new Set() };
  checkWords(command, rest);
  return {
    command,
    words: rest,
    values: readValues(command, flags),
    given: new Set(flags.map((flag) => flag.name)),
  };
}

function checkWords(command: string, words: readonly string[]): void {
  const [least, most] = commands[command]!.arity;
  if (words.length > most) {
    throw new UsageError(`unexpected argument: ${printable(words[most]!) || '""'}`, {
      hint: 'dlrootfs --help shows what goes where',
    });
  }
  if (words.length < least || words[0] === '') {
    throw new UsageError(command === 'pull' ? 'no image is named' : `${command} needs an argument`, {
      hint: command === 'pull' ? 'write dlrootfs IMAGE[:TAG] -d DIR' : `dlrootfs help ${command} says which`,
    });
  }
}

/** Empty as from a variable that is not set: then as without the flag. */
const mayBeEmpty: ReadonlySet<string> = new Set(['user', 'registry-token']);

function readValues(command: string, flags: readonly FoundFlag[]): FlagValues {
  const options = commands[command]!.options;
  const program = new Command(command).exitOverride().configureOutput({ writeErr: () => undefined });
  program.helpOption(false);
  for (const option of options) if (option.long !== '--help') program.addOption(option);
  const canonical: string[] = [];
  for (const flag of flags) {
    if (!options.some((option) => option.long === `--${flag.name}`)) {
      throw new UsageError(`${flag.spelled} does not go with ${command}`, {
        hint: `dlrootfs help ${command} lists what does`,
      });
    }
    if (flag.value === '' && !mayBeEmpty.has(flag.name)) {
      throw new UsageError(`${flag.spelled} has an empty value`, { hint: `write ${flag.spelled} VALUE` });
    }
    canonical.push(...spell(flag, flags));
  }
  try {
    program.parse(canonical, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) throw new UsageError(error.message.replace(/^error: /, ''));
    throw error;
  }
  return program.opts();
}

/** The flag as commander reads it; of a boolean that is given several times the last decides. */
function spell(flag: FoundFlag, all: readonly FoundFlag[]): string[] {
  if (typeof flag.value !== 'boolean') {
    return [flag.value === undefined ? `--${flag.name}` : `--${flag.name}=${flag.value}`];
  }
  const decides = all.findLast((other) => other.name === flag.name) === flag;
  return decides && flag.value ? [`--${flag.name}`] : [];
}
