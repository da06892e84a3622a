import { constants } from 'node:os';
import { SyscallError } from '../sys/os-error.ts';
import { accessListXattr, defaultAccessListXattr, modeWithList } from '../tar/access-list.ts';
import { displayPath, type Entry, type Owner } from '../tar/entry.ts';
import type { Creator } from './creator.ts';
import { type Filesystem, granted, type Mtime, type InodeName, statusOf } from './filesystem.ts';
import type { NotRestored } from './not-restored.ts';

// Owner, attributes, mode and times of one file, by its name or its descriptor. Several threads use this.

const { EDQUOT, EINVAL, EIO, ENOSYS, ENOTSUP, EPERM, EROFS } = constants.errno;

/** Attributes that the system sets, or that overlayfs reserves for itself. */
export const systemXattr = /^(?:security\.(?:selinux|ima|evm|SMACK64)|trusted\.overlay\.|user\.overlay\.)/;

/** The attribute of a file's capabilities: capabilities(7). */
export const capabilityXattr = 'security.capability';
/** Errors of setxattr(2) that come from the disk, not from the attribute. */
const diskFailed = new Set([-EIO, -EROFS, -EDQUOT]);

/** S_ISUID and S_ISGID of inode(7). */
export const SET_ID_BITS = 0o6000;

/** (uid_t) -1: chown(2) takes it for "do not change the owner", so no user has this id. */
const nobody = 0xffff_ffff;

/** Largest time in seconds, in 2038, that every file system can store. */
const latestCommon = 0x7fff_ffff;

/** Errors of chown(2): this process lacks permission, or the number is not mapped in its user namespace. */
const ownerDenied = new Set([-EPERM, -EINVAL, -ENOSYS, -ENOTSUP]);

/** The part of a run that this file uses. */
export type MetadataState = {
  readonly counts: NotRestored;
  readonly filesystem: Pick<
    Filesystem,
    'stat' | 'setOwner' | 'setMode' | 'setTimes' | 'setXattr' | 'removeXattr'
  >;
  readonly creator: Pick<Creator, 'uid' | 'gid' | 'umask' | 'careful'>;
};

/**
 * Gives `node` the owner of `entry`. An owner that the system denies is counted.
 *
 * @param known the node's present owner; undefined: unknown
 * @returns whether the owner is right now
 * @throws SyscallError for any other failure
 */
export function restoreOwner(
  run: MetadataState,
  node: InodeName,
  entry: Owner,
  known: Owner | undefined,
): boolean {
  const { uid, gid } = entry;
  if (known && known.uid === uid && known.gid === gid) return true;
  const result = run.filesystem.setOwner(node, uid, gid);
  if (result === 0 && ((uid !== nobody && gid !== nobody) || isOwner(run, node, uid, gid))) return true;
  if (result < 0 && !ownerDenied.has(result)) throw new SyscallError(result, 'set the owner');
  run.counts.owners += 1;
  return false;
}

function isOwner(run: MetadataState, node: InodeName, uid: number, gid: number): boolean {
  const stat = statusOf(run.filesystem, node);
  return stat?.uid === uid && stat.gid === gid;
}

/** Returns the owner that a new file has at first; undefined if unknown. */
export function newOwner(run: MetadataState): Owner | undefined {
  return run.creator.careful ? undefined : run.creator;
}

/** Returns true if a new file that was made with `mode` may have another mode. */
export function isModeDoubtful(run: MetadataState, mode: number): boolean {
  return run.creator.careful || (mode & run.creator.umask) !== 0;
}

/**
 * Returns the mode that a file may have. It drops setuid and setgid, and counts them, if the owner is wrong.
 */
function permittedMode(run: MetadataState, mode: number, ownerIsRight: boolean): number {
  if (ownerIsRight || (mode & SET_ID_BITS) === 0) return mode;
  run.counts.setuid += 1;
  return mode & ~SET_ID_BITS;
}

