import { Command, CommanderError, type Option } from 'commander';
import { UsageError, printable } from '../errors.ts';
import { shellWord } from '../sys/os-path.ts';
import { type Source, parseSource } from '../layout/local-source.ts';
import {
  type CommandName,
  type FlagValues,
  commands,
  optionNamed,
  options as allOptions,
} from './commands.ts';
import { parseBoolean } from './flag-values.ts';
import { foreignCommand, foreignFlag, wordBehindImage } from './other-tools.ts';

export interface Invocation {
  readonly command: CommandName;
  /** The words after the command; for `pull` the image. */
  readonly words: readonly string[];
  readonly values: FlagValues;
  /** The flags on the command line, as they were typed, by their long names. */
  readonly given: ReadonlyMap<string, string>;
}

/** A flag of the command line. */
interface Flag {
  /** The flag as typed, without its value. */
  readonly spelled: string;
  readonly name: string;
  /** Undefined for an unknown flag. */
  readonly option: Option | undefined;
  readonly value: string | boolean | undefined;
}

/** Flags whose value may be empty, as from an unset variable: then they are ignored. */
const MAY_BE_EMPTY: ReadonlySet<string> = new Set(['user', 'registry-token']);

/**
 * Parses argv (without node and script). A command word takes precedence over an image of that name, `--help`
 * and `--version` over everything.
 *
 * @throws UsageError
 */
export function parseArguments(argv: readonly string[]): Invocation {
  const explained = flagToExplain(argv);
  if (explained !== undefined) return { command: 'help', words: [explained], values: {}, given: new Map() };
  const { flags, words } = splitArguments(argv);
  const first = words[0];
  const isCommand = first !== undefined && first !== 'pull' && Object.hasOwn(commands, first);
  const command = isCommand ? (first as CommandName) : 'pull';
  for (const asked of ['help', 'version'] as const) {
    if (!flags.some(({ name, value }) => name === asked && value !== false)) continue;
    const topic = asked === 'help' && isCommand ? [command] : [];
    const all = flags.some(({ name, value }) => name === 'all' && value !== false);
    return { command: asked, words: topic, values: { all }, given: new Map() };
  }
  const rest = isCommand ? words.slice(1) : words;
  const values = readValues(command, flags, rest);
  const invocation = {
    command,
    words: rest,
    values,
    given: new Map(flags.map(({ name, spelled }) => [name, spelled])),
  };
  refuseWithoutEffect(invocation);
  return invocation;
}

/**
 * Returns the flag of `dlrootfs help FLAG`, which may have a value. Undefined for `help --all` and `help
 * --help`, which have another meaning.
 */
function flagToExplain([word, flag = '', ...rest]: readonly string[]): string | undefined {
  const [spelled = '', name] = /^--?([^-=][^=]*)/.exec(flag) ?? [];
  const option = word === 'help' && name !== undefined ? optionNamed(name) : undefined;
  const mayFollow = option?.required === true && !flag.includes('=') ? 1 : 0;
  if (option === undefined || rest.length > mayFollow) return undefined;
  return ['--all', '--help'].includes(option.long!) ? undefined : spelled;
}

/** Commands for which --quiet contradicts --json. */
const QUIET_OR_JSON: ReadonlySet<string> = new Set(['inspect', 'verify', 'diff']);

/** @throws UsageError for a flag that the rest of the command line leaves without effect */
function refuseWithoutEffect({ command, words, values, given }: Invocation): void {
  if (values.all === true && command !== 'help')
    throw useless('--all', 'without --help', 'write dlrootfs --help --all');
  if (command === 'cache') refuseForCache(words[0], given);
  const source = ['pull', 'inspect', 'tags', 'verify', 'ls', 'cat'].includes(command)
    ? parseSource(words[0]!)
    : undefined;
  const aboutRegistry = commands['pull']!.options.find(
    ({ helpGroupHeading, long }) =>
      /^(?:Credentials|Registry)$/.test(helpGroupHeading ?? '') &&
      given.has(long!.slice(2)) &&
      long !== '--no-creds',
  );
  if (source !== undefined && aboutRegistry !== undefined)
    throw useless(
      given.get(aboutRegistry.long!.slice(2))!,
      'on an image of this machine',
      'leave it out, or name an image in a registry',
    );
  if (command === 'tags') refuseTag(words[0]!, source);
  if (QUIET_OR_JSON.has(command) && values.quiet === true && values.json === true)
    throw useless(given.get('quiet')!, 'with --json', 'leave one of them out');
  if (command !== 'pull') return;
  if (values.rootless !== undefined && values.for?.includes('runc') !== true)
    throw useless(
      '--rootless',
      'without --for runc',
      'add --for runc, or leave it out: a pull needs no root (dlrootfs help rootless)',
    );
  if (values.force === true && values.for === undefined)
    throw useless(
      '--force',
      'without --for',
      'add --for RUNTIME, or leave it out; to replace what DIR holds use --replace',
    );
  const withDryRun = ['layers', 'path', 'exclude'].find((name) => given.has(name));
  if (values.dryRun === true && values.replace === undefined && withDryRun !== undefined)
    throw useless(`--${withDryRun}`, 'with --dry-run', 'leave one of them out');
}

