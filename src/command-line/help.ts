import { Command } from 'commander';
import { UsageError, printable } from '../errors.ts';
import { optionsOf } from './options-table.ts';
import { originalUsage } from './usage.ts';

/** What `dlrootfs --help` and `dlrootfs help TOPIC` print. Throws UsageError for a topic that does not exist. */
export function helpText(topic = 'pull'): string {
  if (!Object.hasOwn(optionsOf, topic)) {
    throw new UsageError(`no help on ${printable(topic)}`, {
      hint: `topics: ${Object.keys(optionsOf).join(', ')}`,
    });
  }
  const program = new Command('dlrootfs').helpOption(false);
  for (const option of optionsOf[topic]!) program.addOption(option);
  const options = program.helpInformation().replace(/^Usage:.*\n\n/, '');
  const [usageAndExamples] = originalUsage.split('Default:\n');
  return `${usageAndExamples}\n${options}`;
}
