import { isUtf8 } from 'node:buffer';
import { accessSync, constants, openSync, realpathSync, statSync } from 'node:fs';
import { platform } from 'node:os';
import path from 'node:path';
import { printable, UsageError } from '../errors.ts';
import { systemText } from './privileges.ts';

/** Variables of a process: PATH, HOME and others. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Decodes a path. Paths of the operating system are bytes; here they are text: decoded as UTF-8, with each
 * other byte as a lone surrogate, U+DC80 to U+DCFF (as Python's `surrogateescape`, PEP 383). So no byte is
 * lost, and `node:path` works.
 */
export function pathText(bytes: Uint8Array): string {
  if (isUtf8(bytes)) return Buffer.from(bytes).toString();
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const character = bytes.subarray(at, at + sequenceLength(bytes[at]!));
    if (isUtf8(character)) {
      text += Buffer.from(character).toString();
      at += character.length;
    } else {
      text += String.fromCharCode(0xdc00 + bytes[at]!);
      at += 1;
    }
  }
  return text;
}

/** Encodes a path: the inverse of `pathText`. */
export function pathBytes(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text);
  const parts = text.split(/([\udc80-\udcff])/u);
  return Buffer.concat(
    parts.map((part, index) =>
      index % 2 === 0 ? Buffer.from(part) : Buffer.of(part.charCodeAt(0) - 0xdc00),
    ),
  );
}

/** Returns a path in the form that Node's functions and streams need. */
export function osPath(text: string): string | Buffer {
  return text.isWellFormed() ? text : pathBytes(text);
}

/** Makes one name absolute like `path.resolve`, even if the working directory's name is not UTF-8. */
export function absolutePath(name: string): string {
  if (path.isAbsolute(name)) return path.normalize(name);
  return path.join(pathText(realpathSync.native('.', { encoding: 'buffer' })), name);
}

/**
 * Returns the first executable file of this name in the directories of PATH. Relative ones are skipped: an
 * image may have filled the working directory.
 *
 * @param more directories to search after those of PATH
 */
export function findProgram(
  name: string,
  environment: Environment,
  more: readonly string[] = [],
): string | undefined {
  const directories = [...(environment['PATH'] ?? '').split(path.delimiter), ...more];
  const candidates = directories.filter((directory) => path.isAbsolute(directory));
  return candidates
    .map((directory) => path.join(directory, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return statSync(file).isFile();
      } catch {
        return false;
      }
    });
}

/**
 * Returns a UTF-8 path for an existing file or directory, if necessary through a descriptor, which stays open
 * (proc_pid_fd(5)).
 *
 * @throws the error of open(2)
 */
export function utf8Path(name: string): string {
  if (name.isWellFormed()) return name;
  return `/proc/self/fd/${openSync(pathBytes(name), O_PATH)}`;
}

/** Flags of open(2) on Linux that Node does not have. */
export const O_PATH = 0o10_000_000;
export const O_CLOEXEC = 0o2_000_000;

/** Returns the length of a UTF-8 sequence by its first byte (RFC 3629). */
function sequenceLength(first: number): number {
  if (first < 0x80) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}

/**
 * Returns the program's arguments with all their bytes, as `pathText`: Node replaces bytes that are not UTF-8
 * by U+FFFD.
 *
 * @param decoded Node's arguments, without the program itself
 * @throws UsageError if the bytes cannot be read
 */
export function exactArguments(decoded: readonly string[], source = '/proc/self/cmdline'): readonly string[] {
  const doubtful = decoded.find((word) => word.includes('\ufffd'));
  if (doubtful === undefined || platform() !== 'linux') return decoded;
  // proc_pid_cmdline(5): each argument ends with a NUL.
  const words = systemText(source).split('\0').slice(0, -1);
  const exact = words.slice(-decoded.length).map((word) => Buffer.from(word, 'latin1'));
  if (exact.length !== decoded.length || exact.some((bytes, at) => bytes.toString() !== decoded[at])) {
    throw new UsageError(`cannot read the bytes of the argument ${printable(doubtful)}: it is not UTF-8`, {
      code: 'ARGUMENT_BYTES',
      hint: 'use a name in UTF-8, or mount /proc: mount -t proc proc /proc',
    });
  }
  return exact.map((bytes) => pathText(bytes));
}

/** Quotes a word for sh(1) if necessary. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

/** Limit on symlinks in one path: the kernel's (path_resolution(7)). */
export const MAX_SYMLINKS = 40;
/** Limits of a name and of a symlink's target, in bytes: NAME_MAX, and PATH_MAX without its NUL. */
export const MAX_NAME_BYTES = 255;
export const MAX_TARGET_BYTES = 4095;
