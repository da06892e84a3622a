import { Command } from 'commander';
import { UsageError, printable } from '../errors.ts';
import type { CommandDescription } from './commands.ts';
import { commands } from './commands.ts';
import { optionDescription } from './option-description.ts';
import { suggest } from './suggest.ts';
import type { Paragraph, Topic } from './topics.ts';
import { topicNames, topics } from './topics.ts';
import { originalUsage } from './usage.ts';

/** What `dlrootfs --help` and `dlrootfs help WORD` print; a word may be a command, a topic, or both. Throws UsageError for others. */
export function helpText(name = 'pull'): string {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  const topic = Object.hasOwn(topics, name) ? topics[name] : undefined;
  if (name === 'pull' && command !== undefined)
    return `${programHead()}\n${optionHelp(command)}\n${topicList()}\n${topicText(topics['exit-codes']!)}`;
  const parts = [
    ...(command === undefined ? [] : [commandHelp(command)]),
    ...(topic === undefined ? [] : [topicText(topic)]),
  ];
  if (parts.length > 0) return parts.join('\n');
  const known = [...Object.keys(commands), ...topicNames];
  const nearest = suggest(name, known);
  throw new UsageError(`no help on ${printable(name)}`, {
    hint: nearest === undefined ? `there is help on ${known.join(', ')}` : `did you mean ${nearest}?`,
  });
}

function programHead(): string {
  const [usageAndExamples] = originalUsage.split('\nDefault:\n');
  const others = Object.values(commands).filter(({ synopsis }) => synopsis !== commands['pull']!.synopsis);
  const entries = others.map(({ synopsis, summary }) => [`dlrootfs ${synopsis}`, summary] as const);
  return `${usageAndExamples}\n\nCommands:\n${definitions(entries)}`;
}

function commandHelp(described: CommandDescription): string {
  return `Usage: dlrootfs ${described.synopsis}\n\n${wrapped(described.summary, '', '')}\n\n${optionHelp(described)}`;
}

function optionHelp(described: CommandDescription): string {
  const program = new Command('dlrootfs').helpOption(false).configureHelp({ helpWidth, optionDescription });
  for (const option of described.options) program.addOption(option);
  return program.helpInformation().replace(/^Usage:.*\n\n/, '');
}

function topicList(): string {
  const entries = Object.entries(topics).map(
    ([name, { summary }]) => [`dlrootfs help ${name}`, summary] as const,
  );
  return `More to read\n${definitions(entries)}`;
}

const helpWidth = 80;

function topicText({ title, paragraphs }: Topic): string {
  const heading = `${title[0]}${title.slice(1).toLowerCase()}`;
  return `${heading}\n${paragraphs.map(paragraphText).join('\n')}`;
}

function paragraphText(paragraph: Paragraph): string {
  return typeof paragraph === 'string' ? `${wrapped(paragraph, '  ', '  ')}\n` : definitions(paragraph);
}

const widestTerm = 34;

/** Terms in a column of their own, as far as that leaves room for what they mean. */
function definitions(entries: readonly (readonly [term: string, meaning: string])[]): string {
  const fitting = entries.map(([term]) => term.length).filter((length) => length <= widestTerm);
  const width = Math.max(...fitting);
  const indent = ' '.repeat(width + 4);
  return entries
    .map(([term, meaning]) => {
      if (term.length > width) return `  ${term}\n${wrapped(meaning, indent, indent)}\n`;
      return `${wrapped(meaning, `  ${term.padEnd(width)}  `, indent)}\n`;
    })
    .join('');
}

function wrapped(text: string, first: string, others: string): string {
  const lines: string[] = [];
  let line = first;
  let empty = true;
  for (const word of text.split(' ')) {
    if (!empty && line.length + 1 + word.length > helpWidth) {
      lines.push(line);
      line = others;
      empty = true;
    }
    line += empty ? word : ` ${word}`;
    empty = false;
  }
  return [...lines, line].join('\n');
}
