import { readFileSync } from 'node:fs';
import { hasCode } from './os-error.ts';

/** Descriptors that a run needs beside those that it keeps to save time: Node's and its threads', connections, files at work, git's pipes. */
const NEEDED = 60;

let spare: number | undefined;

/**
 * How many files one use may keep open: its share of what the limit of open files leaves, and at most `most`.
 *
 * @param share from 0 to 1; the shares of all uses in a process are 1 together
 */
export function openFilesFor(share: number, most: number, least = 4): number {
  spare ??= Math.max(0, limitOfOpenFiles() - NEEDED);
  return Math.min(most, Math.max(least, Math.floor(spare * share)));
}

/**
 * RLIMIT_NOFILE of getrlimit(2): the hard limit, as Node raises the soft one to it when it starts. 0 where no file can be opened;
 * Infinity where /proc is not mounted.
 */
export function limitOfOpenFiles(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'latin1');
    return Number(/^Max open files +(\d+) /m.exec(limits)?.[1] ?? Infinity);
  } catch (error) {
    return hasCode(error, 'EMFILE') ? 0 : Infinity;
  }
}
