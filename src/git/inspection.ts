import { createHash } from 'node:crypto';
import { constants } from 'node:os';
import { geteuid, umask } from 'node:process';
import { type History, changesOf, chainOf, playRecord } from './history.ts';
import { type IndexEntry, parseIndex } from './index-file.ts';
import type { Inode } from './inodes.ts';
import { type ObjectID, isHoldable, treeFile } from './trees.ts';
import type { Repository } from './repository.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import { RootfsState } from './rootfs-state.ts';
import { join, nameOf, parentPath } from '../rootfs/directories.ts';
import type { ByteName, Directory, FileStat } from '../rootfs/filesystem.ts';
import type { FileAtPath } from '../rootfs/work-tree.ts';
import { systemAttribute, SET_ID_BITS } from '../rootfs/metadata.ts';
import type { Written } from '../tar/mtree.ts';
import { isInitialUserNamespace } from '../sys/privileges.ts';
import { accessList, modeWithList } from '../tar/access-list.ts';

const { ENOENT } = constants.errno;

/** The files on disk, compared with the commit that is checked out. */
export interface FileInspection {
  /** Paths whose content is in no commit and no record. */
  readonly changed: readonly string[];
  /** Paths whose owner, mode or extended attributes are neither from a layer nor from git. */
  readonly altered: readonly string[];
  /** The user's files: neither in the commit that is checked out nor in any record. */
  readonly strangers: readonly FileAtPath[];
  /** All other files, from any layer. */
  readonly ours: readonly FileAtPath[];
  /** Blobs of files that are on disk as git holds them, each under no other name. */
  readonly verified: ReadonlyMap<string, ObjectID>;
}

/** In bytes. */
const LARGEST_INDEX = 1024 * 1024 * 1024;
const READ_SIZE = 1024 * 1024;

/**
 * Looks for changes that the user, or a container, made in the rootfs. It writes nothing.
 *
 * @param current what is checked out
 * @param history with the texts of its records
 * @param useIndex trust the index; after a killed checkout it may be wrong
 * @throws GitError where the index is damaged, the reason of the signal
 */
export async function inspectFiles(
  repository: Repository,
  current: RootfsState,
  history: History,
  useIndex: boolean,
): Promise<FileInspection> {
  const index = useIndex ? readIndex(repository.files) : undefined;
  const known = allVersions(history, !useIndex);
  const inspector = new Inspector(repository, current, known, index);
  await inspector.walk();
  const { changed, strangers, ours, verified } = inspector;
  const altered = unexplained(inspector.suspects, inspector.puller, history);
  return { changed, altered, strangers, ours, verified };
}

function readIndex(files: RootfsFiles): Map<string, IndexEntry> | undefined {
  const bytes = files.read('.git/index', LARGEST_INDEX);
  const stat = files.stat('.git/index');
  return bytes && stat ? parseIndex(bytes, stat.mtimeSeconds) : undefined;
}

class Inspector {
  readonly changed: string[] = [];
  readonly strangers: FileAtPath[] = [];
  readonly ours: FileAtPath[] = [];
  readonly verified = new Map<string, ObjectID>();
  readonly suspects = new Map<string, Suspect>();
  readonly puller: Puller;
  readonly #repository: Repository;
  readonly #files: RootfsFiles;
  readonly #current: RootfsState;
  readonly #known: ReadonlyMap<string, readonly Version[]>;
  readonly #index: ReadonlyMap<string, IndexEntry> | undefined;
  readonly #buffer = Buffer.allocUnsafe(READ_SIZE);

