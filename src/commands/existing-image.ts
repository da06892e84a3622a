import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Store } from '../blob/store.ts';
import { printable } from '../errors.ts';
import { parseSource } from '../layout/local-source.ts';
import { type Digest, shortID } from '../oci/digest.ts';
import type { Image, Layer } from '../oci/image.ts';
import { type JsonObject, parseJsonObject, textOf } from '../oci/json.ts';
import type { PullOptions } from '../options.ts';
import type { Report } from '../report/event.ts';
import { Destination } from '../rootfs/destination.ts';
import { fingerprintOf } from '../rootfs/fingerprint.ts';
import { nothingLost } from '../rootfs/not-restored.ts';
import type { ProtectedPath } from '../rootfs/location.ts';
import type { LayerSummary, Made } from './summary.ts';
import { osPath, pathBytes } from '../sys/os-path.ts';
import { parsePasswd } from '../sys/passwd.ts';
import { version } from '../version.ts';
import type { OpenedImage } from './with-session.ts';

/** The result of a build. */
export type Built = Made & {
  /** Of DIR, as `OpenDirectory.identity`. */
  readonly identity: string;
  /** With `replace`: the tree, if it can be known again. */
  readonly tree?: FinishedTree | undefined;
};

/** In `json`, where DIR holds a part of the image: which one. */
export const PART = 'dlrootfs.part';

/** The largest `json` that is read, in bytes. */
const MAX_LAYER_INFO_BYTES = 4 * 1024 * 1024;

/** Members of registry v1's image JSON, of which a file with an id has at least one. */
const members = ['created', 'parent', 'container_config', 'config', 'os', 'architecture'];

/** The image JSON in DIR, whose id is that of the top layer; undefined where there is none. */
export function readExistingImage(directory: string): JsonObject | undefined {
  let file: number | undefined;
  try {
    // A rootfs is as untrusted as an image: no link is followed, and no FIFO waited for.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    file = openSync(osPath(join(directory, 'json')), flags);
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.size > MAX_LAYER_INFO_BYTES) return undefined;
    const json = parseJsonObject(readFileSync(file), 'json');
    if (!/^[0-9a-f]{64}$/.test(textOf(json['id']) ?? '')) return undefined;
    return members.some((name) => json[name] !== undefined) ? json : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

export function describeExistingImage(existing: JsonObject): string {
  const created = textOf(existing['created']);
  const [os, architecture] = [textOf(existing['os']), textOf(existing['architecture'])];
  return [
    `with the top layer ${shortID(textOf(existing['id'])!)}`,
    ...(os === undefined || architecture === undefined
      ? []
      : [`for ${printable(`${os}/${architecture}`, 60)}`]),
    ...(created === undefined ? [] : [`of ${printable(created, 40)}`]),
  ].join(' ');
}

/** Files and directories that are counted; of more a notice says `more than`. */
const MOST_COUNTED = 1000;

/** Reports how many files --replace removes from a DIR that no pull made, as far as is known, before anything is downloaded. */
export async function tellOfOtherFiles({ destination, layerInfo, report }: PullOptions): Promise<void> {
  // A pull without `json` leaves no mark.
  if (!layerInfo || readExistingImage(destination) !== undefined) return;
  const count = await countFiles(pathBytes(destination));
  if (count === 0) return;
  const [number, limit] = count > MOST_COUNTED ? [MOST_COUNTED, 'more than '] : [count, ''];
  const what = `${limit}${number} ${count === 1 ? 'file or directory' : 'files and directories'}`;
  const message = `${printable(destination)} has no json of an image: --replace removes ${what} in it`;
  report({ type: 'notice', message });
}

/** Files and directories in a directory, one above the limit where there are more. What this process may not read counts as empty. */
async function countFiles(root: Buffer): Promise<number> {
  // Names are bytes: one character for each.
  const waiting = [root.toString('latin1')];
  let count = 0;
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    try {
      for await (const entry of await opendir(Buffer.from(directory, 'latin1'), { encoding: 'latin1' })) {
        count += 1;
        if (count > MOST_COUNTED) return count;
        if (entry.isDirectory()) waiting.push(`${directory}/${entry.name}`);
      }
    } catch {
      // Only the count is wrong then.
    }
  }
  return count;
}

/** With `replace`: DIR is the image already; only reports it. */
export async function reportUntouched(
  { layers }: Image,
  identity: string,
  { destination, report }: PullOptions,
): Promise<Built> {
  await Destination.tidy(destination);
  const summaries = reportLayersThere(layers, report);
  report({
    type: 'notice',
    message: `${printable(destination)} is this image already: nothing was done`,
  });
  return { layers: summaries, changed: false, notRestored: nothingLost(), identity };
}

/** Reports that these layers are in DIR; returns their summaries. */
function reportLayersThere(layers: readonly Layer[], report: Report): LayerSummary[] {
  return layers.map(({ id, digest, diffID, size }, index) => {
    report({ type: 'layer-start', index, cached: true });
    report({ type: 'layer-fetched', index });
    report({ type: 'layer-apply', index });
    report({ type: 'layer-applied', index, entries: 0 });
    return { id, digest, diffID, size, entries: 0 };
  });
}

/** A finished tree: its root, as `DEVICE:INODE`, and its fingerprint. */
export interface FinishedTree {
  readonly identity: string;
  readonly digest: Digest;
}

/** Files and directories that `--replace` must not remove with DIR, beside those that the system needs. */
export function protectedPaths({ image, environment, store }: PullOptions): ProtectedPath[] {
  const source = parseSource(image);
  const places: ProtectedPath[] = homes(environment['HOME']);
  places.push({ path: execPath, what: 'the running program' });
  if (store.directory !== undefined) places.push({ path: store.directory, what: 'the cache', inside: true });
  if (source !== undefined && source.path !== '') places.push({ path: source.path, what: 'the image' });
  return places;
}

function homes(own: string | undefined): ProtectedPath[] {
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
