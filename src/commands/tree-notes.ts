import { setTimeout as sleep } from 'node:timers/promises';
import { Store } from '../blob/store.ts';
import type { Digest } from '../oci/digest.ts';
import type { PullOptions } from '../options.ts';
import { Destination } from '../rootfs/destination.ts';
import { fingerprintOf } from '../rootfs/fingerprint.ts';
import { version } from '../version.ts';
import type { OpenedImage } from './with-session.ts';

/** A finished tree: its root, as `DEVICE:INODE`, and its fingerprint. */
export interface FinishedTree {
  readonly identity: string;
  readonly digest: Digest;
}

/**
 * Milliseconds by which the change time of a file may lag behind the clock, at most: one tick of the kernel.
 */
const TICK = 20;

/**
 * Returns the fingerprint of a tree that no other process can reach yet. Waits until every later change gets
 * a newer time than all changes before.
 *
 * @returns undefined if the tree cannot be read, or has times ahead of this machine's clock
 */
export async function lastingFingerprint(
  directory: string,
  signal: AbortSignal,
): Promise<Digest | undefined> {
  const found = await fingerprintOf(directory, signal);
  if (found === undefined || found.newest > Date.now()) return undefined;
  await sleep(Math.max(0, found.newest + TICK - Date.now()));
  return found.digest;
}

/** The state of DIR, compared with the note about it. */
type TreeState =
  | { readonly state: 'missing' | 'unknown' | 'touched' }
  | { readonly state: 'untouched'; readonly identity: string };

/**
 * Opens the notes about trees that `--replace` made of the image with these options, by device and inode of
 * their roots. They are stored among the tags of the cache: a container that has the tree as its root cannot
 * forge them.
 */
export async function openTreeNotes(
  { image, source, store: sessionStore }: OpenedImage,
  options: PullOptions,
) {
  const { git, layerInfo, part, prepare, backend, report, destination, signal } = options;
  const { spoolDirectory } = sessionStore;
  // Local images are not kept in the cache, but their notes are.
  const store = source.local ? await Store.open({ ...options.store, spoolDirectory, report }) : sessionStore;
  const { length: layers } = image.layers;
  const made = { top: image.layers.at(-1)?.id, git, layerInfo, layers, part, prepare, backend };
  const key = JSON.stringify([version, image.digest ?? image.id, made]);
  const nameOf = (identity: string) => `tree ${identity} ${key}`;
  return {
    /** Closes the store if this opened one. */
    async [Symbol.asyncDispose](): Promise<void> {
      if (source.local) await store.close();
    },
    async write({ identity, digest }: FinishedTree): Promise<void> {
      await store.remember(nameOf(identity), digest);
    },
    /** Compares DIR with its note. `unknown`: no note about it exists. */
    async look(): Promise<TreeState> {
      using there = Destination.openExisting(destination);
      if (!there) return { state: 'missing' };
      const { identity } = there;
      const noted = await store.recall(nameOf(identity));
      if (!noted) return { state: 'unknown' };
      const isSame = (await fingerprintOf(there.self, signal))?.digest === noted.digest;
      return isSame ? { state: 'untouched', identity } : { state: 'touched' };
    },
  };
}