  constructor(
    repository: Repository,
    current: RootfsState,
    known: ReadonlyMap<string, readonly Version[]>,
    index: ReadonlyMap<string, IndexEntry> | undefined,
  ) {
    this.#repository = repository;
    this.#files = repository.files;
    this.#current = current;
    this.#known = known;
    this.#index = index;
    this.puller = pullerOf(this.#files);
  }

  async walk(): Promise<void> {
    const { yielder } = this.#repository;
    const waiting: [path: string, names: ReadonlyMap<string, number> | undefined][] = [
      ['', this.#current.root.children],
    ];
    const root = this.#current.find('');
    const rootStat = this.#files.stat('');
    if (root && rootStat) this.#compareMetadata(this.#files.filesystem.root, '.', '', root, rootStat);
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const [path, places] = next;
      const listed = this.#list(path);
      for (const name of listed ? new Set([...listed, ...(places?.keys() ?? [])]) : []) {
        const below = join(path, name);
        if (below === '.git') continue;
        const number = places?.get(name);
        const inode = number === undefined ? undefined : this.#current.get(number);
        const type = await this.#look(below, name, inode);
        if (type === 'directory') waiting.push([below, inode?.children]);
        if (yielder.isDue()) await yielder.pause();
      }
    }
    for (const [path, { id, mode, stage }] of this.#index ?? []) {
      const inode = this.#current.find(path);
      const recorded = inode && treeFile(path, inode);
      if (recorded && stage === 0 && recorded.id === id && recorded.mode === mode) continue;
      if (isHoldable(path, 'file')) this.changed.push(path);
    }
  }

  /** The names in a directory, none if it is missing; undefined where this process may not read it. */
  #list(path: string): ByteName[] | undefined {
    const directory = this.#files.directory(path);
    const names = directory ? this.#files.filesystem.list(directory) : [];
    return typeof names === 'number' ? undefined : names;
  }

  /** Compares a path with the commit and the records. Returns the type of its file: on disk, or of one that is missing there. */
  async #look(path: string, name: ByteName, inode: Inode | undefined): Promise<FileStat['type'] | undefined> {
    const { filesystem } = this.#files;
    const parent = this.#files.directory(parentPath(path));
    const stat = parent ? filesystem.stat(parent, name) : -ENOENT;
    const recorded = inode && treeFile(path, inode);
    if (!parent || typeof stat === 'number') {
      if (stat !== -ENOENT) return undefined;
      if (recorded) this.changed.push(path);
      return inode?.type;
    }
    const { type } = stat;
    const isPlace = inode?.type === type;
    const versions = this.#known.get(path)?.filter((version) => version.type === type) ?? [];
    (versions.length > 0 || isPlace ? this.ours : this.strangers).push({ path, type });
    if (isPlace) this.#compareMetadata(parent, name, path, inode, stat);
    if (recorded) await this.#compareContent(path, recorded, isPlace ? stat : undefined);
    else if (type === 'file' && versions.length > 0 && !isOneOf(stat, versions)) this.changed.push(path);
    return type;
  }

  /** Compares a file that git holds with the commit. @param stat undefined: another type of file is on disk */
  async #compareContent(
    path: string,
    { id, mode }: { readonly id: ObjectID; readonly mode: string },
    stat: FileStat | undefined,
  ): Promise<void> {
    if (!stat) {
      this.changed.push(path);
      return;
    }
    const entry = this.#index?.get(path);
    const isTracked = this.#index === undefined || entry !== undefined;
    const isExecutable = (stat.mode & 0o100) !== 0;
    const hasMode = mode === '120000' || (mode === '100755') === isExecutable;
    const isSame = isTracked && hasMode;
    const isCurrent = isSame && entry?.id === id && entry.isOf(stat);
    const hasContent = isCurrent || (await this.#hasContent(path, id, stat));
    if (hasContent && stat.links === 1) this.verified.set(path, id);
    if (!isSame || !hasContent) this.changed.push(path);
  }

  async #hasContent(path: string, id: ObjectID, { type, size }: FileStat): Promise<boolean> {
    const hash = createHash('sha1');
    if (type === 'symlink') {
      const parent = this.#files.directory(parentPath(path));
      const target = parent && this.#files.filesystem.readLink(parent, nameOf(path));
      if (typeof target !== 'string') return false;
      return hash.update(`blob ${target.length}\0`).update(target, 'latin1').digest('hex') === id;
    }
    hash.update(`blob ${size}\0`);
    let rest = size;
    for (const piece of this.#files.pieces(path, this.#buffer)) {
      hash.update(piece);
      rest -= piece.length;
      if (rest < 0) break;
      await this.#repository.yielder.pause();
    }
    return rest === 0 && hash.digest('hex') === id;
  }

  #compareMetadata(parent: Directory, name: ByteName, path: string, inode: Inode, stat: FileStat): void {
    if (inode.timeless) return;
    const read = this.#files.filesystem.readXattrs({ parent, name, file: -1 });
    const suspect = { stat, xattrs: typeof read === 'number' ? undefined : read };
    if (!isMadeByGit(suspect, inode, this.puller) && !hasMetadata(suspect, inode, this.puller))
      this.suspects.set(path, suspect);
  }
}

