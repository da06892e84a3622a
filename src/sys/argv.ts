import { readFileSync } from 'node:fs';
import { platform } from 'node:os';
import { UsageError, printable } from '../errors.ts';
import { pathText } from './os-path.ts';

/**
 * The program's arguments with all their bytes: Node decodes them as UTF-8 and puts U+FFFD for what is none. See `pathText`.
 *
 * @param decoded what Node has, without the program itself
 * @throws UsageError where the bytes cannot be read
 */
export function exactArguments(decoded: readonly string[], source = '/proc/self/cmdline'): readonly string[] {
  const doubtful = decoded.find((word) => word.includes('\ufffd'));
  if (doubtful === undefined || platform() !== 'linux') return decoded;
  const exact = readArguments(source).slice(-decoded.length);
  if (exact.length !== decoded.length || exact.some((bytes, at) => bytes.toString() !== decoded[at])) {
    throw new UsageError(`cannot read the bytes of the argument ${printable(doubtful)}: it is not UTF-8`, {
      code: 'ARGUMENT_BYTES',
      hint: 'use a name in UTF-8, or mount /proc: mount -t proc proc /proc',
    });
  }
  return exact.map((bytes) => pathText(bytes));
}

/** proc_pid_cmdline(5): each argument ends with a NUL. */
function readArguments(source: string): Buffer[] {
  try {
    const words = readFileSync(source, 'latin1').split('\0').slice(0, -1);
    return words.map((word) => Buffer.from(word, 'latin1'));
  } catch {
    return [];
  }
}

/** A word as sh(1) takes it, quoted where it has to be. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
