import { UsageError, printable } from '../errors.ts';
import { suggest } from './suggest.ts';

/** What the splitter has to know of a flag; names come without dashes. */
export interface FlagShape {
  readonly names: readonly string[];
  /** `optional`: the value only behind an equals sign; `boolean`: likewise, and it must be one. */
  readonly takes: 'boolean' | 'value' | 'optional';
}

/** One flag as found: `name` is the shape's last name, `spelled` what the user typed (without its value). */
export interface FoundFlag {
  readonly name: string;
  readonly spelled: string;
  readonly value: string | boolean | undefined;
}

export interface SplitArguments {
  readonly flags: readonly FoundFlag[];
  readonly words: readonly string[];
}

const booleans: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'T', 'true', 'TRUE', 'True'].map((text) => [text, true] as const),
  ...['0', 'f', 'F', 'false', 'FALSE', 'False'].map((text) => [text, false] as const),
]);

/** Go's strconv.ParseBool; throws UsageError naming the flag. */
export function parseBoolean(text: string, spelled: string): boolean {
  const value = booleans.get(text);
  if (value === undefined) {
    throw new UsageError(`invalid boolean value "${printable(text)}" for ${spelled}`, {
      hint: `write ${spelled}, ${spelled}=true or ${spelled}=false`,
    });
  }
  return value;
}

/**
 * Splits a command line by the rules of Go's `flag` package: `-d x`, `-d=x`, `--d x` and `--d=x` are the same, a
 * boolean takes its value only behind `=`, a value may begin with a dash, `--` ends the flags. Unlike Go, flags may
 * stand before and behind words. Throws UsageError that names an unknown flag, never a value.
 */
export function splitArguments(argv: readonly string[], shapes: readonly FlagShape[]): SplitArguments {
  const byName = new Map(shapes.flatMap((shape) => shape.names.map((name) => [name, shape] as const)));
  const flags: FoundFlag[] = [];
  const words: string[] = [];
  for (let i = 0; i < argv.length; i += 1) {
    const argument = argv[i]!;
    if (argument === '--') {
      words.push(...argv.slice(i + 1));
      break;
    }
    if (!argument.startsWith('-') || argument === '-') {
      words.push(argument);
      continue;
    }
    const { spelled, name, value } = dissect(argument);
    const shape = byName.get(name);
    if (shape === undefined) throw unknownFlag(spelled, name, byName);
    let found: string | boolean | undefined = value;
    if (shape.takes === 'boolean') found = value === undefined || parseBoolean(value, spelled);
    if (shape.takes === 'value' && value === undefined) {
      i += 1;
      found = argv[i];
      if (found === undefined)
        throw new UsageError(`flag needs an argument: ${spelled}`, {
          hint: `write ${spelled} VALUE or ${spelled}=VALUE`,
        });
    }
    flags.push({ name: shape.names.at(-1)!, spelled, value: found });
  }
  return { flags, words };
}

function dissect(argument: string): { spelled: string; name: string; value: string | undefined } {
  const equals = argument.indexOf('=');
  const spelled = equals < 0 ? argument : argument.slice(0, equals);
  const name = spelled.replace(/^--?/, '');
  if (name === '' || name.startsWith('-'))
    throw new UsageError(`bad flag syntax: ${printable(spelled)}`, {
      hint: 'flags begin with one dash or two and a name; what follows -- is no flag',
    });
  return { spelled, name, value: equals < 0 ? undefined : argument.slice(equals + 1) };
}

function unknownFlag(spelled: string, name: string, known: ReadonlyMap<string, FlagShape>): UsageError {
  const nearest = suggest(name, [...known.keys()]);
  return new UsageError(`unknown flag: ${printable(spelled)}`, {
    hint:
      nearest === undefined
        ? 'dlrootfs --help lists all flags'
        : `did you mean ${nearest.length > 1 ? '--' : '-'}${nearest}?`,
  });
}