/** A file in a record, which may be on disk at its path. */
interface Version {
  readonly type: FileStat['type'];
  /** Undefined: a second name of a file, of any size. */
  readonly size?: number;
  readonly mtimeSeconds?: number;
}

function isOneOf(stat: FileStat, versions: readonly Version[]): boolean {
  return versions.some(
    ({ size, mtimeSeconds }) =>
      size === undefined || (size === stat.size && mtimeSeconds === stat.mtimeSeconds),
  );
}

/** All versions, in any layer, of files that git cannot hold; with `all`, of all files. */
function allVersions(history: History, all: boolean): ReadonlyMap<string, readonly Version[]> {
  const known = new Map<string, Version[]>();
  for (const layer of history.values()) {
    for (const change of changesOf(layer)) {
      if (change.type === 'removed') continue;
      const versions = versionsOf(change, all);
      if (versions.length > 0) known.set(change.path, [...(known.get(change.path) ?? []), ...versions]);
    }
  }
  return known;
}

function versionsOf({ type, path, size, mtimeSeconds }: Written, all: boolean): Version[] {
  if (type === 'hardlink') {
    const special: Version[] = [{ type: 'character' }, { type: 'block' }, { type: 'fifo' }];
    const isHeld = !all && isHoldable(path, 'file');
    return isHeld ? special : [...special, { type: 'file' }, { type: 'symlink' }];
  }
  if ((type === 'file' || type === 'symlink') && isHoldable(path, type)) return all ? [{ type }] : [];
  return [{ type, size, mtimeSeconds }];
}

/** The metadata on disk of a path where it differs from the layer. */
interface Suspect {
  readonly stat: FileStat;
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
}

/** The user that pulled the rootfs. */
interface Puller {
  /** Of `.git`. */
  readonly uid: number;
  readonly gid: number;
  /** The user could not set owners, devices and the attributes of root. */
  readonly isUnprivileged: boolean;
}

function pullerOf(files: RootfsFiles): Puller {
  const { uid = 0, gid = 0 } = files.stat('.git') ?? {};
  const isRoot = uid === 0 && geteuid?.() === 0 && isInitialUserNamespace();
  return { uid, gid, isUnprivileged: !isRoot };
}

/** Whether a file on disk has the owner, mode and extended attributes of an inode, except those that the puller could not set. */
function hasMetadata({ stat, xattrs }: Suspect, inode: Inode, puller: Puller): boolean {
  const isOwner = stat.uid === inode.uid && stat.gid === inode.gid;
  if (!isOwner && !(puller.isUnprivileged && stat.uid === puller.uid)) return false;
  const wanted = inode.xattrs ?? new Map<string, Uint8Array>();
  const list = wanted.get(accessList);
  if (stat.type !== 'symlink') {
    const mode = list ? modeWithList(inode.mode, list) : inode.mode;
    if (stat.mode !== mode && (isOwner || stat.mode !== (mode & ~SET_ID_BITS))) return false;
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
function isMadeByGit({ stat, xattrs }: Suspect, inode: Inode, puller: Puller): boolean {
  if (stat.mtimeSeconds === inode.mtimeSeconds && stat.mtimeNanoseconds === inode.mtimeNanoseconds)
    return false;
  if (stat.uid !== puller.uid || stat.gid !== puller.gid) return false;
  if ([...(xattrs?.keys() ?? [])].some((name) => !systemAttribute.test(name))) return false;
  const open = stat.type === 'symlink' || (stat.mode & 0o111) !== 0 ? 0o777 : 0o666;
  return [0o022, umask()].some((mask) => stat.mode === (open & ~mask)) || stat.type === 'symlink';
}

/** Of the paths with metadata unlike the layer that is checked out: those that no other layer explains. */
function unexplained(suspects: ReadonlyMap<string, Suspect>, puller: Puller, history: History): string[] {
  const left = new Map(suspects);
  const isBelow = new Set([...history.values()].map(({ below }) => below));
  for (const tip of [...history.values()].filter(({ id }) => !isBelow.has(id))) {
    if (left.size === 0) break;
    const state = new RootfsState();
    for (const layer of chainOf(history, tip)) {
      playRecord(state, layer);
      for (const [path, suspect] of left) {
        const inode = state.find(path);
        if (inode?.type === suspect.stat.type && hasMetadata(suspect, inode, puller)) left.delete(path);
      }
    }
  }
  return [...left.keys()].toSorted((one, other) => (one < other ? -1 : 1));
}
