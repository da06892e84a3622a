import { Command, Help } from 'commander';
import { UsageError, printable } from '../errors.ts';
import { originalUsage } from '../quick-answer.ts';
import { type CommandDescription, commands, optionDescription } from './commands.ts';
import { suggestion } from './program.ts';
import { type Paragraph, type Topic, topicNames, topics } from './topics.ts';

const HELP_COLUMNS = 80;
const INDENT_COLUMNS = 2;
/** Longer terms get a line of their own. */
const WIDEST_TERM_COLUMNS = 34;

const layout = Object.assign(new Help(), { helpWidth: HELP_COLUMNS, optionDescription });

/**
 * The text of `dlrootfs --help` and `dlrootfs help WORD`; a word may be a command, a topic, or both.
 *
 * @throws UsageError
 */
export function helpText(name = 'pull'): string {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  const topic = Object.hasOwn(topics, name) ? topics[name] : undefined;
  if (name === 'pull' && command)
    return `${programHead()}\n${optionHelp(command)}\n${topicList()}\n${topicText(topics['exit-codes']!)}`;
  const parts = [...(command ? [commandHelp(command)] : []), ...(topic ? [topicText(topic)] : [])];
  if (parts.length > 0) return parts.join('\n');
  const known = [...Object.keys(commands), ...topicNames];
  throw new UsageError(`no help on ${printable(name)}`, {
    hint: suggestion(name, known) ?? `name one of ${known.join(', ')}`,
  });
}

function programHead(): string {
  const [usageAndExamples] = originalUsage.split('\nDefault:\n');
  const entries = Object.entries(commands)
    .filter(([name]) => name !== 'pull')
    .map(([, { synopsis, summary }]) => [`dlrootfs ${synopsis}`, summary] as const);
  return `${usageAndExamples}\n\nCommands:\n${definitions(entries)}`;
}

function commandHelp(command: CommandDescription): string {
  const summary = layout.boxWrap(command.summary, HELP_COLUMNS);
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
  const lines = layout.boxWrap(paragraph, HELP_COLUMNS - INDENT_COLUMNS);
  return `${lines.replaceAll(/^/gm, indent)}\n`;
}

function definitions(entries: readonly (readonly [term: string, meaning: string])[]): string {
  const fitting = entries.map(([term]) => term.length).filter((length) => length <= WIDEST_TERM_COLUMNS);
  const width = Math.max(...fitting);
  const lines = entries.map(([term, meaning]) => {
    if (term.length <= width) return layout.formatItem(term, width, meaning, layout);
    return `${' '.repeat(INDENT_COLUMNS)}${term}\n${layout.formatItem('', width, meaning, layout)}`;
  });
  return `${lines.join('\n')}\n`;
}
