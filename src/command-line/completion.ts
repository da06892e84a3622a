import { UsageError, printable } from '../errors.ts';
import { bashCompletion } from './bash-completion.ts';
import { shellNames } from './candidates.ts';
import { commands } from './commands.ts';
import { fishCompletion } from './fish-completion.ts';
import { zshCompletion } from './zsh-completion.ts';

const everyOption = [...new Set(Object.values(commands).flatMap(({ options }) => options))];

const scripts: Readonly<Record<string, () => string>> = {
  bash: () => bashCompletion(everyOption),
  zsh: zshCompletion,
  fish: () => fishCompletion(everyOption),
};

/** The completion script for a shell; throws UsageError for one that we do not know. */
export function completionScript(shell: string): string {
  const write = Object.hasOwn(scripts, shell) ? scripts[shell] : undefined;
  if (write === undefined) {
    throw new UsageError(`no completions for ${printable(shell)}`, {
      hint: `there are ${shellNames.join(', ')}`,
    });
  }
  return write();
}
