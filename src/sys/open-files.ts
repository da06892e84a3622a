import { readFileSync } from 'node:fs';
import { hasCode } from './os-error.ts';

/**
 * Descriptors that a run needs besides cached ones: Node's and its threads', connections, files at work,
 * git's pipes.
 */
const RESERVED_DESCRIPTORS = 60;

let spare: number | undefined;

/**
 * Returns how many files one use may keep open: its share of the limit of open files, at most `most`.
 *
 * @param share from 0 to 1; the shares of all uses in a process add up to 1
 */
export function openFilesFor(share: number, most: number, least = 4): number {
  spare ??= Math.max(0, limitOfOpenFiles() - RESERVED_DESCRIPTORS);
  return Math.min(most, Math.max(least, Math.floor(spare * share)));
}

/**
 * Returns RLIMIT_NOFILE of getrlimit(2): the hard limit, since Node raises the soft one to it at its start. 0
 * if no file can be opened; Infinity if /proc is not mounted.
 */
export function limitOfOpenFiles(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'latin1');
    return Number(/^Max open files +(\d+) /m.exec(limits)?.[1] ?? Infinity);
  } catch (error) {
    return hasCode(error, 'EMFILE') ? 0 : Infinity;
  }
}
