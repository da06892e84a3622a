import { Command, Help, type Option } from 'commander';
import { UsageError, printable } from '../errors.ts';
import { type CommandDescription, commands, comparison, looking, optionNamed } from './commands.ts';
import { lookUpWord } from './other-tools.ts';
import { flagSuggestion, suggestion } from './program.ts';
import { type Paragraph, type Topic, topicNames, topics } from './topics.ts';

const HELP_COLUMNS = 80;
const INDENT_COLUMNS = 2;
/** Longer terms get their own line, and so do terms that leave too few columns to their text. */
const WIDEST_TERM_COLUMNS = 40;
const NARROWEST_TEXT_COLUMNS = 20;
/** The topics, and words that people type for them: runtimes, singulars, names of other tools. */
const MEANT: readonly (readonly [words: string, topic: string])[] = [
  ['credential auth authentication login password private token', 'credentials'],
  ['registry tls certificates proxy proxies http https mirrors digest pin', 'registries'],
  ['cosign sigstore sign signed signature signatures signing key keys', 'trust'],
  ['cron nightly update upgrade changed', 'refresh'],
  ['user-namespace subuid subgid uidmap unshare', 'rootless'],
  ['source oci docker-archive', 'sources'],
  ['tar archive', 'output'],
  ['runtime runc lxc nspawn systemd-nspawn systemd chroot container', 'runtimes'],
  ['disk ext4 erofs squashfs qemu firecracker vm microvm micro-vm', 'disks'],
  ['part', 'parts'],
  ['branch branches', 'git'],
  ['layer history', 'layers'],
  ['env variables', 'environment'],
  ['exit exit-code exit-status errors status', 'exit-codes'],
];
/** Words for everything there is. */
const EVERYTHING: ReadonlySet<string> = new Set([
  'pull',
  'commands',
  'flags',
  'options',
  'topics',
  'examples',
]);
/** The largest number of topics in a hint. */
const MAX_PLACES = 2;

const layout = Object.assign(new Help(), {
  helpWidth: HELP_COLUMNS,
  minWidthToWrap: NARROWEST_TEXT_COLUMNS,
  optionTerm,
  optionDescription,
});

/**
 * Returns a flag with its value, for help and man page. An optional value needs the equals sign:
 * `--replace[=always]`.
 */
export function optionTerm({ flags, optional }: Option): string {
  return optional ? flags.replace(/ \[(\w+)\]$/, '[=$1]') : flags;
}

/** Returns the text of a flag, followed by its choices and default unless the text contains them. */
export function optionDescription({ description, defaultValue, argChoices, flags }: Option): string {
  const choices =
    argChoices === undefined || flags.includes(argChoices[0]!) ? '' : ` (${argChoices.join(', ')})`;
  const value = typeof defaultValue === 'string' ? ` (default: ${defaultValue})` : '';
  return `${description}${choices}${value}`;
}

/** The commonest tasks, and below the commonest flags: so `--help` fits a terminal of 80 × 24. */
const EXAMPLES: readonly (readonly [line: string, meaning: string])[] = [
  ['dlrootfs ubuntu', 'into ./rootfs, tag latest'],
  ['dlrootfs ubuntu:14.04 -d trusty', 'another tag, another directory'],
  ['dlrootfs ghcr.io/org/app -u bob', 'private: it asks for the password'],
  ['dlrootfs ubuntu --replace', 'again, if there is a newer one'],
  ['dlrootfs alpine -o alpine.tar.zst', 'one archive instead of a directory'],
  ['dlrootfs alpine -d web/rootfs --for runc', 'with the configuration of runc'],
];
export const COMMON_FLAGS: readonly (readonly [flag: string, meaning: string])[] = [
  ['-d DIR', 'directory of the root file system (default: ./rootfs)'],
  ['-u USER[:PASSWORD]', 'credentials; logins of docker and podman work as they are'],
  ['-g', 'one git branch and one commit per layer'],
  ['-o FILE', 'one file instead: FILE.tar, .tar.gz, .tar.zst, .ext4, …'],
  ['--platform OS/ARCH', 'for another machine, as linux/arm64'],
  ['--for RUNTIME', 'write the configuration of runc, lxc, nspawn, … beside DIR'],
];

/**
 * Returns the text of `dlrootfs --help` and `dlrootfs help WORDS`: of a topic of several words (`exit codes`),
 * else by the first word. A word may be a command, a topic, or both, or a flag, or another word for a topic.
 *
 * @param all every command, flag and exit code instead of one screen
 * @param columns of the terminal; wider text is wrapped at 80
 * @throws UsageError
 */
export function helpText(asked = '', all = false, columns = HELP_COLUMNS): string {
  layout.helpWidth = Math.min(Math.max(columns, 2 * NARROWEST_TEXT_COLUMNS), HELP_COLUMNS);
  if (asked === '') return all ? wholeHelp() : screenHelp();
  const [name, first] = [asked.replaceAll(' ', '-'), asked.replace(/ .*/s, '')];
  const text = textOn(name) ?? textOn(first);
  if (text !== undefined) return text;
  const known = [...Object.keys(commands), ...topicNames];
  throw new UsageError(`no help on ${printable(asked)}`, {
    hint:
      placeInHelp(name) ??
      suggestion(name, known) ??
      suggestion(first, known) ??
      flagSuggestion(name) ??
      'dlrootfs --help --all lists all commands, flags and topics',
  });
}

