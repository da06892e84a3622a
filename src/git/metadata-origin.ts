import { geteuid, umask } from 'node:process';
import { type History, type Records, chainOf, playRecord } from './history.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import type { Inode } from './inodes.ts';
import { RootfsState } from './rootfs-state.ts';
import type { FileStat } from '../rootfs/filesystem.ts';
import { systemAttribute } from '../rootfs/metadata.ts';
import { isInitialUserNamespace } from '../sys/privileges.ts';
import { accessList, modeWithList } from '../tar/access-list.ts';

/** What is on disk of a path whose metadata is not what it should be. */
export interface Suspect {
  readonly stat: FileStat;
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
}

/** What is known of the user who pulled the rootfs. */
export interface Puller {
  /** Of `.git`. */
  readonly uid: number;
  readonly gid: number;
  /** Could not give owners, devices and the attributes of root. */
  readonly isUnprivileged: boolean;
}

export function pullerOf(files: RootfsFiles): Puller {
  const { uid = 0, gid = 0 } = files.stat('.git') ?? {};
  const isRoot = uid === 0 && geteuid?.() === 0 && isInitialUserNamespace();
  return { uid, gid, isUnprivileged: !isRoot };
}

/** Whether what is on disk has the owner, mode and extended attributes of an inode, as far as the puller could give them. */
export function hasMetadata({ stat, xattrs }: Suspect, inode: Inode, puller: Puller): boolean {
  const isOwner = stat.uid === inode.uid && stat.gid === inode.gid;
  if (!isOwner && !(puller.isUnprivileged && stat.uid === puller.uid)) return false;
  const wanted = inode.xattrs ?? new Map<string, Uint8Array>();
  const list = wanted.get(accessList);
  if (stat.type !== 'symlink') {
    const mode = list ? modeWithList(inode.mode, list) : inode.mode;
    if (stat.mode !== mode && (isOwner || stat.mode !== (mode & ~0o6000))) return false;
  }
  if (!xattrs) return true;
  for (const [name, value] of xattrs) {
    if (systemAttribute.test(name)) continue;
    const expected = wanted.get(name);
    if (!expected || !Buffer.from(expected).equals(value)) return false;
  }
  if (puller.isUnprivileged) return true;
  return [...wanted.keys()].every((name) => xattrs.has(name) || !/^(?:user|trusted|security)\./.test(name));
}

/** Whether a file looks as git makes one: a plain `git checkout` may have written it. Its time is then not the layer's. */
export function isMadeByGit(
  inode: Inode,
  stat: FileStat,
  xattrs: ReadonlyMap<string, Uint8Array> | undefined,
  puller: Puller,
): boolean {
  if (stat.mtimeSeconds === inode.mtimeSeconds && stat.mtimeNanoseconds === inode.mtimeNanoseconds)
    return false;
  if (stat.uid !== puller.uid || stat.gid !== puller.gid) return false;
  if ([...(xattrs?.keys() ?? [])].some((name) => !systemAttribute.test(name))) return false;
  const open = stat.type === 'symlink' || (stat.mode & 0o111) !== 0 ? 0o777 : 0o666;
  return [0o022, umask()].some((mask) => stat.mode === (open & ~mask)) || stat.type === 'symlink';
}

/** Of paths whose metadata is not that of the layer that is checked out, those that no other layer explains. */
export function unexplained(
  suspects: ReadonlyMap<string, Suspect>,
  puller: Puller,
  history: History,
  records: Records,
): string[] {
  const left = new Map(suspects);
  const isBelow = new Set([...history.values()].map(({ below }) => below));
  for (const tip of [...history.values()].filter(({ id }) => !isBelow.has(id))) {
    if (left.size === 0) break;
    const state = new RootfsState();
    for (const layer of chainOf(history, tip)) {
      playRecord(state, records, layer);
      for (const [path, suspect] of left) {
        const inode = state.find(path);
        if (inode?.type === suspect.stat.type && hasMetadata(suspect, inode, puller)) left.delete(path);
      }
    }
  }
  return [...left.keys()].toSorted((one, other) => (one < other ? -1 : 1));
}
