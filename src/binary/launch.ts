import { argv } from 'node:process';
import { answersVersion } from '../answer-version.ts';
import { requireScript } from './script.ts';

const words = argv.slice(2);

// The first script of the single executable.
if (!answersVersion(words)) {
  if (writes(words)) (requireScript('spawn.js') as typeof import('./spawn.ts')).warmThread();
  void (requireScript('cli.js') as typeof import('../cli.ts')).main();
}

/** Whether a command line looks like a pull into a directory. A wrong guess costs some time, nothing else. */
function writes(all: readonly string[]): boolean {
  const other =
    /^(version|help|completion|inspect|tags|cache|checkout|-h|--help|-V|--version|--dry-run|-o.*|--output.*)$/;
  return all.length > 0 && !all.some((word) => other.test(word));
}
