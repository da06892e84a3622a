import { renameSync } from 'node:fs';
import { type DestinationError, printable } from '../errors.ts';
import type { EntryPlace, OpenDirectory } from '../sys/open-directory.ts';
import { hasCode } from '../sys/os-error.ts';
import { openRoot, type ProtectedPath, refuseReplacement } from './location.ts';
import { swapped } from './stage.ts';

/** DIR as it was found, for the stage to replace. */
export interface Replacement {
  readonly identity: string | undefined;
  /** Files and directories that must not be in DIR. */
  readonly kept: readonly ProtectedPath[];
}

/** A directory that was at DIR: its name now, beside DIR. */
export interface Replaced {
  readonly name: string;
  readonly identity: string;
}

/** Tries to take a name where other runs put directories of their own. */
const TRIES = 10;

/**
 * Replaces DIR by the stage: in one step where the system can (renameat2(2)), else by two renames.
 *
 * Another user may be able to rename in the directory above. Then DIR must be the directory that was found at
 * the start. Otherwise it may be one that another run has put there since.
 *
 * @throws DestinationError if it is another one; both then have the names they had
 */
export function replaceDirectory(
  place: EntryPlace,
  stage: string,
  identity: string,
  { identity: before, kept }: Replacement,
): readonly Replaced[] {
  const { directory, name } = place;
  const shown = directory.shown(name);
  using found = openRoot(place, shown);
  if (found) refuseReplacement({ ...place, root: found }, shown, kept);
  const isShared = isSharedPlace(place, found);
  if (isShared && found?.identity !== before) throw swapped(shown);
  if (found === undefined) {
    if (!directory.renameToFree(stage, name)) renameSync(directory.at(stage), directory.at(name));
    return [];
  }
  if (!directory.exchange(stage, name)) return replaceInTwoSteps(place, stage, isShared ? before : undefined);
  const came = directory.identityOf(stage);
  if (came === undefined || (isShared && came !== before)) {
    directory.exchange(stage, name);
    const isBack = directory.identityOf(stage) === identity;
    throw swapped(shown, isBack ? '' : `: what was there is in ${printable(directory.shown(stage))}`);
  }
  return [{ name: stage, identity: came }];
}

/** Returns true if a user other than root may rename DIR. */
function isSharedPlace({ directory }: EntryPlace, root: OpenDirectory | undefined): boolean {
  return directory.mayOthersRename(root?.status ?? directory.status);
}

/**
 * Moves DIR aside, then renames the stage to DIR.
 *
 * @param expected identity that DIR must have; left out: any directory
 */
function replaceInTwoSteps(place: EntryPlace, stage: string, expected?: string): readonly Replaced[] {
  const { directory, name } = place;
  const moved: Replaced[] = [];
  for (let tries = 1; ; tries += 1) {
    const came = moveAside(place, tries === 1 ? `${stage}-old` : `${stage}-old${tries}`);
    if (came) moved.push(came);
    if (expected !== undefined && came?.identity !== expected) throw putBack(place, came);
    try {
      renameSync(directory.at(stage), directory.at(name));
      return moved;
    } catch (error) {
      if (tries < TRIES && expected === undefined && hasCode(error, 'ENOTEMPTY', 'EEXIST')) continue;
      putBack(place, moved.at(-1));
      throw error;
    }
  }
}

function moveAside({ directory, name }: EntryPlace, aside: string): Replaced | undefined {
  try {
    renameSync(directory.at(name), directory.at(aside));
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
  const identity = directory.identityOf(aside);
  return identity === undefined ? undefined : { name: aside, identity };
}

/** Gives its name back to the directory that was moved aside. Returns the error to throw. */
function putBack({ directory, name }: EntryPlace, moved: Replaced | undefined): DestinationError {
  const shown = directory.shown(name);
  if (moved === undefined) return swapped(shown);
  try {
    renameSync(directory.at(moved.name), directory.at(name));
    return swapped(shown);
  } catch {
    return swapped(shown, `: what was there is in ${printable(directory.shown(moved.name))}`);
  }
}
