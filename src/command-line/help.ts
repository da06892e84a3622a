import { Command } from 'commander';
import type { Option } from 'commander';
import { UsageError, printable } from '../errors.ts';
import type { CommandDescription } from './commands.ts';
import { commands } from './commands.ts';
import { exitCodes } from './exit-codes.ts';
import { originalUsage } from './usage.ts';

/** What `dlrootfs --help` and `dlrootfs help COMMAND` print. Throws UsageError for a command that does not exist. */
export function helpText(name = 'pull'): string {
  const described = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (described === undefined) {
    throw new UsageError(`no help on ${printable(name)}`, {
      hint: `there is help on ${Object.keys(commands).join(', ')}`,
    });
  }
  return name === 'pull'
    ? `${programHead()}\n${optionHelp(described)}\n${exitCodeHelp()}`
    : commandHelp(described);
}

function programHead(): string {
  const [usageAndExamples] = originalUsage.split('\nDefault:\n');
  const others = Object.values(commands).filter(({ synopsis }) => synopsis !== commands['pull']!.synopsis);
  const width = Math.max(...others.map(({ synopsis }) => synopsis.length));
  const lines = others.map(({ synopsis, summary }) => `  dlrootfs ${synopsis.padEnd(width)}  ${summary}`);
  return `${usageAndExamples}\n\nCommands:\n${lines.join('\n')}\n`;
}

function commandHelp(described: CommandDescription): string {
  return `Usage: dlrootfs ${described.synopsis}\n\n${described.summary}\n\n${optionHelp(described)}`;
}

function optionHelp(described: CommandDescription): string {
  const program = new Command('dlrootfs')
    .helpOption(false)
    .configureHelp({ helpWidth: 80, optionDescription });
  for (const option of described.options) program.addOption(option);
  return program.helpInformation().replace(/^Usage:.*\n\n/, '');
}

function exitCodeHelp(): string {
  const lines = exitCodes.map(([code, meaning]) => `  ${code.padEnd(18)}  ${meaning}`);
  return `Exit codes\n${lines.join('\n')}\n`;
}

/** Without what commander would add to it: choices stand in the flag or the description, and so does a preset. */
function optionDescription({ description, defaultValue, argChoices, flags }: Option): string {
  const choices =
    argChoices === undefined || flags.includes(argChoices[0]!) ? '' : ` (${argChoices.join(', ')})`;
  const value = typeof defaultValue === 'string' ? ` (default: ${defaultValue})` : '';
  return `${description}${choices}${value}`;
}
