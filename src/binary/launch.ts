import { argv } from 'node:process';
import { answersVersion, tooLowLimit } from '../quick-answer.ts';
import { requireScript } from './script.ts';

const line = argv.slice(2);

// The first script of the single executable.
if (!answersVersion(line)) {
  if (writes(line) && tooLowLimit() === undefined)
    (requireScript('spawn.js') as typeof import('./spawn.ts')).warmThread();
  void (requireScript('cli.js') as typeof import('../cli.ts')).main();
}

/** Whether a command line looks like a pull into a directory. A wrong guess only costs time. */
function writes(words: readonly string[]): boolean {
  const other =
    /^(version|help|completion|inspect|tags|cache|checkout|-h|--help|-V|--version|--dry-run|-o.*|--output.*)$/;
  return words.length > 0 && !words.some((word) => other.test(word));
}
