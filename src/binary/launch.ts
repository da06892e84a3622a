import { argv } from 'node:process';
import { tooLowLimit } from '../process-limits.ts';
import { answersVersion } from '../quick-answer.ts';
import { requireScript } from './script.ts';

const line = argv.slice(2);

// The first script of the single executable.
if (!answersVersion(line)) {
  const low = tooLowLimit();
  const failure = writes(line) && !low ? warm() : undefined;
  void (requireScript('cli.js') as typeof import('../cli.ts')).main({ low, failure });
}

/** Starts a thread early; returns the error if that fails. Node would abort silently at the next threads. */
function warm(): unknown {
  try {
    (requireScript('threads.js') as typeof import('./threads.ts')).warmThread();
    return undefined;
  } catch (error) {
    return error;
  }
}

/** True if a command line looks like a pull into a directory. A wrong guess only costs time. */
function writes(words: readonly string[]): boolean {
  const commands = /^(version|help|completion|inspect|tags|verify|diff|ls|cat|cache|__complete)$/;
  const flags = /^(-h|--help|-V|--version|--dry-run|-o.*|--output.*)$/;
  return words.length > 0 && !words.some((word) => commands.test(word) || flags.test(word));
}