/** Flags of `cache` without `add`, which takes those of a pull. */
const ABOUT_CACHE: ReadonlySet<string> = new Set(['cache-dir', 'cache-size', 'json', 'quiet']);

function refuseForCache(what: string | undefined, given: Invocation['given']): void {
  if (what === 'add') return;
  if (given.has('cache-size') && what !== 'prune')
    throw useless('--cache-size', 'on the size of the cache', 'write dlrootfs cache prune --cache-size SIZE');
  const foreign = [...given].find(([name]) => !ABOUT_CACHE.has(name));
  if (foreign !== undefined)
    throw useless(
      foreign[1],
      `with cache ${what ?? 'size'}`,
      'leave it out, or write dlrootfs cache add IMAGE',
    );
}

const useless = (flag: string, why: string, hint: string): UsageError =>
  new UsageError(`${flag} has no effect ${why}`, { hint });

/** @throws UsageError for a tag or digest after the repository of `tags` */
function refuseTag(text: string, source: Source | undefined): void {
  const [, tag] = /[:@]([^/]*)$/.exec(text) ?? [];
  const named = source === undefined ? tag : source.image;
  if (named === undefined) return;
  const repository = text.slice(0, text.length - named.length - 1);
  throw new UsageError(`tags takes a repository without a tag, not ${printable(text)}`, {
    hint: `write dlrootfs tags ${printable(repository)}, or dlrootfs inspect ${printable(text)}`,
  });
}

/**
 * Splits a command line by the rules of Go's `flag` package: `-d x`, `-d=x`, `--d x` and `--d=x` are the
 * same; a boolean takes a value only after `=`; a value may begin with a dash; `--` ends the flags. Unlike in
 * Go, flags may come before and after words, and flags of one letter can be joined, the last one with a
 * value: `-qgd x`.
 */
export function splitArguments(argv: readonly string[]): {
  flags: readonly Flag[];
  words: readonly string[];
} {
  const flags: Flag[] = [];
  const words: string[] = [];
  const rest = argv.values();
  for (const argument of rest) {
    if (argument === '--') words.push(...rest);
    else if (!argument.startsWith('-') || argument === '-') words.push(argument);
    else flags.push(...letters(argument).map((flag) => readFlag(flag, rest)));
  }
  return { flags, words };
}

/** Splits `-qv` into `-q` and `-v`. A flag of that name takes precedence: `-dest`. */
function letters(argument: string): readonly string[] {
  const [, typed = '', value = ''] = /^-([A-Za-z]{2,})(=[^]*)?$/.exec(argument) ?? [];
  if (typed === '' || optionNamed(typed) !== undefined) return [argument];
  const all = typed.split('').map((letter) => optionNamed(letter));
  const areFlags = all.every(
    (option, place) => option !== undefined && (place === all.length - 1 || option.isBoolean()),
  );
  if (!areFlags) return [argument];
  return all.map((option, place) => `${option!.short!}${place === all.length - 1 ? value : ''}`);
}

