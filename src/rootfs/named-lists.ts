import { IntegrityError } from '../errors.ts';
import {
  accessList,
  accessListBytes,
  accountNames,
  defaultAccessList,
  type FindId,
  modeWithList,
  textKeys,
} from '../tar/access-list.ts';
import { LARGEST_ACCOUNT_FILE } from '../sys/passwd.ts';
import type { BytePath, Entry } from '../tar/entry.ts';
import { itself } from './directories.ts';
import { type Directory, type Node, statusOf } from './filesystem.ts';
import { noteDirectory } from './metadata.ts';
import type { Run } from './run.ts';

/** Access lists in numbers, by attribute. */
type Lists = ReadonlyMap<string, Uint8Array>;

/**
 * Sets the access lists with names instead of numbers. The names are the image's own users and groups, which are known when the layer is
 * complete. A list with an unknown name is counted, unless the file system can keep the list unchanged.
 */
export function resolveNamedLists(run: Run): void {
  if (run.namedLists.size === 0) return;
  const find = finder(run);
  for (const [path, entry] of run.namedLists) {
    run.directories.trim();
    const place = path === '' ? itself(run.filesystem.root) : run.directories.place(path, 'findExact');
    const stat = place && statusOf(run.filesystem, place);
    if (!stat) continue;
    const lists = numbered(run, place, entry, find);
    const resolved = { ...entry, xattrs: merged(entry, lists) };
    if (path === '') {
      // All metadata of the root is set at the end.
      run.rootEntry = resolved;
      continue;
    }
    for (const [name, bytes] of lists)
      if (run.filesystem.setXattr(place, name, bytes) < 0) run.counts.xattrs += 1;
    if (lists.size === 0) continue;
    if (stat.type === 'directory') noteDirectoryLists(run, path, entry, lists);
  }
  run.namedLists.clear();
  run.namedListBytes = 0;
}

/** The entry's lists in numbers, by attribute. */
function numbered(run: Run, node: Node, entry: Entry, find: FindId): Map<string, Uint8Array> {
  const lists = new Map<string, Uint8Array>();
  for (const [key, name] of textKeys) {
    const text = entry.xattrs?.get(key);
    if (text === undefined) continue;
    const bytes = accessListBytes(Buffer.from(text).toString('latin1'), find);
    if (bytes) lists.set(name, bytes);
    else if (!keeps(run, node, key, text)) run.counts.xattrs += 1;
  }
  return lists;
}

function noteDirectoryLists(run: Run, path: BytePath, entry: Entry, lists: Lists): void {
  for (const name of lists.keys()) run.directoryXattrs.add(name);
  // From here on new files inherit it.
  if (lists.has(defaultAccessList)) run.creator.careful = true;
  const list = lists.get(accessList);
  if (list) noteDirectory(run, path, modeWithList(entry.mode, list), entry);
}

/** Whether the file system keeps a list with names unchanged. For the root it tries that now, although its metadata is set at the end. */
function keeps({ filesystem }: Run, node: Node, key: string, text: Uint8Array): boolean {
  if (filesystem.xattrSize(node, key) >= 0) return true;
  return filesystem.setXattr(node, key, text) >= 0 && filesystem.removeXattr(node, key) >= 0;
}

/** All attributes of the entry, in their order, with lists in numbers where they exist. */
function merged(entry: Entry, lists: Lists): Map<string, Uint8Array> {
  const attributes = [...(entry.xattrs ?? [])].map(([key, value]) => {
    const name = textKeys.get(key) ?? key;
    const list = lists.get(name);
    return list ? ([name, list] as const) : ([key, value] as const);
  });
  return new Map(attributes);
}

/** Looks names up in the image's passwd and group. */
function finder(run: Run): FindId {
  return accountNames((file) => {
    const etc = accountDirectory(run);
    const bytes = etc && run.filesystem.readFile(etc, file, LARGEST_ACCOUNT_FILE);
    return typeof bytes === 'object' ? Buffer.from(bytes).toString('latin1') : undefined;
  });
}

function accountDirectory(run: Run): Directory | undefined {
  try {
    return run.directories.find('etc', false);
  } catch (error) {
    // A loop of symlinks is an error only for an entry that is written there.
    if (error instanceof IntegrityError) return undefined;
    throw error;
  }
}