function textOn(name: string): string | undefined {
  if (EVERYTHING.has(name)) return wholeHelp();
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  const topic = Object.hasOwn(topics, name) ? topics[name] : undefined;
  const parts = [...(command ? [commandHelp(command)] : []), ...(topic ? [topicText(topic)] : [])];
  if (parts.length > 0) return parts.join('\n');
  const flag = optionNamed(name.replace(/^-+/, ''));
  if (flag !== undefined) return flagText(flag);
  const meant = lookUpWord(MEANT, name.toLowerCase());
  return meant === undefined ? undefined : topicText(topics[meant]!);
}

/** Returns a hint for a word that is neither command nor topic but in the help; else undefined. */
function placeInHelp(word: string): string | undefined {
  if (!/^[\w-]{2,}$/.test(word)) return undefined;
  const pattern = new RegExp(`(?<!\\w)${word}s?(?!\\w)`, 'gi');
  return topicsWith(pattern) ?? (pattern.test(wholeHelp()) ? 'see dlrootfs --help --all' : undefined);
}

/** Returns a hint with the topics that match most often; undefined if none does. */
function topicsWith(pattern: RegExp): string | undefined {
  const hits = Object.entries(topics).map(
    ([name, topic]) => [name, [...topicText(topic).matchAll(pattern)].length] as const,
  );
  const found = hits.filter(([, count]) => count > 0).toSorted(([, one], [, other]) => other - one);
  const places = found.slice(0, MAX_PLACES).map(([name]) => `dlrootfs help ${name}`);
  return places.length === 0 ? undefined : `see ${places.join(' or ')}`;
}

function flagText(option: Option): string {
  const long = new RegExp(`${option.long!}(?![\\w-])`, 'g');
  const short = new RegExp(`(?<![\\w-])${option.short}(?![\\w-])`, 'g');
  const more = topicsWith(long) ?? (option.short === undefined ? undefined : topicsWith(short));
  const takers = Object.keys(commands).filter((name) => commands[name]!.options.includes(option));
  return definitions([
    [optionTerm(option), optionDescription(option)],
    ['With', takers.map((name) => (name === 'pull' ? 'dlrootfs IMAGE' : `dlrootfs ${name}`)).join(', ')],
    ['More', more ?? 'see dlrootfs --help --all'],
  ]);
}

const USAGE = 'Usage: dlrootfs IMAGE[:TAG|@DIGEST] [FLAGS]';
const SUMMARY = 'Turns a container image in a registry into a root file system directory.';
const head = (): string => `${wrapped(USAGE)}\n${wrapped(SUMMARY)}\n`;
const wrapped = (text: string): string => layout.boxWrap(text, layout.helpWidth);

const commandNames = Object.keys(commands).filter((name) => name !== 'pull');

function screenHelp(): string {
  const more = [
    ['More', 'dlrootfs --help --all, or man dlrootfs'],
    ['Commands', commandNames.join(', ')],
    ['Topics', topicNames.join(', ')],
  ] as const;
  return `${head()}\n${definitions(EXAMPLES)}\n${definitions(COMMON_FLAGS)}\n${definitions(more)}`;
}

const flagList = (options: readonly Option[]): string =>
  definitions(options.map((option) => [optionTerm(option), optionDescription(option)] as const));

function wholeHelp(): string {
  const entries = commandNames.map((name) => {
    const { synopsis, summary } = commands[name]!;
    return [`dlrootfs ${synopsis}`, summary] as const;
  });
  const parts = [
    head(),
    `Examples\n${definitions(EXAMPLES)}`,
    `Commands\n${definitions(entries)}`,
    optionHelp(commands['pull']!),
    `Flags of verify\n${flagList(comparison)}`,
    `Flags of ls and inspect\n${flagList(looking)}`,
    topicList(),
    topicText(topics['exit-codes']!),
  ];
  return parts.join('\n');
}

function commandHelp(command: CommandDescription): string {
  const summary = wrapped(command.summary);
  return `Usage: dlrootfs ${command.synopsis}\n\n${summary}\n\n${optionHelp(command)}`;
}

function optionHelp({ options }: CommandDescription): string {
  const program = new Command('dlrootfs').helpOption(false);
  for (const option of options) program.addOption(option);
  return layout.formatHelp(program, layout).replace(/^Usage:.*\n\n/, '');
}

function topicList(): string {
  const entries = Object.entries(topics).map(
    ([name, { summary }]) => [`dlrootfs help ${name}`, summary] as const,
  );
  return `More help\n${definitions(entries)}`;
}

function topicText({ title, paragraphs }: Topic): string {
  const heading = `${title[0]}${title.slice(1).toLowerCase()}`;
  return `${heading}\n${paragraphs.map(paragraphText).join('\n')}`;
}

function paragraphText(paragraph: Paragraph): string {
  if (typeof paragraph !== 'string') return definitions(paragraph);
  const indent = ' '.repeat(INDENT_COLUMNS);
  const lines = layout.boxWrap(paragraph, layout.helpWidth - INDENT_COLUMNS);
  return `${lines.replaceAll(/^/gm, indent)}\n`;
}

function definitions(entries: readonly (readonly [term: string, meaning: string])[]): string {
  const left = layout.helpWidth - NARROWEST_TEXT_COLUMNS - 2 * INDENT_COLUMNS;
  const widest = Math.min(WIDEST_TERM_COLUMNS, left);
  const fitting = entries.map(([term]) => term.length).filter((length) => length <= widest);
  const width = Math.max(...fitting, 2 * INDENT_COLUMNS);
  const lines = entries.map(([term, meaning]) => {
    if (term.length <= width) return layout.formatItem(term, width, meaning, layout);
    return `${' '.repeat(INDENT_COLUMNS)}${term}\n${layout.formatItem('', width, meaning, layout)}`;
  });
  return `${lines.join('\n')}\n`;
}
