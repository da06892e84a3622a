import type { BytePath } from '../tar/entry.ts';
import type { RootMetadata } from './messages.ts';
import { restoreOwner, restoreTimes, restoreXattrs } from './metadata.ts';
import { granted, shown } from './refusal.ts';
import type { Run } from './run.ts';

const ownerBits = 0o700;

/**
 * Sets the directories' modes and times, now that nothing more is written into them, and the root's last of all.
 *
 * @param root for the root when no layer has an entry for it, undefined: it stays as it is
 */
export function finishRun(run: Run, root: RootMetadata | undefined): void {
  /** Modes that would keep this process out of what is below: after all others, the deepest first. */
  const barring = new Map<BytePath, number>();
  for (const { path, mode, mtimeSeconds, mtimeNanoseconds } of run.log) {
    run.directories.trim();
    const directory = run.directories.findExact(path);
    if (!directory) continue;
    const node = { parent: directory, name: '.', file: -1 };
    if (mode !== undefined) {
      if ((mode & ownerBits) === ownerBits) barring.delete(path);
      else barring.set(path, mode);
      granted(run.filesystem.setMode(node, mode | ownerBits), `set the mode of ${shown(path)}`);
    }
    restoreTimes(run, node, mtimeSeconds, mtimeNanoseconds);
  }
  const deepestFirst = [...barring.keys()].toSorted((one, other) => other.length - one.length);
  for (const path of deepestFirst) {
    run.directories.trim();
    const directory = run.directories.findExact(path);
    if (!directory) continue;
    const node = { parent: directory, name: '.', file: -1 };
    granted(run.filesystem.setMode(node, barring.get(path)!), `set the mode of ${shown(path)}`);
  }
  finishRoot(run, root);
}

function finishRoot(run: Run, root: RootMetadata | undefined): void {
  const node = { parent: run.filesystem.root, name: '.', file: -1 };
  const entry = run.rootEntry;
  if (entry) {
    restoreOwner(run, node, entry, undefined);
    const mode = restoreXattrs(run, node, entry);
    // Its own mode may keep this process out of it.
    restoreTimes(run, node, entry.mtimeSeconds, entry.mtimeNanoseconds);
    granted(run.filesystem.setMode(node, mode), 'set the mode of the root');
  } else if (root) {
    if (root.uid !== undefined && root.gid !== undefined) {
      granted(run.filesystem.setOwner(node, root.uid, root.gid), 'set the owner of the root');
    }
    granted(run.filesystem.setMode(node, root.mode), 'set the mode of the root');
  }
}
