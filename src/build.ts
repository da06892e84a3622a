import { closeSync, constants, existsSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { platform } from 'node:os';
import { join } from 'node:path';
import type { PulledLayer } from './blob/pulled-layer.ts';
import { Decoder } from './decoder.ts';
import { DestinationError, GitError, printable, UsageError } from './errors.ts';
import { reasonOf } from './sys/os-error.ts';
import type { GitLayers } from './git/git-layers.ts';
import type { LayerIdentity } from './git/refs.ts';
import type { Survey } from './git/survey.ts';
import type { Layer } from './oci/image.ts';
import { type JsonObject, parseJsonObject, textOf } from './oci/json.ts';
import { formatLayerInfo } from './oci/layer-info.ts';
import type { PullOptions } from './options.ts';
import type { Packer } from './packer.ts';
import { type FinishedTree, keptPlaces, settledFingerprint } from './replacement.ts';
import { Destination } from './rootfs/destination.ts';
import { describeNotRestored, Rootfs } from './rootfs/rootfs.ts';
import type { LayerSummary, PullSummary } from './summary.ts';
import { osPath } from './sys/os-path.ts';

/** The image's first layers are in DIR, of another pull with -g; `layers` are all that it is to have. */
export type Resumed = Extract<Survey, { kind: 'partial' }> & { readonly layers: readonly LayerIdentity[] };

/** The result of a build. */
export type Built = Pick<PullSummary, 'layers' | 'notRestored'> & {
  /** With `replace`: the tree, if it can be known again. */
  readonly tree?: FinishedTree | undefined;
};

/** Said where the files are not written through libc. */
function noLibc(): string {
  const procIsMissing = platform() === 'linux' && !existsSync('/proc/self/fd');
  const lost = 'libc cannot be called here: extended attributes, devices and FIFOs are left out';
  return procIsMissing ? `${lost}; it needs /proc: mount -t proc proc /proc` : lost;
}

/** A rootfs in the making: where it is built, the thread that writes it, and with -g its branches. */
export class RootfsBuild {
  readonly #destination: Destination;
  readonly #rootfs: Rootfs;
  readonly #git: GitLayers | undefined;
  readonly #packer: Packer | undefined;
  readonly #decoder: Decoder | undefined;
  readonly #options: PullOptions;
  readonly #resumed: Resumed | undefined;
  readonly #layers: LayerSummary[] = [];
  /** Of the top layer so far: what `json` is to say. */
  #info: JsonObject | undefined;

  private constructor(
    destination: Destination,
    rootfs: Rootfs,
    branches: Branches | undefined,
    options: PullOptions,
    layers: readonly Layer[],
    resumed: Resumed | undefined,
  ) {
    this.#resumed = resumed;
    this.#destination = destination;
    this.#rootfs = rootfs;
    this.#decoder = !options.part && isWorthDecoder(rootfs, layers) ? new Decoder(rootfs) : undefined;
    this.#git = branches?.git;
    this.#packer = branches?.packer;
    this.#options = options;
  }

  /**
   * Makes DIR's stage, or opens DIR itself; `resumed` with -g: the stage begins with layers that DIR has already.
   *
   * @throws DestinationError, GitError
   */
  static async open(options: PullOptions, layers: readonly Layer[], resumed?: Resumed): Promise<RootfsBuild> {
    const destination = await openDestination(options, resumed);
    let rootfs: Rootfs | undefined;
    let branches: Branches | undefined;
    try {
      if (options.git) refuseOtherBytes(destination);
      const held =
        destination.mode === 'overlay'
          ? compareHeldImage(destination.path, options.destination, layers, options.merge)
          : undefined;
      branches = options.git ? await openBranches(destination, resumed, options) : undefined;
      rootfs = await Rootfs.open(destination.path, {
        mode: destination.mode,
        name: options.destination,
        backend: options.backend,
        reservedNames: options.git ? ['.git'] : [],
        recordChanges: options.git,
        hasLayers: resumed !== undefined,
        contents: branches?.packer.ring,
        ownFiles: branches?.git.ownFiles() ?? [],
      });
      if (rootfs.backend !== (options.backend ?? 'libc'))
        options.report({ type: 'notice', message: noLibc() });
      const build = new RootfsBuild(destination, rootfs, branches, options, layers, resumed);
      if (build.overlay) build.#notice(overlayNotice(held));
      if (resumed)
        build.#notice(`has ${resumed.common} of the image's layers: the others are put on top of them`);
      return build;
    } catch (error) {
      await tidy(options, async () => {
        await branches?.packer.discard();
        await rootfs?.discard();
        await destination.discard();
      });
      throw error;
    }
  }

  /** DIR holds files of the user's: nothing unverified may get in. */
  get overlay(): boolean {
    return this.#destination.mode === 'overlay';
  }

  /**
   * Unpacks a layer on top of those before; returns how many entries it had.
   *
   * @throws IntegrityError, DestinationError
   */
  async apply(layer: PulledLayer): Promise<number> {
    const label = `layer ${layer.layer.id.slice(0, 12)}`;
    try {
      if (this.overlay) await layer.verified();
      const git = this.#git;
      const { entries, changes } = await this.#rootfs.apply(layer.tar(this.#decoder), {
        label,
        signal: this.#options.signal,
        onChanges: git && ((lines) => git.note(lines)),
      });
      this.#layers.push(summaryOf(layer, entries));
      this.#info = layer.layer.info;
      if (this.#git) await this.#commit(this.#git, layer, changes);
      return entries;
    } catch (error) {
      throw await layer.explainFailure(this.#packer ? await this.#packer.explainFailure(error) : error);
    }
  }

  /**
   * Unpacks a part of an image, in place of its layers.
   *
   * @param tar what it consists of, verified
   * @param layers of the image, base first
   * @param info of the top layer
   * @throws IntegrityError, DestinationError
   */
  async applyPart(
    tar: AsyncIterable<Uint8Array>,
    layers: readonly LayerSummary[],
    info: JsonObject | undefined,
  ): Promise<void> {
    const { signal, part } = this.#options;
    await this.#rootfs.apply(tar, { label: 'the image', signal });
    this.#layers.push(...layers);
    this.#info = info && { ...info, [PART]: part };
  }

  /**
   * Completes the rootfs and gives it its name.
   *
   * @param prepare adds files of no layer, where the rootfs is until then
   */
  async finish(prepare: ((directory: string) => void) | undefined): Promise<Built> {
    if (!this.#git && this.#info) await this.#writeInfo(this.#info);
    const notRestored = await this.#rootfs.close(this.#destination.root);
    await this.#git?.finish();
    await this.#packer?.discard();
    await this.#decoder?.discard();
    const { replace, signal } = this.#options;
    const { path } = this.#destination;
    prepare?.(path);
    const digest = replace === false ? undefined : await settledFingerprint(path, signal);
    signal.throwIfAborted();
    if (this.#resumed) await this.#refuseIfTouched(this.#resumed);
    const { identity } = this.#rootfs;
    const left = await this.#destination.commit(identity);
    if (left)
      this.#notice(
        `was replaced, but what it held is still in ${printable(left.path)}, which cannot be removed: ${left.reason}`,
      );
    if (replace === false) await this.#tellOwner();
    const lost = describeNotRestored(notRestored, this.#options.uid === 0);
    if (lost !== undefined) this.#options.report({ type: 'notice', message: lost });
    return { layers: this.#layers, notRestored, tree: digest && { identity, digest } };
  }

  /** An empty DIR of another user is no longer theirs, or still is. */
  async #tellOwner(): Promise<void> {
    const { ownerBefore, target, mode } = this.#destination;
    if (ownerBefore === undefined || ownerBefore === this.#options.uid || mode === 'overlay') return;
    const { uid } = await lstat(osPath(target));
    this.#notice(
      uid === ownerBefore
        ? `belongs to user ${uid}, as before`
        : `belonged to user ${ownerBefore} and now belongs to user ${uid}, as the root of the image does`,
    );
  }

  /** The directory that is about to be replaced must still hold nothing but what it held when it was looked at. */
  async #refuseIfTouched({ common, layers }: Resumed): Promise<void> {
    const { destination, environment, signal } = this.#options;
    const { surveyDirectory } = await import('./git/survey.ts');
    const again = await surveyDirectory(destination, layers, { environment, signal });
    if (again.kind === 'partial' && again.common === common) return;
    throw new GitError(`${printable(destination)} was changed while the image was pulled`, {
      hint: 'run it again',
    });
  }

  /** Leaves nothing of it behind, but in a DIR that held files. What cannot be removed is only said: why it is discarded counts. */
  async discard(): Promise<void> {
    await tidy(this.#options, async () => {
      await this.#packer?.discard();
      await this.#git?.discard();
      await this.#rootfs.discard();
      await this.#decoder?.discard();
      await this.#destination.discard();
    });
  }

  async #commit(git: GitLayers, layer: PulledLayer, changes: Uint8Array | undefined): Promise<void> {
    const own = await this.#writeInfo(layer.layer.info, layer.blobSize);
    const { id, info: json } = layer.layer;
    const created = typeof json['created'] === 'string' ? json['created'] : undefined;
    await git.commit({ id, created }, [
      changes ?? new Uint8Array(0),
      ...own.map((name) => git.describeFile(name)),
    ]);
  }

  /** Returns which files were written. */
  async #writeInfo(info: JsonObject, blobSize?: number): Promise<string[]> {
    const { layerInfo, git } = this.#options;
    const written: string[] = [];
    const write = async (name: 'json' | 'layersize', text: string) => {
      if (await this.#rootfs.writeLayerInfo(name, Buffer.from(text))) written.push(name);
      else this.#notice(`has a ${name} of the image's own: the layer's information is not written`);
    };
    if (layerInfo) await write('json', formatLayerInfo(info));
    if (git) await write('layersize', String(blobSize ?? -1));
    return written;
  }

  #notice(what: string): void {
    this.#options.report({ type: 'notice', message: `${printable(this.#options.destination)} ${what}` });
  }
}

