import { IntegrityError } from '../errors.ts';
import type { Entry } from './entry.ts';

/** An entry that was put at a path. A hard link is a further name of the file at `linkPath`. */
export interface Written extends Pick<
  Entry,
  | 'mode'
  | 'uid'
  | 'gid'
  | 'size'
  | 'mtimeSeconds'
  | 'mtimeNanoseconds'
  | 'deviceMajor'
  | 'deviceMinor'
  | 'xattrs'
> {
  readonly type: Entry['type'];
  /** From the root, no component a symlink, no slash at either end; the root itself is empty. One character a byte, as all names here. */
  readonly path: string;
  /** Target of a symlink, path of a hard link's other name, else empty. */
  readonly linkPath: string;
  /** Where the content of a file is kept, for readers of the list who look for it elsewhere than at `path`. */
  readonly contents?: string | undefined;
  /** dlrootfs made it, not a layer. */
  readonly own?: boolean | undefined;
}

/** The file at a path was removed, with all below it. */
export interface Removed {
  readonly type: 'removed';
  readonly path: string;
}

/** One thing that was done to a tree. */
export type TreeChange = Written | Removed;

/** The types of mtree(5), and two types of dlrootfs. */
const mtreeTypes = {
  file: 'file',
  directory: 'dir',
  symlink: 'link',
  character: 'char',
  block: 'block',
  fifo: 'fifo',
  hardlink: 'hardlink',
  removed: 'removed',
} as const satisfies Record<TreeChange['type'], string>;
const types = new Map(
  Object.entries(mtreeTypes).map(([type, name]) => [name as string, type as TreeChange['type']]),
);

/**
 * A change as a line in the manner of mtree(5): the path, then `keyword=value`, with a `\ooo` for each byte that could be misread. `time` is
 * whole seconds and, after the dot, nanoseconds to be added to them; `xattr.NAME` is base64, as go-mtree has it. The types
 * `removed` and `hardlink` are dlrootfs's; the `link` of a hard link is the file's other name. One character per byte.
 */
export function composeLine(change: TreeChange): string {
  const { type } = change;
  const start = `${change.path === '' ? '.' : `./${escape(change.path)}`} type=${mtreeTypes[type]}`;
  if (type === 'removed') return `${start}\n`;

  const own = change.own === true ? ' tags=own' : '';
  const contents = change.contents === undefined ? '' : ` contents=${change.contents}`;
  const xattrs = change.xattrs === undefined ? '' : composeXattrs(change.xattrs);
  if (type === 'hardlink') return `${start} link=./${escape(change.linkPath)}${xattrs}${contents}\n`;

  let line = `${start} uid=${change.uid} gid=${change.gid} mode=${change.mode.toString(8)}`;
  const nanoseconds = change.mtimeNanoseconds;
  line += ` time=${change.mtimeSeconds}.${nanoseconds === 0 ? '000000000' : String(nanoseconds).padStart(9, '0')}`;
  if (type === 'file') line += ` size=${change.size}`;
  else if (type === 'symlink') line += ` link=${escape(change.linkPath)}`;
  else if (type === 'character' || type === 'block') {
    line += ` device=linux,${change.deviceMajor},${change.deviceMinor}`;
  }
  return `${line}${xattrs}${contents}${own}\n`;
}

/** Keywords with what ends them, in the order in which `composeLine` writes them. */
const keywords = [
  'type=',
  'uid=',
  'gid=',
  'mode=',
  'time=',
  'size=',
  'link=',
  'device=',
  'xattr.',
  'contents=',
  'tags=',
] as const;

/**
 * Reads a line of `composeLine`, without its end: from `start` to `end` of `text`. The last one of repeated keywords counts; unknown ones
 * are skipped. What should be a number and is none is NaN.
 *
 * @throws IntegrityError for an unknown type
 */
