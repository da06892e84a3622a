import { constants } from 'node:os';
import {
  accessListBytes,
  defaultAccessList,
  modeWithList,
  textKeys,
  type FindId,
} from '../tar/access-list.ts';
import { accountNames, longestAccountFile } from '../tar/account-names.ts';
import type { BytePath, Entry } from '../tar/entry.ts';
import { nameOf, parentPath } from './directories.ts';
import type { FileStat, Node } from './filesystem.ts';
import { noteDirectory } from './directory.ts';
import { recordedPath } from './pseudo-links.ts';
import type { Run } from './run.ts';

const { EINVAL } = constants.errno;

/**
 * Gives files the access lists that say names instead of numbers: those are the image's own users and groups, which are known when the
 * layer is complete. A list with a name that the image does not know is counted.
 */
export function settleNamedLists(run: Run): void {
  if (run.namedLists.size === 0) return;
  const find = finder(run);
  for (const [path, entry] of run.namedLists) {
    run.directories.trim();
    const parent = run.directories.findExact(parentPath(path));
    const name = path === '' ? '.' : nameOf(path);
    const stat = parent && run.filesystem.stat(parent, name);
    if (typeof stat === 'object') settle(run, { parent: parent!, name, file: -1 }, path, entry, stat, find);
  }
  run.namedLists.clear();
}

function settle(run: Run, node: Node, path: BytePath, entry: Entry, stat: FileStat, find: FindId): void {
  const set = new Map<string, Uint8Array>();
  for (const [key, name] of textKeys) {
    const text = entry.xattrs?.get(key);
    if (text === undefined) continue;
    const bytes = accessListBytes(Buffer.from(text).toString('latin1'), find);
    const result = bytes ? run.filesystem.setXattr(node, name, bytes) : -EINVAL;
    if (bytes) set.set(name, bytes);
    if (result < 0) run.counts.xattrs++;
    else if (stat.type === 'directory') run.directoryXattrs.add(name);
  }
  if (set.has(defaultAccessList)) run.creator.careful = true;
  if (set.size === 0) return;
  const list = set.get(textKeys.get('SCHILY.acl.access')!);
  if (list && stat.type === 'directory') {
    noteDirectory(run, path, modeWithList(entry.mode, list), entry.mtimeSeconds, entry.mtimeNanoseconds);
  }
  const recorded = recordedPath(run, path);
  if (stat.type === 'directory')
    run.changes?.written(recorded, { ...entry, xattrs: new Map([...(entry.xattrs ?? []), ...set]) }, '');
  else run.changes?.written(recorded, { ...entry, type: 'hardlink', xattrs: set }, recorded);
}

/** Looks names up in the image's passwd and group. */
function finder(run: Run): FindId {
  return accountNames((file) => {
    const etc = run.directories.find('etc', false);
    const bytes = etc && run.filesystem.readFile(etc, file, longestAccountFile);
    return typeof bytes === 'object' ? Buffer.from(bytes).toString('latin1') : undefined;
  });
}