async function openDestination(options: PullOptions, resumed: Resumed | undefined): Promise<Destination> {
  const { destination, replace } = options;
  if (resumed) return await Destination.replace(destination);
  return await (replace === false
    ? Destination.open(destination)
    : Destination.replace(destination, keptPlaces(options)));
}

/** git and its programs take names in UTF-8 only, from Node. */
function refuseOtherBytes({ target }: Destination): void {
  if (target.isWellFormed()) return;
  throw new UsageError(`cannot use -g in ${printable(target)}: its path is not UTF-8`, {
    hint: 'choose another directory with -d, or pull without -g',
  });
}

function overlayNotice(held: 'same' | 'part' | 'base' | undefined): string {
  if (held === 'part') return 'holds a part of this image: its files are written again, other files stay';
  if (held === 'same') return 'holds this image already: its files are written again, other files stay';
  if (held === 'base') return 'holds the first layers of this image: the image is laid over them';
  return 'is not empty: the image is laid over what is there';
}

async function tidy({ report, destination }: PullOptions, work: () => Promise<void>): Promise<void> {
  await work().catch((error: unknown) => {
    const message = `something was left beside ${printable(destination)}: ${reasonOf(error)}`;
    report({ type: 'notice', message });
  });
}

/** The branches, and the thread that makes their blobs. */
interface Branches {
  readonly git: GitLayers;
  readonly packer: Packer;
}

