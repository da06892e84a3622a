/**
 * A directory tree as text, one line for each name, to be compared as a whole:
 *
 *     drwxr-xr-x 0:0 1000000000.000000000 etc/
 *     -rw-r--r-- 0:0 2 1000000000.000000000 8f434346648f etc/motd =1 {user.x=79}
 *     lrwxrwxrwx 0:0 1000000000.000000000 lib -> usr/lib
 *     crw------- 0:0 1,3 1000000000.000000000 dev/null
 *
 * `=1` are the names of one file, `{…}` its extended attributes in hex, `8f43…` the beginning of its content's sha256.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  readlinkSync,
} from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { readXattrs } from './xattrs.ts';

export interface TreeOptions {
  /** Names at the root that are left out. */
  readonly without?: readonly string[];
  /** What is not told. */
  readonly hide?: readonly ('owner' | 'mode' | 'time' | 'xattrs' | 'nanoseconds')[];
  /** Tell the content of files as text in quotes, in place of their size and hash. */
  readonly text?: boolean;
  /** Whether the root itself has a line, `./`. */
  readonly root?: boolean;
}

/** The tree at `root`, sorted by path, each line ended. Paths may be of any bytes and any length. */
export function printTree(root: string, options: TreeOptions = {}): string {
  const lines: [path: string, line: string][] = [];
  const groups = new Map<string, string>();
  const handle = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const at = `/proc/self/fd/${handle}`;
    if (options.root === true)
      lines.push(['', printLine(`${at}/.`, Buffer.from(`${at}/.`), '.', options, groups)]);
    walk(at, '', options, groups, lines);
  } finally {
    closeSync(handle);
  }
  return lines
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([, line]) => `${line}\n`)
    .join('');
}

/** What is different between two printed trees, as lines with `-` (only in `expected`) and `+` (only in `actual`); empty when nothing is. */
export function treeDiff(expected: string, actual: string): string {
  const left = new Set(expected.split('\n'));
  const right = new Set(actual.split('\n'));
  const gone = [...left].filter((line) => !right.has(line)).map((line) => `-${line}`);
  const come = [...right].filter((line) => !left.has(line)).map((line) => `+${line}`);
  return [...gone, ...come].toSorted((one, other) => (one.slice(1) < other.slice(1) ? -1 : 1)).join('\n');
}

/** `at` is a path of a descriptor, so that it is short however deep the directory lies. */
function walk(
  at: string,
  path: string,
  options: TreeOptions,
  groups: Map<string, string>,
  lines: [string, string][],
): void {
  const names = readdirSync(at, { encoding: 'buffer' }).toSorted((one, other) => Buffer.compare(one, other));
  for (const name of names) {
    if (path === '' && options.without?.includes(name.toString())) continue;
    const inner = Buffer.concat([Buffer.from(`${at}/`), name]);
    const innerPath = (path === '' ? '' : `${path}/`) + escapeBytes(name);
    lines.push([innerPath, printLine(inner.toString(), inner, innerPath, options, groups)]);
    if (!lstatSync(inner).isDirectory()) continue;
    const handle = openDirectory(inner);
    if (handle === undefined) continue;
    try {
      walk(`/proc/self/fd/${handle}`, innerPath, options, groups, lines);
    } finally {
      closeSync(handle);
    }
  }
}

/** Undefined for a directory that this process may not read: what is in it is not told. */
function openDirectory(path: Buffer): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return undefined;
    throw error;
  }
}

function printLine(
  text: string,
  bytes: Buffer,
  path: string,
  options: TreeOptions,
  groups: Map<string, string>,
): string {
  const hidden = new Set(options.hide);
  const stat = lstatSync(bytes, { bigint: true });
  const mode = Number(stat.mode);
  const fields: string[] = [typeLetter(stat) + (hidden.has('mode') ? '' : permissions(mode))];
  if (!hidden.has('owner')) fields.push(`${stat.uid}:${stat.gid}`);
  if (stat.isFile() && options.text !== true) fields.push(String(stat.size));
  if (stat.isCharacterDevice() || stat.isBlockDevice()) fields.push(deviceOf(stat.rdev));
  if (!hidden.has('time')) fields.push(time(stat.mtimeNs, hidden.has('nanoseconds')));
  if (stat.isFile() && options.text !== true) fields.push(contentHash(bytes));
  fields.push(stat.isDirectory() ? `${path}/` : path);
  if (stat.isFile() && options.text === true) fields.push(textOf(bytes));
  if (stat.isSymbolicLink()) fields.push('->', escapeBytes(readlinkSync(bytes, { encoding: 'buffer' })));
  if (!stat.isDirectory() && stat.nlink > 1n) {
    const key = `${stat.dev}:${stat.ino}`;
    const group = groups.get(key) ?? `=${groups.size + 1}`;
    groups.set(key, group);
    fields.push(group);
  }
  if (!hidden.has('xattrs') && bytes.equals(Buffer.from(text))) {
    const xattrs = readXattrs(text).map(([name, value]) => `${name}=${value.toString('hex')}`);
    if (xattrs.length > 0) fields.push(`{${xattrs.join(' ')}}`);
  }
  return fields.join(' ');
}

function typeLetter(stat: BigIntStats): string {
  if (stat.isDirectory()) return 'd';
  if (stat.isSymbolicLink()) return 'l';
  if (stat.isCharacterDevice()) return 'c';
  if (stat.isBlockDevice()) return 'b';
  if (stat.isFIFO()) return 'p';
  return stat.isFile() ? '-' : '?';
}

/** As ls(1) shows them. */
export function permissions(mode: number): string {
  const letters = Array.from('rwxrwxrwx', (letter, index) => ((mode >> (8 - index)) & 1 ? letter : '-'));
  const special: [bit: number, place: number, both: string, alone: string][] = [
    [0o4000, 2, 's', 'S'],
    [0o2000, 5, 's', 'S'],
    [0o1000, 8, 't', 'T'],
  ];
  for (const [bit, place, both, alone] of special) {
    if (mode & bit) letters[place] = letters[place] === 'x' ? both : alone;
  }
  return letters.join('');
}

/** makedev(3) read backwards. */
function deviceOf(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return `${major},${minor}`;
}

function time(nanoseconds: bigint, whole: boolean): string {
  const billion = 1_000_000_000n;
  const rest = ((nanoseconds % billion) + billion) % billion;
  const seconds = (nanoseconds - rest) / billion;
  return whole ? String(seconds) : `${seconds}.${String(rest).padStart(9, '0')}`;
}

function textOf(path: Buffer): string {
  try {
    return JSON.stringify(readFileSync(path, 'latin1'));
  } catch {
    return '(unreadable)';
  }
}

function contentHash(path: Buffer): string {
  const hash = createHash('sha256');
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch {
    return '(unreadable)';
  }
  try {
    const buffer = Buffer.alloc(65_536);
    for (let length = readSync(file, buffer); length > 0; length = readSync(file, buffer)) {
      hash.update(buffer.subarray(0, length));
    }
  } finally {
    closeSync(file);
  }
  return hash.digest('hex').slice(0, 12);
}

/** Printable ASCII as it is, UTF-8 as text, any other byte as `\xNN`. */
export function escapeBytes(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString();
  // eslint-disable-next-line no-control-regex
  if (Buffer.from(text).equals(bytes) && !/[\u0000-\u001f\u007f-\u009f\\]/.test(text)) return text;
  return [...bytes]
    .map((byte) =>
      byte >= 0x20 && byte < 0x7f && byte !== 0x5c
        ? String.fromCharCode(byte)
        : `\\x${byte.toString(16).padStart(2, '0')}`,
    )
    .join('');
}
