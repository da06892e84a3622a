import { printable } from '../errors.ts';
import { pathText } from '../sys/os-path.ts';
import type { BytePath, InodeType } from '../tar/entry.ts';
import type { FileStat } from '../rootfs/filesystem.ts';

/** The types of files at a path; a `socket` exists only in a directory. */
export type FileType = InodeType | 'socket';

/** One difference at a path. */
export interface Change {
  /** `link`: the path is a further name of another file in only one tree, or of different files. */
  readonly what:
    | 'type'
    | 'mode'
    | 'owner'
    | 'size'
    | 'content'
    | 'mtime'
    | 'target'
    | 'device'
    | 'link'
    | 'xattr';
  /** The name of an extended attribute. */
  readonly name?: string;
  /** The value in the (first) image; absent if it has none, and for `content`. Attributes are in base64. */
  readonly expected?: string;
  /** The value in the directory or the second image, likewise. */
  readonly found?: string;
}

/** The differences at one path. */
export interface Difference<Kind extends string = string> {
  /**
   * The path from the root of the image: `/etc/motd`. A byte that is not UTF-8 is a lone surrogate, U+DC80 to
   * U+DCFF (PEP 383).
   */
  readonly path: string;
  readonly kind: Kind | 'changed';
  /**
   * The type of the existing or the expected file. A directory in only one tree is listed once, for its whole
   * content.
   */
  readonly type: FileType;
  /** Empty, unless the kind is `changed`. */
  readonly changes: readonly Change[];
}

/** The compared properties of a path. */
export interface Comparable extends Omit<FileStat, 'identity' | 'ctimeSeconds' | 'ctimeNanoseconds'> {
  readonly path: BytePath;
  /** Equal for two names of one inode. */
  readonly inode: number | string;
  /** Target of a symlink, else empty. */
  readonly linkPath: BytePath;
  /** Undefined without any. */
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
}

/** Decides which differences are reported. */
export interface Rules {
  hasMode(expected: Comparable, found: Comparable): boolean;
  hasOwner(expected: Comparable, found: Comparable): boolean;
  hasTime(expected: Comparable, found: Comparable): boolean;
  xattrs(expected: Comparable, found: Comparable): ComparedXattrs;
}

export type Xattrs = ReadonlyMap<string, Uint8Array>;

/** The extended attributes to compare: `found` must have all of `needed`, and no others than `allowed`. */
export interface ComparedXattrs {
  readonly needed: Xattrs;
  readonly allowed: Xattrs;
  readonly found: Xattrs;
}

/** All properties must be equal. */
export const exactRules: Rules = {
  hasMode: (expected, found) => expected.mode === found.mode,
  hasOwner: (expected, found) => expected.uid === found.uid && expected.gid === found.gid,
  hasTime: (expected, found) =>
    expected.mtimeSeconds === found.mtimeSeconds && expected.mtimeNanoseconds === found.mtimeNanoseconds,
  xattrs: (expected, found) => {
    const wanted = expected.xattrs ?? noXattrs;
    return { needed: wanted, allowed: wanted, found: found.xattrs ?? noXattrs };
  },
};

export const noXattrs: Xattrs = new Map();

/**
 * Returns the differences between two entries of one path, in a fixed order. Contents and links are not
 * compared.
 */
export function compareEntries(expected: Comparable, found: Comparable, rules: Rules): Change[] {
  const changes: Change[] = [];
  const note = (what: Change['what'], text: (of: Comparable) => string): void =>
    void changes.push({ what, expected: text(expected), found: text(found) });
  if (expected.type !== found.type) {
    note('type', fileTypeOf);
    return changes;
  }
  const { type } = expected;
  if (type !== 'symlink' && !rules.hasMode(expected, found)) note('mode', modeText);
  if (!rules.hasOwner(expected, found)) note('owner', ({ uid, gid }) => `${uid}:${gid}`);
  if (type === 'file' && expected.size !== found.size) note('size', ({ size }) => String(size));
  if (type === 'symlink' && expected.linkPath !== found.linkPath)
    note('target', ({ linkPath }) => pathText(Buffer.from(linkPath, 'latin1')));
  const device = ({ deviceMajor, deviceMinor }: Comparable): string => `${deviceMajor}:${deviceMinor}`;
  if (device(expected) !== device(found)) note('device', device);
  if (!rules.hasTime(expected, found)) note('mtime', timeText);
  changes.push(...compareXattrs(rules.xattrs(expected, found)));
  return changes;
}

function compareXattrs({ needed, allowed, found }: ComparedXattrs): Change[] {
  const changes: Change[] = [];
  if (needed.size === 0 && found.size === 0) return changes;
  for (const name of [...new Set([...needed.keys(), ...found.keys()])].toSorted()) {
    const [wanted, there] = [allowed.get(name), found.get(name)];
    if (there === undefined ? !needed.has(name) : wanted !== undefined && Buffer.compare(wanted, there) === 0)
      continue;
    changes.push({
      what: 'xattr',
      name: pathText(Buffer.from(name, 'latin1')),
      ...(wanted && { expected: Buffer.from(wanted).toString('base64') }),
      ...(there && { found: Buffer.from(there).toString('base64') }),
    });
  }
  return changes;
}

export function fileTypeOf({ type }: Pick<Comparable, 'type'>): FileType {
  // An inode is never a `hardlink`, which is a type of archive entries.
  return type === 'other' || type === 'hardlink' ? 'socket' : type;
}

function modeText({ mode }: Comparable): string {
  return mode.toString(8).padStart(4, '0');
}

/** Limit of a Date in milliseconds, before and after 1970. */
const LATEST_DATE = 8.64e15;

function timeText({ mtimeSeconds, mtimeNanoseconds }: Comparable): string {
  const fraction = String(mtimeNanoseconds).padStart(9, '0').replace(/0+$/, '');
  const end = fraction === '' ? '' : `.${fraction}`;
  const milliseconds = mtimeSeconds * 1000;
  if (Math.abs(milliseconds) > LATEST_DATE) return `@${mtimeSeconds}${end}`;
  return `${new Date(milliseconds).toISOString().slice(0, -'.000Z'.length)}${end}Z`;
}

/** Returns the path for output: from `/`. */
export function shownPath(path: BytePath): string {
  return `/${pathText(Buffer.from(path, 'latin1'))}`;
}

/**
 * Returns a printable line: `changed /etc/motd: mode 0644→0600, content`, or `missing /srv/` for a directory
 * with its content.
 */
export function differenceText({ path, kind, type, changes }: Difference): string {
  const slash = type === 'directory' && kind !== 'changed' && path !== '/' ? '/' : '';
  const told = changes.map(changeText).join(', ');
  return `${kind} ${printable(path, Infinity)}${slash}${told === '' ? '' : `: ${told}`}`;
}

function changeText({ what, name, expected, found }: Change): string {
  if (what === 'content') return what;
  if (what === 'xattr') {
    const state = found === undefined ? ' missing' : expected === undefined ? ' extra' : '';
    return `xattr ${printable(name!)}${state}`;
  }
  return `${what} ${printable(expected ?? 'none', Infinity)}→${printable(found ?? 'none', Infinity)}`;
}
