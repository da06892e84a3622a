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

/** The time of a file's last change is exact to a tick of the kernel's clock, at most this many milliseconds. */
const TICK = 20;

/**
 * The fingerprint of a tree that no other process can reach yet. Returns late enough that each later change has another time than all before.
 *
 * @returns undefined where it cannot be read, or its times are not those of this machine's clock
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

/** What is known of DIR. */
type TreeState =
  | { readonly state: 'missing' | 'unknown' | 'touched' }
  | { readonly state: 'untouched'; readonly identity: string };

/**
 * Notes of trees of the image that `--replace` made with these options, by device and inode of their roots. They are among the tags of the
 * cache, where a container that has the tree as its root cannot write: the tree cannot forge such a note.
 */
export async function openTreeNotes({ image, source, store: ofSession }: OpenedImage, options: PullOptions) {
  const { git, layerInfo, part, prepare, backend, report, destination, signal } = options;
  const { spoolDirectory } = ofSession;
  // An image of this machine is not kept in the cache.
  const store = source.local ? await Store.open({ ...options.store, spoolDirectory, report }) : ofSession;
  const { length: layers } = image.layers;
  const made = { top: image.layers.at(-1)?.id, git, layerInfo, layers, part, prepare, backend };
  const key = JSON.stringify([version, image.digest ?? image.id, made]);
  const nameOf = (identity: string) => `tree ${identity} ${key}`;
  return {
    /** Closes what it has opened. */
    async [Symbol.asyncDispose](): Promise<void> {
      if (source.local) await store.close();
    },
    async write({ identity, digest }: FinishedTree): Promise<void> {
      await store.remember(nameOf(identity), digest);
    },
    /** The identity of DIR, if there is one, and whether it is such a tree (else it is unknown), and was touched. */
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
