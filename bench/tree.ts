import { spawnSync } from 'node:child_process';
import {
  lstatSync,
  openSync,
  closeSync,
  readSync,
  readdirSync,
  readlinkSync,
  type BigIntStats,
} from 'node:fs';

/** The differences between two trees: paths by kind of difference. */
export type Differences = Map<string, string[]>;

interface Tree {
  readonly root: string;
  /** Results of lstat by path (one character per byte). */
  readonly entries: ReadonlyMap<string, BigIntStats>;
  /** The first name of each file with several names, by its other names. */
  readonly firstNames: ReadonlyMap<string, string>;
  /** Lines of `getfattr` by path. */
  readonly xattrs: ReadonlyMap<string, string>;
}

/**
 * Compares entry by entry: existence, type, mode, owner, device, content, link target, names of the same
 * file, extended attributes, and times in whole seconds, as the reference keeps them. `ignored` has paths
 * that only `other` has.
 */
export function compareTrees(reference: string, other: string, ignored: ReadonlySet<string>): Differences {
  const differences: Differences = new Map();
  const note = (kind: string, path: string) => {
    const paths = differences.get(kind);
    if (paths === undefined) differences.set(kind, [path]);
    else paths.push(path);
  };
  const [a, b] = [scan(reference), scan(other)];
  for (const [path, here] of a.entries) {
    const there = b.entries.get(path);
    if (there === undefined) note('missing', path);
    else for (const kind of compareEntry(path, here, there, a, b)) note(kind, path);
  }
  for (const path of b.entries.keys()) if (!a.entries.has(path) && !ignored.has(path)) note('extra', path);
  return differences;
}

function* compareEntry(
  path: string,
  here: BigIntStats,
  there: BigIntStats,
  a: Tree,
  b: Tree,
): Generator<string> {
  const [pathA, pathB] = [bytePath(a.root, path), bytePath(b.root, path)];
  if (fileType(here) !== fileType(there)) {
    yield 'type';
    return;
  }
  if (here.mode !== there.mode) yield 'mode';
  if (here.uid !== there.uid || here.gid !== there.gid) yield 'owner';
  if (here.rdev !== there.rdev) yield 'device';
  if (here.mtimeNs / 1_000_000_000n !== there.mtimeNs / 1_000_000_000n)
    yield here.isDirectory() ? 'time of a folder' : 'time';
  if (here.isFile() && (here.size !== there.size || !sameContent(pathA, pathB))) yield 'content';
  if (here.isSymbolicLink() && !readlinkSync(pathA, 'buffer').equals(readlinkSync(pathB, 'buffer')))
    yield 'target';
  if (a.firstNames.get(path) !== b.firstNames.get(path)) yield 'hard link';
  if (a.xattrs.get(path) !== b.xattrs.get(path)) yield 'xattrs';
}

function scan(root: string): Tree {
  const entries = new Map<string, BigIntStats>();
  const names = new Map<bigint, string[]>();
  const walk = (folder: string) => {
    for (const name of readdirSync(bytePath(root, folder), { encoding: 'latin1' })) {
      const path = folder === '' ? name : `${folder}/${name}`;
      const stats = lstatSync(bytePath(root, path), { bigint: true });
      entries.set(path, stats);
      if (stats.isDirectory()) walk(path);
      else if (stats.nlink > 1n) names.set(stats.ino, [...(names.get(stats.ino) ?? []), path]);
    }
  };
  walk('');
  const firstNames = new Map<string, string>();
  for (const paths of names.values()) {
    const [first] = paths.toSorted();
    if (paths.length > 1) for (const path of paths) firstNames.set(path, first!);
  }
  return { root, entries, firstNames, xattrs: readXattrs(root) };
}

function readXattrs(root: string): Map<string, string> {
  const { stdout } = spawnSync('getfattr', ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '.'], {
    cwd: root,
    encoding: 'latin1',
    maxBuffer: 1 << 30,
  });
  const found = new Map<string, string>();
  for (const block of stdout.split('\n\n')) {
    const [head = '', ...lines] = block.trim().split('\n');
    if (head.startsWith('# file: ')) found.set(head.slice('# file: '.length), lines.toSorted().join('\n'));
  }
  return found;
}

function fileType(stats: BigIntStats): bigint {
  return stats.mode & 0o170000n;
}

/** One buffer for all files: a new one for each would be a mebibyte of fresh memory. */
const buffers = [Buffer.allocUnsafe(1 << 20), Buffer.allocUnsafe(1 << 20)] as const;

function sameContent(a: Buffer, b: Buffer): boolean {
  const [fileA, fileB] = [openSync(a, 'r'), openSync(b, 'r')];
  try {
    const [bufferA, bufferB] = buffers;
    for (;;) {
      const length = readSync(fileA, bufferA);
      if (length !== readSync(fileB, bufferB)) return false;
      if (length === 0) return true;
      if (bufferA.compare(bufferB, 0, length, 0, length) !== 0) return false;
    }
  } finally {
    closeSync(fileA);
    closeSync(fileB);
  }
}

function bytePath(root: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, 'latin1')]);
}