export function parseLine(text: string, start = 0, end = text.length): TreeChange {
  let at = endOfWord(text, start, end);
  const path = at === start + 1 ? '' : unescapeOctal(text.slice(start + 2, at));
  let type: TreeChange['type'] | undefined;
  let xattrs: Map<string, Uint8Array> | undefined;
  const change: { -readonly [Name in keyof Written]: Written[Name] } = {
    type: 'file',
    path,
    linkPath: '',
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
    contents: undefined,
    own: undefined,
  };
  let likely = 0;
  while (at < end) {
    const word = at + 1;
    at = endOfWord(text, word, end);
    const found = keywordAt(text, word, likely);
    const keyword = keywords[found];
    if (keyword === undefined) continue;
    likely = found + 1;
    const value = word + keyword.length;
    // Without a string for each number, of which there are a million.
    switch (keyword) {
      case 'type=':
        type = types.get(text.slice(value, at));
        break;
      case 'uid=':
        change.uid = numberIn(text, value, at);
        break;
      case 'gid=':
        change.gid = numberIn(text, value, at);
        break;
      case 'mode=':
        change.mode = numberIn(text, value, at, 8);
        break;
      case 'time=': {
        const dot = find(DOT, text, value, at);
        change.mtimeSeconds = numberIn(text, value, dot);
        change.mtimeNanoseconds = numberIn(text, dot + 1, at);
        break;
      }
      case 'size=':
        change.size = numberIn(text, value, at);
        break;
      case 'link=':
        change.linkPath = unescapeOctal(text.slice(value, at));
        break;
      case 'device=': {
        const [, major, minor] = text.slice(value, at).split(',');
        change.deviceMajor = Number(major);
        change.deviceMinor = Number(minor);
        break;
      }
      case 'contents=':
        change.contents = text.slice(value, at);
        break;
      case 'tags=':
        change.own = text.slice(value, at) === 'own' || undefined;
        break;
      default: {
        const sign = find(EQUALS_SIGN, text, value, at);
        if (sign === at) continue;
        const name = unescapeOctal(text.slice(value, sign));
        (xattrs ??= new Map()).set(name, Buffer.from(text.slice(sign + 1, at), 'base64'));
      }
    }
  }
  if (type === undefined) {
    throw new IntegrityError('a list of changes has a line of an unknown type', {
      code: 'BAD_RECORD',
      hint: 'the record of the layer is damaged: pull the image again into another directory',
    });
  }
  if (type === 'removed') return { type, path };
  change.type = type;
  change.xattrs = xattrs;
  if (type === 'hardlink') change.linkPath = change.linkPath.slice(2);
  return change;
}

function endOfWord(text: string, start: number, end: number): number {
  const space = text.indexOf(' ', start);
  return space === -1 || space > end ? end : space;
}

/** Where a character is between `start` and `end`; `end` where it is not. Not by `indexOf`, which looks through all of the text for it. */
function find(character: number, text: string, start: number, end: number): number {
  let at = start;
  while (at < end && text.charCodeAt(at) !== character) at += 1;
  return at;
}

/** Which of `keywords` a word begins with, -1 for none of them. The search begins with the likely one. */
function keywordAt(text: string, start: number, likely: number): number {
  for (let tried = 0; tried < keywords.length; tried += 1) {
    const number = (likely + tried) % keywords.length;
    if (text.startsWith(keywords[number]!, start)) return number;
  }
  return -1;
}

function numberIn(text: string, start: number, end: number, base = 10): number {
  const isNegative = text.charCodeAt(start) === MINUS;
  let value = 0;
  for (let at = isNegative ? start + 1 : start; at < end; at += 1) {
    const digit = text.charCodeAt(at) - ZERO;
    if (digit < 0 || digit >= base) return Number.NaN;
    value = value * base + digit;
  }
  return isNegative ? -value : value;
}

const MINUS = '-'.charCodeAt(0);
const ZERO = '0'.charCodeAt(0);
const DOT = '.'.charCodeAt(0);
const EQUALS_SIGN = '='.charCodeAt(0);

function composeXattrs(xattrs: ReadonlyMap<string, Uint8Array>): string {
  let text = '';
  for (const [name, value] of xattrs) {
    text += ` xattr.${escape(name)}=${Buffer.from(value).toString('base64')}`;
  }
  return text;
}

/** Everything but visible ASCII, and what has a meaning in a line: as vis(3) writes it with VIS_OCTAL. */
function escape(text: string): string {
  if (!/[^!-~]|[\\#=]/.test(text)) return text;
  return text.replaceAll(
    /[^!-~]|[\\#=]/g,
    (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`,
  );
}

/** The text with its bytes in place of their escapes: `\ooo`, as mtree(5) and proc_pid_mountinfo(5) have them. */
export function unescapeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