/**
 * Sets both times. Counts a time that is not exact, also one that the kernel has rounded for the file system.
 *
 * @throws SyscallError
 */
export function restoreTimes(run: MetadataState, node: InodeName, mtime: Mtime): void {
  const { mtimeSeconds: seconds, mtimeNanoseconds } = mtime;
  const result = granted(run.filesystem.setTimes(node, seconds, mtimeNanoseconds), 'set the time');
  const isKept = isCommon(seconds) || statusOf(run.filesystem, node)?.mtimeSeconds === seconds;
  if (result > 0 || !isKept) run.counts.times += 1;
}

function isCommon(seconds: number): boolean {
  return seconds >= 0 && seconds <= latestCommon;
}

function restoreMode(
  run: MetadataState,
  node: InodeName,
  mode: number,
  modeNow: number,
  isChanged: boolean,
): void {
  if (mode === modeNow && !isChanged && !isModeDoubtful(run, mode)) return;
  granted(run.filesystem.setMode(node, mode), 'set the mode');
}

/**
 * Sets extended attributes. Those that the system or the file system denies are counted.
 *
 * @returns `entry.mode`, with the access list applied if there is one: chmod(2) with it keeps the list
 * @throws SyscallError if the disk fails
 */
export function restoreXattrs(
  run: MetadataState,
  node: InodeName,
  entry: Pick<Entry, 'mode' | 'xattrs'>,
): number {
  let { mode } = entry;
  for (const [name, value] of entry.xattrs ?? []) {
    const result = run.filesystem.setXattr(node, name, value);
    if (result === 0 && name === accessListXattr) mode = modeWithList(mode, value);
    if (result === 0) continue;
    if (diskFailed.has(result))
      throw new SyscallError(result, `set the extended attribute ${displayPath(name)}`);
    if (name === capabilityXattr) run.counts.capabilities += 1;
    else run.counts.xattrs += 1;
  }
  return mode;
}

/** Removes the access lists that a new node inherited from its directory. */
export function removeInherited(run: MetadataState, node: InodeName, directory: boolean): void {
  run.filesystem.removeXattr(node, accessListXattr);
  if (directory) run.filesystem.removeXattr(node, defaultAccessListXattr);
}

/**
 * Sets owner, attributes, mode and times of a new file that is not a directory. The order is such that no
 * step undoes another.
 */
export function applyMetadata(
  run: MetadataState,
  node: InodeName,
  entry: Entry,
  modeNow: number | undefined,
): void {
  const ownerIsRight = restoreOwner(run, node, entry, newOwner(run));
  if (run.creator.careful) removeInherited(run, node, false);
  const ownMode = restoreXattrs(run, node, entry);
  if (modeNow !== undefined) {
    const mode = permittedMode(run, ownMode, ownerIsRight);
    restoreMode(run, node, mode, modeNow, entry.xattrs !== undefined);
  }
  restoreTimes(run, node, entry);
}

/** Returns true if `applyToOpenFile` is enough: no call needs the file's name, and it has no attributes. */
export function needsOnlyOpenFile(run: MetadataState, { uid, gid, xattrs, mtimeSeconds }: Entry): boolean {
  const areIds = uid >= 0 && uid < nobody && gid >= 0 && gid < nobody;
  return isCommon(mtimeSeconds) && areIds && !run.creator.careful && !xattrs;
}

/**
 * Does the work of `applyMetadata` for a file that `needsOnlyOpenFile`. The file was opened with the low nine
 * bits of its mode.
 */
export function applyToOpenFile(
  state: MetadataState,
  node: InodeName,
  entry: Owner & Mtime & Pick<Entry, 'mode'>,
): void {
  const ownerIsRight = restoreOwner(state, node, entry, newOwner(state));
  restoreMode(state, node, permittedMode(state, entry.mode, ownerIsRight), entry.mode & 0o777, false);
  restoreTimes(state, node, entry);
}