async function openBranches(
  destination: Destination,
  resumed: Resumed | undefined,
  options: PullOptions,
): Promise<Branches> {
  const { Packer: Thread } = await import('./packer.ts');
  const git = await openGit(destination, resumed, options);
  const packer = new Thread(git.packDirectory, (ids) => git.takeBlobs(ids));
  git.expectBlobs(packer.finished);
  return { git, packer };
}

async function openGit(
  destination: Destination,
  resumed: Resumed | undefined,
  options: PullOptions,
): Promise<GitLayers> {
  const { signal, environment } = options;
  const gitOptions = { signal, environment };
  const { GitLayers: layers } = await import('./git/git-layers.ts');
  if (!resumed) return await layers.open(destination.path, gitOptions);
  const { path, target } = destination;
  return await layers.resume(path, target, resumed.base, gitOptions);
}

/** From this size of all compressed layers on, in bytes, the decoder's thread wins more than its start costs. */
const WORTH_DECODER = 4 * 1024 * 1024;

function isWorthDecoder({ backend }: Rootfs, layers: readonly Layer[]): boolean {
  const bytes = layers.reduce((sum, { size = 0 }) => sum + size, 0);
  return backend === 'libc' && bytes >= WORTH_DECODER;
}

/** What a summary says of a layer. */
export function summaryOf(layer: PulledLayer, entries: number): LayerSummary {
  const { id, digest, diffID } = layer.layer;
  return { id, digest, diffID: diffID ?? layer.diffID, size: layer.blobSize, entries };
}

