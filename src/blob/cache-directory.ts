import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { EXPOSED_DIRECTORY, WRITABLE_BY_OTHERS } from '../sys/level.ts';
import { OpenDirectory } from '../sys/open-directory.ts';
import { explainOsError, hasCode, osErrorOf } from '../sys/os-error.ts';
import { writeFileAtomically } from '../sys/temp-file.ts';

/** The folders of the cache, and the names that it gives to files in them. */
export const FOLDERS = {
  'blobs/sha256': /^[0-9a-f]{64}$/,
  'blobs/sha512': /^[0-9a-f]{128}$/,
  partial:
    /^(?:(?:sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(?:\.ranges)?|(?:private-|\.dlrootfs-)[0-9a-f]{24})$/,
  tags: /^[0-9a-f]{64}$/,
} as const;

export type Folder = keyof typeof FOLDERS;
const folderNames = Object.keys(FOLDERS) as Folder[];

const ANOTHER_CACHE = 'choose another directory with --cache-dir';

/** The open folders of a cache, without those that are missing. */
export type OpenFolders = ReadonlyMap<Folder, OpenDirectory>;

/**
 * Opens the folders of an existing cache; undefined if the directory is missing.
 *
 * @throws DestinationError for a directory that is no cache, or must not be used
 */
export async function findCache(directory: string): Promise<OpenFolders | undefined> {
  try {
    using root = OpenDirectory.open(directory, { refuseExposed: true });
    requireTrusted(root);
    await requireCache(root, directory);
    return openFolders(root);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw unusable(error, directory);
  }
}

/**
 * Opens the folders of a cache, and makes missing ones. An empty directory becomes a cache. A cache of an
 * earlier version gets its tag.
 *
 * @throws DestinationError for a directory that is no cache, or behind a symlink of another user
 * @throws errors that explain why the directory cannot be used
 */
export async function prepareCache(directory: string): Promise<OpenFolders> {
  using root = OpenDirectory.open(directory, { make: DIRECTORY_MODE, refuseExposed: true });
  requireTrusted(root);
  if (!(await requireCache(root, directory))) await writeTag(root);
  return openFolders(root, DIRECTORY_MODE);
}

/** Returns the error with the name of the directory that cannot be used as cache. */
export function unusable(error: unknown, directory: string): unknown {
  if (hasCode(error, EXPOSED_DIRECTORY)) return (error as DestinationError).withHint(ANOTHER_CACHE);
  const shown = printable(directory);
  if (osErrorOf(error)) return explainOsError(error, `use the cache ${shown}`, ANOTHER_CACHE);
  if (!(error instanceof UnsafeDirectoryError)) return error;
  return new DestinationError(`cannot use the cache ${shown}: ${error.message}`, {
    code: 'UNTRUSTED_CACHE',
    hint: ANOTHER_CACHE,
  });
}

/** Modes of new directories and files: private. */
export const DIRECTORY_MODE = 0o700;
export const FILE_MODE = 0o600;

/** Explains why the store must not use a directory. */
class UnsafeDirectoryError extends Error {}

/** @throws UnsafeDirectoryError unless the directory is this user's, and nobody else may write there */
function requireTrusted({ descriptor, path }: OpenDirectory): void {
  const { uid, mode } = fstatSync(descriptor);
  const me = geteuid?.();
  const shown = printable(path);
  if (me !== undefined && uid !== me)
    throw new UnsafeDirectoryError(`${shown} belongs to user ${uid}, not to user ${me}`);
  if ((mode & WRITABLE_BY_OTHERS) !== 0) throw new UnsafeDirectoryError(`${shown} can be written by others`);
}

/** @param make mode of missing folders; left out: they are skipped */
function openFolders(root: OpenDirectory, make?: number): OpenFolders {
  const folders = new Map<Folder, OpenDirectory>();
  try {
    for (const folder of folderNames) {
      const opened = openFolder(root, folder, make === undefined ? {} : { make });
      if (opened) folders.set(folder, opened);
    }
    return folders;
  } catch (error) {
    for (const directory of folders.values()) directory.close();
    throw error;
  }
}

function openFolder(
  root: OpenDirectory,
  folder: Folder,
  options: { readonly make?: number },
): OpenDirectory | undefined {
  const [first, second] = folder.split('/') as [string, string?];
  try {
    const directory = openTrustedChild(root, first, options);
    if (second === undefined) return directory;
    using above = directory;
    return openTrustedChild(above, second, options);
  } catch (error) {
    if (options.make === undefined && hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function openTrustedChild(
  above: OpenDirectory,
  name: string,
  options: { readonly make?: number },
): OpenDirectory {
  const directory = above.openChild(name, options);
  try {
    requireTrusted(directory);
    return directory;
  } catch (error) {
    directory.close();
    throw error;
  }
}

const TAG = 'CACHEDIR.TAG';
/**
 * The first line is that of https://bford.info/cachedir/. The second shows that dlrootfs made the directory.
 */
const TAG_LINES = [
  'Signature: 8a477f597d28d172789f06886806bc55',
  '# This file is a cache directory tag created by dlrootfs.',
  '# For information about cache directory tags see https://bford.info/cachedir/',
] as const;

/** Returns true if a directory has the CACHEDIR.TAG of this program. */
function hasTag(root: OpenDirectory): boolean {
  const expected = Buffer.from(TAG_LINES.slice(0, 2).join('\n'));
  const found = Buffer.alloc(expected.length);
  try {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const file = openSync(root.at(TAG), flags);
    try {
      return fstatSync(file).isFile() && readSync(file, found) === found.length && found.equals(expected);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (osErrorOf(error)) return false;
    throw error;
  }
}

/** Writes the tag; a cache that cannot be written is still read. */
async function writeTag(root: OpenDirectory): Promise<void> {
  await writeFileAtomically({ directory: root, name: TAG }, `${TAG_LINES.join('\n')}\n`, {
    mode: FILE_MODE,
  }).catch((error: unknown) => {
    if (!osErrorOf(error)) throw error;
  });
}

/** Names that do not show who made the directory: `lost+found`, and a tag that is being written. */
const NEUTRAL = /^(?:lost\+found|\.dlrootfs-[0-9a-f]{24})$/;
const TOP_NAMES = ['blobs', 'partial', 'tags'];

/**
 * Returns true if a directory has the tag. Without it, the directory must be empty, or a cache of an earlier
 * version: it has nothing but names that a cache gives. The names are read first, since a run that makes the
 * cache at this moment writes the tag before any of them.
 *
 * @throws DestinationError that names a foreign file in a directory without the tag
 */
async function requireCache(root: OpenDirectory, directory: string): Promise<boolean> {
  const names = (await readdir(root.at('.'))).filter((name) => !NEUTRAL.test(name));
  if (hasTag(root)) return true;
  if (names.length === 0) return false;
  const isWhole = TOP_NAMES.every((name) => names.includes(name));
  const other = names.find((name) => name !== TAG && !TOP_NAMES.includes(name));
  const foreign = other ?? (isWhole ? await firstForeign(root) : names[0]!);
  if (foreign === undefined) return false;
  const shown = printable(foreign);
  throw new DestinationError(
    `cannot use ${printable(directory)} as cache: it holds ${shown}, and no CACHEDIR.TAG of dlrootfs`,
    {
      code: 'NOT_A_CACHE',
      hint: `choose an empty or a new directory with --cache-dir, or move ${shown} away`,
    },
  );
}

/** Returns the first path in the top folders that no cache has. */
async function firstForeign(root: OpenDirectory): Promise<string | undefined> {
  using blobs = root.openChild('blobs');
  const algorithm = (await readdir(blobs.at('.'))).find((name) => !(`blobs/${name}` in FOLDERS));
  if (algorithm !== undefined) return `blobs/${algorithm}`;
  for (const folder of folderNames) {
    const directory = openFolder(root, folder, {});
    const inner = directory ? await readdir(directory.at('.')) : [];
    directory?.close();
    const found = inner.find((name) => !FOLDERS[folder].test(name));
    if (found !== undefined) return `${folder}/${found}`;
  }
  return undefined;
}
