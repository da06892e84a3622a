/**
 * Prints a directory tree as text, one line per name, for comparisons:
 *
 *     drwxr-xr-x 0:0 1000000000.000000000 etc/
 *     -rw-r--r-- 0:0 2 1000000000.000000000 8f434346648f etc/motd =1 {user.x=79}
 *     lrwxrwxrwx 0:0 1000000000.000000000 lib -> usr/lib
 *     crw------- 0:0 1,3 1000000000.000000000 dev/null
 *
 * `=1` marks the names of one file, `{…}` has its extended attributes in hex, and `8f43…` is the start of its
 * content's sha256.
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
  type BigIntStats,
} from 'node:fs';
import { readXattrs } from './xattrs.ts';

export interface TreeOptions {
  /** Names at the root that are not printed. */
  readonly without?: readonly string[];
  /** Properties that are not printed. */
  readonly hide?: readonly ('owner' | 'mode' | 'time' | 'xattrs' | 'nanoseconds')[];
  /** True: contents are printed as text in quotes, instead of their size and hash. */
  readonly text?: boolean;
  /** True: the root itself has a line, `./`. */
  readonly root?: boolean;
}

/**
 * Prints the tree at `root`, sorted by path; each line ends with a newline. Paths may have any bytes and any
 * length.
 */
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

/**
 * Returns the differences between two printed trees, as lines with `-` (only in `expected`) and `+` (only in
 * `actual`).
 */
export function treeDiff(expected: string, actual: string): string {
  const left = new Set(expected.split('\n'));
  const right = new Set(actual.split('\n'));
  const gone = [...left].filter((line) => !right.has(line)).map((line) => `-${line}`);
  const come = [...right].filter((line) => !left.has(line)).map((line) => `+${line}`);
  return [...gone, ...come].toSorted((one, other) => (one.slice(1) < other.slice(1) ? -1 : 1)).join('\n');
}

/** `at` is a path through a descriptor, so that it is short in a directory of any depth. */
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

/** Undefined for a directory that this process may not read; its content is not printed. */
function openDirectory(path: Buffer): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return undefined;
    throw error;
  }
}

/** The printed properties of one name. */
export interface PrintedNode {
  /** The printed path; `.` for the root. */
  readonly path: string;
  /** The letter of ls(1) for the type. */
  readonly letter: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly device: string;
  readonly mtimeNanoseconds: bigint;
  readonly links: number;
  /** Equal for all names of a file. */
  readonly identity: string;
  readonly target: () => Uint8Array;
  readonly content: () => { readonly text: string; readonly hash: string };
  readonly xattrs: () => readonly (readonly [name: string, value: Uint8Array])[];
}

/** Returns the line of one name; `groups` has the printed files that have several names. */
export function formatNode(node: PrintedNode, options: TreeOptions, groups: Map<string, string>): string {
  const { letter, path } = node;
  const hidden = new Set(options.hide);
  const fields: string[] = [letter + (hidden.has('mode') ? '' : permissions(node.mode))];
  if (!hidden.has('owner')) fields.push(`${node.uid}:${node.gid}`);
  if (letter === '-' && options.text !== true) fields.push(String(node.size));
  if (letter === 'c' || letter === 'b') fields.push(node.device);
  if (!hidden.has('time')) fields.push(time(node.mtimeNanoseconds, hidden.has('nanoseconds')));
  if (letter === '-' && options.text !== true) fields.push(node.content().hash);
  fields.push(letter === 'd' ? `${path}/` : path);
  if (letter === '-' && options.text === true) fields.push(node.content().text);
  if (letter === 'l') fields.push('->', escapeBytes(node.target()));
  if (letter !== 'd' && node.links > 1) {
    const group = groups.get(node.identity) ?? `=${groups.size + 1}`;
    groups.set(node.identity, group);
    fields.push(group);
  }
  if (!hidden.has('xattrs')) {
    const xattrs = node.xattrs().map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`);
    if (xattrs.length > 0) fields.push(`{${xattrs.join(' ')}}`);
  }
  return fields.join(' ');
}

function printLine(
  text: string,
  bytes: Buffer,
  path: string,
  options: TreeOptions,
  groups: Map<string, string>,
): string {
  const stat = lstatSync(bytes, { bigint: true });
  return formatNode(
    {
      path,
      letter: typeLetter(stat),
      mode: Number(stat.mode),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      size: Number(stat.size),
      device: deviceOf(stat.rdev),
      mtimeNanoseconds: stat.mtimeNs,
      links: Number(stat.nlink),
      identity: `${stat.dev}:${stat.ino}`,
      target: () => readlinkSync(bytes, { encoding: 'buffer' }),
      content: () =>
        options.text === true ? { text: textOf(bytes), hash: '' } : { text: '', hash: contentHash(bytes) },
      xattrs: () => (bytes.equals(Buffer.from(text)) ? readXattrs(text) : []),
    },
    options,
    groups,
  );
}

function typeLetter(stat: BigIntStats): string {
  if (stat.isDirectory()) return 'd';
  if (stat.isSymbolicLink()) return 'l';
  if (stat.isCharacterDevice()) return 'c';
  if (stat.isBlockDevice()) return 'b';
  if (stat.isFIFO()) return 'p';
  return stat.isFile() ? '-' : '?';
}

/** The permissions in the format of ls(1). */
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

/** Reverses makedev(3). */
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

/** Returns printable ASCII and UTF-8 as text, and any other byte as `\xNN`. */
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