/** @param rest the next arguments, for the value of a flag if `argument` has none */
function readFlag(argument: string, rest: Iterator<string>): Flag {
  const [, spelled = '', typed = '', value] = /^(--?([^=]*))(?:=([^]*))?$/.exec(argument)!;
  if (typed === '' || typed.startsWith('-')) {
    throw new UsageError(`bad flag syntax: ${printable(spelled)}`, {
      hint: 'write one dash or two, then a name; after -- nothing is a flag',
    });
  }
  const option = optionNamed(typed);
  const found = { spelled, option, name: option?.long!.slice(2) ?? typed };
  if (option?.required !== true) {
    const isBoolean = option !== undefined && !option.optional;
    return { ...found, value: isBoolean ? value === undefined || parseBoolean(value, spelled) : value };
  }
  const word = value ?? rest.next().value;
  const hint = `write ${spelled} ${/<(.*)>/.exec(option.flags)![1]!.toUpperCase()}`;
  if (word === undefined) throw new UsageError(`flag needs an argument: ${spelled}`, { hint });
  if (word === '' && !MAY_BE_EMPTY.has(found.name))
    throw new UsageError(`${spelled} has an empty value`, { hint });
  return { ...found, value: word };
}

/** Lets commander check and parse the flags and words of a command. */
function readValues(command: string, flags: readonly Flag[], words: readonly string[]): FlagValues {
  const { options, words: expected = [] } = commands[command]!;
  const foreign = flags.find(({ option }) => option && !options.includes(option));
  if (foreign) {
    const takers = Object.keys(commands).filter((name) => commands[name]!.options.includes(foreign.option!));
    const isPull = command === 'pull';
    throw new UsageError(`cannot use ${foreign.spelled} with ${isPull ? 'a pull' : command}`, {
      hint: isPull
        ? `use it with dlrootfs ${takers.join(' or ')}`
        : `write dlrootfs help ${command} for its flags`,
    });
  }
  if (command === 'pull') {
    const meant = foreignCommand(words);
    if (meant !== undefined) throw meant;
  }
  const program = quietCommand(command).helpOption(false);
  for (const word of expected) program.argument(word);
  for (const option of options) if (option.long !== '--help') program.addOption(option);
  const canonical = flags.flatMap((flag) => commanderForm(flag, flags));
  if (words.slice(0, expected.length).includes('')) throw missingWord(command, words, undefined);
  try {
    program.parse([...canonical, '--', ...words], { from: 'user' });
  } catch (error) {
    throw error instanceof CommanderError ? usageError(error, command, flags, words) : asTyped(error, flags);
  }
  return program.opts();
}

/** Returns an error about a flag's value with the flag as it was typed: `-j`, not `--jobs`. */
function asTyped(error: unknown, flags: readonly Flag[]): unknown {
  if (!(error instanceof UsageError)) return error;
  const { message, hint } = error;
  const flag = flags.find(({ option }) => option !== undefined && message.startsWith(`${option.long!} `));
  if (!flag) return error;
  const [long, typed] = [flag.option!.long!, flag.spelled];
  return new UsageError(message.replace(long, typed), { hint: hint?.replaceAll(long, typed) });
}

/** Returns a flag for commander. Of a boolean that is given several times, the last decides. */
function commanderForm({ name, option, value }: Flag, all: readonly Flag[]): string[] {
  if (typeof value !== 'boolean')
    return [value === undefined || !option ? `--${name}` : `--${name}=${value}`];
  const last = all.findLast((other) => other.option === option)!;
  return last.value === true ? [`--${name}`] : [];
}

function quietCommand(name: string): Command {
  return new Command(name).exitOverride().configureOutput({ writeErr: () => undefined });
}

/** Replaces commander's error by one with our words. */
function usageError(
  error: CommanderError,
  command: string,
  flags: readonly Flag[],
  words: readonly string[],
): UsageError {
  switch (error.code) {
    case 'commander.unknownOption': {
      const { spelled, name } = flags.find(({ option }) => option === undefined)!;
      const hint =
        foreignFlag(name) ??
        attachedValue(spelled, /^[\d./]/) ??
        didYouMean(similarIn(error)) ??
        flagSuggestion(name) ??
        attachedValue(spelled, /^[^-]/) ??
        'dlrootfs --help --all lists all flags';
      return new UsageError(`unknown flag: ${printable(spelled)}`, { hint });
    }
    case 'commander.excessArguments': {
      if (command === 'pull') return placeOfAddition(words[1]!, flags.at(-1)) ?? wordsBehindImage(words);
      const { words: expected = [], synopsis, options } = commands[command]!;
      const word = printable(words[expected.length]!) || '""';
      const takesDirectory = options.includes(optionNamed('dest')!);
      return new UsageError(`unexpected word: ${word}`, {
        hint: takesDirectory ? `write -d ${word} for that directory` : `write dlrootfs ${synopsis}`,
      });
    }
    case 'commander.missingArgument':
      return missingWord(command, words, flags.findLast(({ name }) => name === 'dest')?.value);
    default:
      return new UsageError(printable(error.message.replace(/^error: /, '')));
  }
}