/** In `json`, where DIR holds a part of the image: which one. */
export const PART = 'dlrootfs.part';

/** The largest `json` that is read. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Members of registry v1's image JSON, of which a file with an id has at least one. */
const members = ['created', 'parent', 'container_config', 'config', 'os', 'architecture'];

/**
 * Checks a DIR with files against the image that is to be unpacked over them. A pull leaves the JSON of its top layer in DIR/json, the original's
 * does too: two images in one directory give a mixture that does not run.
 *
 * @param shown DIR in messages
 * @param layers of the image, base first
 * @returns `same`: DIR holds the image, `part`: a part of it. `base`: it holds the image's first layers. undefined: it holds no image, as far as is known
 * @throws DestinationError for another image, unless `merge` is set
 */
function compareHeldImage(
  directory: string,
  shown: string,
  layers: readonly Pick<Layer, 'info'>[],
  merge: boolean,
): 'same' | 'part' | 'base' | undefined {
  const held = readHeldImage(directory);
  if (held === undefined) return undefined;
  const found = layers.findLastIndex(
    ({ info }) => info['id'] === held['id'] && textOf(info['parent']) === textOf(held['parent']),
  );
  if (found === layers.length - 1 && found !== -1) return held[PART] === undefined ? 'same' : 'part';
  if (found !== -1) return 'base';
  if (merge) return undefined;
  const name = printable(shown);
  throw new DestinationError(`cannot unpack into ${name}: it holds another image, ${describe(held)}`, {
    code: 'OTHER_IMAGE',
    hint: `remove ${name}, choose another directory with -d, or add --merge to lay this image over the other one`,
  });
}

/** The image JSON in DIR, whose id is that of the top layer; undefined where there is none. */
function readHeldImage(directory: string): JsonObject | undefined {
  let file: number | undefined;
  try {
    // A rootfs is as untrusted as an image: no link is followed, and no FIFO waited for.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    file = openSync(osPath(join(directory, 'json')), flags);
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.size > MAX_BYTES) return undefined;
    const json = parseJsonObject(readFileSync(file), 'json');
    if (!/^[0-9a-f]{64}$/.test(textOf(json['id']) ?? '')) return undefined;
    return members.some((name) => json[name] !== undefined) ? json : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function describe(held: JsonObject): string {
  const created = textOf(held['created']);
  const [os, architecture] = [textOf(held['os']), textOf(held['architecture'])];
  return [
    `with the top layer ${textOf(held['id'])!.slice(0, 12)}`,
    ...(os === undefined || architecture === undefined
      ? []
      : [`for ${printable(`${os}/${architecture}`, 60)}`]),
    ...(created === undefined ? [] : [`of ${printable(created, 40)}`]),
  ].join(' ');
}
