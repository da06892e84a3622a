import { writeSync } from 'node:fs';
import { version } from './version.ts';

/**
 * Answers `version`, the commonest question, before the program is loaded and its streams and signals are set up: that costs more than
 * the answer. False where the words are others, or it did not get through.
 */
export function answersVersion(words: readonly string[]): boolean {
  if (words.length !== 1 || words[0] !== 'version') return false;
  try {
    writeSync(1, `${version}\n`);
    return true;
  } catch {
    return false;
  }
}
