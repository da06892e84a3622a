import type { Option } from 'commander';

/** What help and man page say of a flag. Without what commander would add to it: choices stand in the flag or the description, and so does a preset. */
export function optionDescription({ description, defaultValue, argChoices, flags }: Option): string {
  const choices =
    argChoices === undefined || flags.includes(argChoices[0]!) ? '' : ` (${argChoices.join(', ')})`;
  const value = typeof defaultValue === 'string' ? ` (default: ${defaultValue})` : '';
  return `${description}${choices}${value}`;
}
