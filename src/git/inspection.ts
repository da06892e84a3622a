import type { BigIntStats } from 'node:fs';
import type { Written } from '../tar/mtree.ts';
import { secondsAndRest } from './index-file.ts';
import { changesOf, type Records } from './record.ts';
import type { RootfsState } from './rootfs-state.ts';
import type { FileType, TreeFiles } from './tree-files.ts';
import { isHoldable, unquotePath } from './tree-path.ts';
import type { Repository } from './repository.ts';

/** Something on disk. */
export interface Found {
  readonly path: string;
  readonly type: FileType;
}

/** What is on disk, against what should be. */
export interface Inspection {
  /** Paths whose content is in no commit and no record. */
  readonly changed: readonly string[];
  /** What is the user's: neither in the commit that is checked out nor in any record. */
  readonly strangers: readonly Found[];
  /** What a record knows and git cannot hold, of any layer; directories too. */
  readonly ours: readonly Found[];
  /** Names of all extended attributes in the records. */
  readonly attributes: ReadonlySet<string>;
}

interface Version {
  readonly type: FileType;
  /** Undefined: a second name of a file, which may be any. */
  readonly size?: number;
  readonly mtimeSeconds?: number;
}

/**
 * Looks through the rootfs for what the user did to it.
 *
 * @param current what is checked out
 */
export async function inspect(
  repository: Repository,
  files: TreeFiles,
  current: RootfsState,
  records: Records,
): Promise<Inspection> {
  const changed = await changedFiles(repository);
  const strangers: Found[] = [];
  const ours: Found[] = [];
  const { known, attributes } = unholdable(records);
  for (const [path, type] of files.walk()) {
    const versions = known.get(path)?.filter((version) => version.type === type);
    if (versions === undefined || versions.length === 0) {
      if (current.find(path)?.inode.type !== type) strangers.push({ path, type });
      continue;
    }
    ours.push({ path, type });
    if (type === 'file' && !isOneOf(files.stat(path), versions)) changed.push(path);
  }
  return { changed, strangers, ours, attributes };
}

function isOneOf(stat: BigIntStats, versions: readonly Version[]): boolean {
  const [seconds] = secondsAndRest(stat.mtimeNs);
  return versions.some(
    ({ size, mtimeSeconds }) =>
      size === undefined || (BigInt(size) === stat.size && BigInt(mtimeSeconds!) === seconds),
  );
}

/** Files of the checked-out commit that are not as they are in it. */
async function changedFiles(repository: Repository): Promise<string[]> {
  const status = await repository.run(['status', '--porcelain=v1', '--untracked-files=no', '--no-renames']);
  return status
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => unquotePath(line.slice(3)));
}

/** All versions that any layer has of what git cannot hold. */
function unholdable(records: Records): { known: Map<string, Version[]>; attributes: Set<string> } {
  const known = new Map<string, Version[]>();
  const attributes = new Set<string>();
  for (const [id, record] of records) {
    for (const change of changesOf(record, id)) {
      if (change.type === 'removed') continue;
      for (const name of change.xattrs?.keys() ?? []) attributes.add(name);
      const versions = versionsOf(change);
      if (versions.length > 0) known.set(change.path, [...(known.get(change.path) ?? []), ...versions]);
    }
  }
  return { known, attributes };
}

function versionsOf({ type, path, size, mtimeSeconds }: Written): Version[] {
  if (type === 'hardlink') {
    const special: Version[] = [{ type: 'character' }, { type: 'block' }, { type: 'fifo' }];
    return isHoldable(path, 'file') ? special : [...special, { type: 'file' }, { type: 'symlink' }];
  }
  if ((type === 'file' || type === 'symlink') && isHoldable(path, type)) return [];
  return [{ type, size, mtimeSeconds }];
}
