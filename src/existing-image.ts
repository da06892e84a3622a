import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Store } from './blob/store.ts';
import { DestinationError, printable } from './errors.ts';
import type { Survey } from './git/survey.ts';
import { parseSource } from './layout/local-source.ts';
import { type Digest, shortID } from './oci/digest.ts';
import type { Image, Layer } from './oci/image.ts';
import { type JsonObject, parseJsonObject, textOf } from './oci/json.ts';
import type { PullOptions } from './options.ts';
import type { Report } from './report/event.ts';
import { Destination } from './rootfs/destination.ts';
import { fingerprintOf } from './rootfs/fingerprint.ts';
import { nothingLost } from './rootfs/not-restored.ts';
import type { ProtectedPath } from './rootfs/location.ts';
import type { LayerSummary, PullSummary } from './summary.ts';
import { OpenDirectory } from './sys/open-directory.ts';
import { osPath, pathBytes } from './sys/os-path.ts';
import { parsePasswd } from './sys/passwd.ts';
import { version } from './version.ts';
import type { OpenedImage } from './with-session.ts';

/** The result of a build. */
export type Built = Pick<PullSummary, 'layers' | 'notRestored'> & {
  /** Of DIR, as `OpenDirectory.identity`. */
  readonly identity: string;
  /** With `replace`: the tree, if it can be known again. */
  readonly tree?: FinishedTree | undefined;
};

/** In `json`, where DIR holds a part of the image: which one. */
export const PART = 'dlrootfs.part';

/** How the image that DIR holds is related to the wanted one: the same, a part of it, or its first layers. */
type ExistingImage = 'same' | 'part' | 'base';

/** The largest `json` that is read, in bytes. */
const MAX_LAYER_INFO_BYTES = 4 * 1024 * 1024;

/** Members of registry v1's image JSON, of which a file with an id has at least one. */
const members = ['created', 'parent', 'container_config', 'config', 'os', 'architecture'];

/**
 * Checks a DIR with files against the image that is to be unpacked over them. A pull leaves the JSON of its top layer in DIR/json, the original's
 * does too: two images in one directory give a mixture that does not run.
 *
 * @param shown DIR in messages
 * @param layers of the image, base first
 * @returns undefined where it holds no image, as far as is known
 * @throws DestinationError for another image, unless `merge` is set
 */
export function compareExistingImage(
  directory: string,
  shown: string,
  layers: readonly Pick<Layer, 'info'>[],
  merge: boolean,
): ExistingImage | undefined {
  const existing = readExistingImage(directory);
  if (existing === undefined) return undefined;
  const found = layers.findLastIndex(
    ({ info }) => info['id'] === existing['id'] && textOf(info['parent']) === textOf(existing['parent']),
  );
  if (found === layers.length - 1 && found !== -1) return existing[PART] === undefined ? 'same' : 'part';
  if (found !== -1) return 'base';
  if (merge) return undefined;
  const name = printable(shown);
  throw new DestinationError(
    `cannot unpack into ${name}: it holds another image, ${describeExistingImage(existing)}`,
    {
      code: 'OTHER_IMAGE',
      hint: `add --replace to make ${name} exactly this image, --merge to lay it over the other one, or choose another directory with -d`,
    },
  );
}

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

/** The notice for an image that is laid over the files of DIR. */
export function overlayNotice(existing: ExistingImage | undefined): string {
  if (existing === 'part') return 'holds a part of this image: its files are written again, other files stay';
  if (existing === 'same') return 'holds this image already: its files are written again, other files stay';
  if (existing === 'base') return 'holds the first layers of this image: the image is laid over them';
  return 'is not empty: the image is laid over its files';
}

/** With -g: all layers of the image are in DIR already; only reports it. */
export async function reportAlreadyThere(
  image: Image,
  { branch, checkedOut }: Extract<Survey, { kind: 'complete' }>,
  options: PullOptions,
): Promise<Built> {
  const back = `dlrootfs checkout ${branch} -d ${printable(options.destination)}`;
  const state = checkedOut
    ? 'nothing was done'
    : `another branch is checked out; to return to this one: ${back}`;
  using there = OpenDirectory.open(options.destination);
  return await nothingToDo(image, there.identity, `has all layers of the image: ${state}`, options);
}

/** With `replace`: DIR is the image already; only reports it. */
export async function reportUntouched(image: Image, identity: string, options: PullOptions): Promise<Built> {
  return await nothingToDo(image, identity, 'is this image already: nothing was done', options);
}

async function nothingToDo(
  image: Image,
  identity: string,
  why: string,
  { destination, report }: PullOptions,
): Promise<Built> {
  await Destination.tidy(destination);
  const layers = reportLayersThere(image.layers, report);
  report({ type: 'notice', message: `${printable(destination)} ${why}` });
  return { layers, notRestored: nothingLost(), identity };
}

/** Reports that these layers, the image's first, are in DIR; returns their summaries. */
export function reportLayersThere(layers: readonly Layer[], report: Report): LayerSummary[] {
  return layers.map(({ id, digest, diffID, size }, index) => {
    report({ type: 'layer-start', index, cached: true });
    report({ type: 'layer-fetched', index });
    report({ type: 'layer-apply', index });
    report({ type: 'layer-applied', index, entries: 0 });
    return { id, digest, diffID, size, entries: 0 };
  });
}

/** A reporter for layers that are counted from 0 behind `count` others. */
export function countedAfter(count: number, report: Report): Report {
  return count === 0
    ? report
    : (event) => report('index' in event ? { ...event, index: event.index + count } : event);
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

/**
 * Notes of trees of the image that `--replace` made with these options, by device and inode of their roots. They are among the tags of the
 * cache, where a container that has the tree as its root cannot write: the tree cannot forge such a note.
 */
export async function openTreeNotes({ image, source, store: ofSession }: OpenedImage, options: PullOptions) {
  const { git, layerInfo, part, prepare, backend, report, destination, signal } = options;
  const { spoolDirectory } = ofSession;
  // An image of this machine is not kept in the cache.
  const store = source.local ? await Store.open({ ...options.store, spoolDirectory, report }) : ofSession;
  const key = JSON.stringify([version, image.digest ?? image.id, { git, layerInfo, part, prepare, backend }]);
  const nameOf = (identity: string) => `tree ${identity} ${key}`;
  return {
    /** Closes what it has opened. */
    async [Symbol.asyncDispose](): Promise<void> {
      if (source.local) await store.close();
    },
    async write({ identity, digest }: FinishedTree): Promise<void> {
      await store.remember(nameOf(identity), digest);
    },
    /** The identity of DIR, if it is such a tree, in which nothing was touched. */
    async untouched(): Promise<string | undefined> {
      using there = Destination.openExisting(destination);
      const noted = there && (await store.recall(nameOf(there.identity)));
      if (!noted || (await fingerprintOf(there.self, signal))?.digest !== noted.digest) return undefined;
      return there.identity;
    },
  };
}
