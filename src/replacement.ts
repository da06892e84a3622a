import { readFileSync } from 'node:fs';
import { execPath } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Store } from './blob/store.ts';
import { printable } from './errors.ts';
import { parseSource } from './layout/local-source.ts';
import type { Digest } from './oci/digest.ts';
import type { Image } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import { Destination } from './rootfs/destination.ts';
import { fingerprintOf } from './rootfs/fingerprint.ts';
import type { Kept } from './rootfs/location.ts';
import { parsePasswd } from './sys/passwd.ts';
import { version } from './version.ts';
import type { Opened } from './with-session.ts';

/** A finished tree: its root, as `DEVICE:INODE`, and what it was like. */
export interface FinishedTree {
  readonly identity: string;
  readonly digest: Digest;
}

/** What `--replace` may not take away with DIR, beside what the system needs. */
export function keptPlaces({ image, environment, store }: PullOptions): Kept[] {
  const source = parseSource(image);
  const places: Kept[] = homes(environment['HOME']);
  places.push({ path: execPath, what: 'the running program' });
  if (store.directory !== undefined) places.push({ path: store.directory, what: 'the cache', inside: true });
  if (source !== undefined && source.path !== '') places.push({ path: source.path, what: 'the image' });
  return places;
}

function homes(own: string | undefined): Kept[] {
  let users = '';
  try {
    users = readFileSync('/etc/passwd', 'utf8');
  } catch {
    // A system without users.
  }
  const places = parsePasswd(users).map(({ name, home }) => ({
    path: home,
    what: `the home directory of ${printable(name)}`,
  }));
  return [...(own === undefined ? [] : [{ path: own, what: 'the home directory' }]), ...places].filter(
    ({ path }) => path.startsWith('/'),
  );
}

/** The time of a file's last change is exact to a tick of the kernel's clock, at most this many milliseconds. */
const TICK = 20;

/**
 * The fingerprint of a tree that nobody else can reach yet. Returns late enough that each later change has another time than all before.
 *
 * @returns undefined where it cannot be read, or its times are not those of this machine's clock
 */
export async function settledFingerprint(
  directory: string,
  signal: AbortSignal,
): Promise<Digest | undefined> {
  const found = await fingerprintOf(directory, signal);
  if (found === undefined || found.newest > Date.now()) return undefined;
  await sleep(Math.max(0, found.newest + TICK - Date.now()));
  return found.digest;
}

/**
 * Notes of trees that `--replace` made, by device and inode of their roots. They are among the tags of the cache, where a container that has the
 * tree as its root cannot write: what such a note vouches for, the tree itself cannot claim.
 */
export class TreeNotes {
  readonly #store: Store;
  readonly #key: string;

  private constructor(store: Store, image: Image, options: PullOptions) {
    const { git, layerInfo, part, prepare, backend } = options;
    this.#store = store;
    this.#key = JSON.stringify([
      version,
      image.digest ?? image.id,
      { git, layerInfo, part, prepare, backend },
    ]);
  }

  /** For trees of `image`, made with these options. */
  static async open({ source, store }: Opened, image: Image, options: PullOptions): Promise<TreeNotes> {
    const { directory, maxBytes } = options.store;
    const spoolDirectory = store.spoolDirectory;
    // An image of this machine is not kept in the cache.
    const own = source.local
      ? await Store.open({ directory, maxBytes, spoolDirectory, report: options.report })
      : store;
    return new TreeNotes(own, image, options);
  }

  async write({ identity, digest }: FinishedTree): Promise<void> {
    await this.#store.remember(this.#nameOf(identity), digest);
  }

  /** Whether DIR is a tree of this image in which nothing was touched. */
  async isUntouched(directory: string, signal: AbortSignal): Promise<boolean> {
    const identity = await Destination.identity(directory);
    const noted = identity && (await this.#store.recall(this.#nameOf(identity)));
    if (!noted) return false;
    return (await fingerprintOf(directory, signal))?.digest === noted.digest;
  }

  #nameOf(identity: string): string {
    return `tree ${identity} ${this.#key}`;
  }
}
