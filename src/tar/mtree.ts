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

/**
 * Reads a line of `composeLine`, without its end. The last one of repeated keywords counts; unknown ones are skipped.
 *
 * @throws IntegrityError for an unknown type
 */
export function parseLine(line: string): TreeChange {
  let end = endOfWord(line, 0);
  const path = end === 1 ? '' : unescapeOctal(line.slice(2, end));
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
  while (end < line.length) {
    const start = end + 1;
    end = endOfWord(line, start);
    // In the order in which they come; without a string for each keyword, of which there are a million.
    if (line.startsWith('type=', start)) type = types.get(line.slice(start + 5, end));
    else if (line.startsWith('uid=', start)) change.uid = Number(line.slice(start + 4, end));
    else if (line.startsWith('gid=', start)) change.gid = Number(line.slice(start + 4, end));
    else if (line.startsWith('mode=', start)) change.mode = Number.parseInt(line.slice(start + 5, end), 8);
    else if (line.startsWith('time=', start)) {
      const time = line.slice(start + 5, end);
      const dot = time.indexOf('.');
      change.mtimeSeconds = Number(time.slice(0, dot));
      change.mtimeNanoseconds = Number(time.slice(dot + 1));
    } else if (line.startsWith('size=', start)) change.size = Number(line.slice(start + 5, end));
    else if (line.startsWith('link=', start)) change.linkPath = unescapeOctal(line.slice(start + 5, end));
    else if (line.startsWith('device=', start)) {
      const [, major, minor] = line.slice(start + 7, end).split(',');
      change.deviceMajor = Number(major);
      change.deviceMinor = Number(minor);
    } else if (line.startsWith('contents=', start)) change.contents = line.slice(start + 9, end);
    else if (line.startsWith('tags=', start)) change.own = line.slice(start + 5, end) === 'own' || undefined;
    else if (line.startsWith('xattr.', start)) {
      const sign = line.indexOf('=', start);
      if (sign === -1 || sign > end) continue;
      xattrs ??= new Map();
      xattrs.set(
        unescapeOctal(line.slice(start + 6, sign)),
        Buffer.from(line.slice(sign + 1, end), 'base64'),
      );
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

function endOfWord(line: string, start: number): number {
  const end = line.indexOf(' ', start);
  return end === -1 ? line.length : end;
}

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