/**
 * Returns a hint for a value right after a letter, as in `-j4`.
 *
 * @param beginning of the values to consider
 */
function attachedValue(spelled: string, beginning: RegExp): string | undefined {
  const [, letter = '', value = ''] = /^-([^-])(.*)$/s.exec(spelled) ?? [];
  if (!beginning.test(value) || optionNamed(letter)?.required !== true) return undefined;
  return `write -${letter} ${printable(value)}`;
}

/** Returns the error for the destination of --add as a word of its own: `--add FILE /etc/FILE`. */
function placeOfAddition(word: string, last: Flag | undefined): UsageError | undefined {
  if (!word.startsWith('/') || last?.name !== 'add' || String(last.value).includes(':')) return undefined;
  const addition = shellWord(`${String(last.value)}:${word}`);
  return new UsageError(`unexpected word: ${printable(word)}`, { hint: `write --add ${addition}` });
}

function wordsBehindImage(words: readonly string[]): UsageError {
  const known = Object.keys(commands).filter((name) => name !== 'pull');
  const hint = suggestion(words[0]!, known);
  if (hint !== undefined) return new UsageError(`dlrootfs has no command ${printable(words[0]!)}`, { hint });
  return wordBehindImage(words[0]!, words[1]!, known);
}

/** @param directory of -d */
function missingWord(command: string, given: readonly string[], directory: Flag['value']): UsageError {
  const { words: expected = [], synopsis } = commands[command]!;
  if (command === 'pull')
    return new UsageError('no image is named', { hint: 'write dlrootfs IMAGE[:TAG] -d DIR' });
  // docker cp and podman cp have this form.
  const [, image, inside] = /^([^/].*):(\/.*)$/.exec(given[0] ?? '') ?? [];
  if (command === 'cat' && inside !== undefined)
    return new UsageError('cat needs a path', {
      hint: `write dlrootfs cat ${printable(image!)} ${printable(inside)}`,
    });
  if (command === 'verify' && typeof directory === 'string')
    return new UsageError('verify needs an image', {
      hint: `write dlrootfs verify IMAGE -d ${printable(directory)}, with the image that was pulled into it`,
    });
  if (command === 'diff')
    return new UsageError('diff needs two images', { hint: `write dlrootfs ${synopsis}` });
  const missing = expected.filter((word) => word.startsWith('<'))[given.filter((word) => word !== '').length];
  const name = /\w+/.exec(missing ?? 'word')![0];
  const article = /^[aeiou]/.test(name) ? 'an' : 'a';
  return new UsageError(`${command} needs ${article} ${name}`, { hint: `write dlrootfs ${synopsis}` });
}

function similarIn({ message }: CommanderError): readonly string[] {
  return /\(Did you mean (?:one of )?(.*)\?\)/.exec(message)?.[1]?.split(', ') ?? [];
}

function didYouMean(words: readonly string[]): string | undefined {
  return words.length === 0 ? undefined : `did you mean ${words.join(' or ')}?`;
}

/** Returns `did you mean X?` for a mistyped word; undefined if no candidate is similar. */
export function suggestion(word: string, candidates: readonly string[]): string | undefined {
  return didYouMean(similarWords(word, candidates));
}

/** Returns the candidates that are similar to a mistyped word, by commander's measure. */
export function similarWords(word: string, candidates: readonly string[]): readonly string[] {
  const program = quietCommand('');
  for (const candidate of new Set(candidates)) program.command(candidate);
  try {
    program.parse(['--', word], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return similarIn(error);
    throw error;
  }
  return [];
}

/** Returns `did you mean --X?` for a mistyped flag of any command, given with or without dashes. */
export function flagSuggestion(word: string): string | undefined {
  const names = allOptions.map(({ long }) => long!.slice(2));
  return suggestion(word.replace(/^-+/, ''), names)?.replaceAll(/(?<=mean | or )(?=\w)/g, '--');
}
