import { existsSync } from 'node:fs';
import { platform } from 'node:os';
import type { PulledLayer } from '../blob/queue.ts';
import { Decoder } from '../blob/decode/decoder.ts';
import { printable, UsageError } from '../errors.ts';
import { reasonOf } from '../sys/os-error.ts';
import type { GitLayers } from '../git/git-layers.ts';
import { shortID } from '../oci/digest.ts';
import type { Layer } from '../oci/image.ts';
import type { JsonObject } from '../oci/json.ts';
import { formatLayerInfo } from '../oci/layer-info.ts';
import type { PullOptions } from '../options.ts';
import { PART } from './existing-image.ts';
import { protectedPaths } from './protected-paths.ts';
import { type FinishedTree, lastingFingerprint } from './tree-notes.ts';
import { Destination } from '../rootfs/destination.ts';
import { notRestoredText } from '../rootfs/not-restored.ts';
import { Rootfs } from '../rootfs/rootfs.ts';
import { type LayerSummary, type Made, summaryOf } from './summary.ts';

/** Adds files that come from no layer to the rootfs in `directory`; default: its final path. */
export type Prepare = (directory?: string) => void;

/** Returns the notice for a rootfs that is written without libc. */
function noLibc(): string {
  const procIsMissing = platform() === 'linux' && !existsSync('/proc/self/fd');
  const lost = 'libc cannot be called here: extended attributes, devices and FIFOs are left out';
  return procIsMissing ? `${lost}; it needs /proc: mount -t proc proc /proc` : lost;
}

/** The result of a build. */
export type Built = Made & {
  /** The identity of DIR: see `OpenDirectory.identity`. */
  readonly identity: string;
  /** With `replace`: lets a later pull recognize the tree; absent where that is impossible. */
  readonly tree?: FinishedTree | undefined;
};

/** The objects that a build uses. */
interface Parts {
  destination: Destination;
  /** With -g: writes the branches. */
  git: GitLayers | undefined;
  /** Runs the thread that writes the rootfs. */
  rootfs: Rootfs;
  decoder: Decoder | undefined;
}

/** Returns the line of -v about Landlock. */
function confinementText({ confinement }: Rootfs): string {
  return 'version' in confinement
    ? `Landlock ${confinement.version}: the thread that writes the rootfs can change no file outside of it`
    : `the thread that writes the rootfs is not confined: ${confinement.reason}`;
}

/** A rootfs that is being built. */
export class RootfsBuild {
  readonly #parts: Parts;
  readonly #options: PullOptions;
  readonly #layers: LayerSummary[] = [];
  /** The content of `json`: the information of the last layer that was applied. */
  #info: JsonObject | undefined;

  private constructor(parts: Parts, options: PullOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  /**
   * Makes the rootfs: `fill` applies the layers. On failure the rootfs is removed, unless DIR held files
   * before.
   *
   * @param prepare adds files that no layer has, before the rootfs gets its name
   * @throws DestinationError, GitError, and errors of `fill`
   */
  static async make(
    options: PullOptions,
    layers: readonly Layer[],
    prepare: Prepare | undefined,
    fill: (rootfs: RootfsBuild) => Promise<void>,
  ): Promise<Built> {
    const parts: Partial<Parts> = {};
    try {
      const build = await RootfsBuild.#open(parts, options, layers);
      await fill(build);
      return await build.#finish(prepare);
    } catch (error) {
      await discard(parts, options);
      throw error;
    }
  }

  /** Makes DIR's stage, or opens DIR itself. */
  static async #open(
    parts: Partial<Parts>,
    options: PullOptions,
    layers: readonly Layer[],
  ): Promise<RootfsBuild> {
    const program = options.git && (await import('../git/git-program.ts')).findGit(options.environment);
    const destination = await openDestination(options);
    parts.destination = destination;
    if (program !== false) {
      refuseOtherBytes(destination);
      const { GitLayers } = await import('../git/git-layers.ts');
      const { self, path } = destination.root;
      parts.git = GitLayers.open(program, self, options.signal, path);
    }
    const { git } = parts;
    const rootfs = await Rootfs.open(destination.root.self, {
      expected: destination.root.identity,
      mode: destination.mode,
      name: options.destination,
      backend: options.backend,
      contents: git?.contents,
      onChanges: git && ((records) => git.note(records)),
    });
    parts.rootfs = rootfs;
    if (rootfs.backend !== (options.backend ?? 'libc')) options.report({ type: 'notice', message: noLibc() });
    options.report({ type: 'debug', message: confinementText(rootfs) });
    const isWorth = !options.part && rootfs.backend === 'libc' && Decoder.isWorth(layers);
    const decoder = isWorth ? new Decoder(rootfs) : undefined;
    parts.decoder = decoder;
    const build = new RootfsBuild({ destination, git, rootfs, decoder }, options);
    if (build.overlay) build.#notice('is not empty: the image is laid over its files');
    return build;
  }

  /** True if DIR holds files of the user: only verified data may be written. */
  get overlay(): boolean {
    return this.#parts.destination.mode === 'overlay';
  }

  /**
   * Applies a layer on top of the previous ones; returns the number of its entries.
   *
   * @throws IntegrityError, DestinationError
   */
  async apply(layer: PulledLayer): Promise<number> {
    const { git, rootfs, decoder } = this.#parts;
    const label = `layer ${shortID(layer.layer.id)}`;
    try {
      if (this.overlay) await layer.verified();
      const options = {
        label,
        signal: this.#options.signal,
        onEntries: (count: number) =>
          this.#options.report({ type: 'layer-entries', index: layer.index, entries: count }),
      };
      const decode = decoder && (await layer.decodedBy(decoder));
      const entries = decode
        ? await rootfs.applyFrom(decode, options)
        : await rootfs.apply(layer.tar(), options);
      this.#layers.push(summaryOf(layer, entries));
      this.#info = layer.layer.info;
      if (git) await this.#commit(git, layer);
      return entries;
    } catch (error) {
      throw await layer.explainFailure(git ? await git.explainFailure(error) : error);
    }
  }

  /**
   * Unpacks a part of an image instead of its layers.
   *
   * @param tar an archive of the selected files, already verified
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
    await this.#parts.rootfs.apply(tar, { label: 'the image', signal });
    this.#layers.push(...layers);
    this.#info = info && { ...info, [PART]: part };
  }

  /** Completes the rootfs and gives it its name. */
  async #finish(prepare: Prepare | undefined): Promise<Built> {
    const { git, rootfs, decoder, destination } = this.#parts;
    if (!git && this.#info) await this.#writeInfo(this.#info);
    git?.settle();
    const notRestored = await rootfs.close(destination.metadata);
    await git?.finish();
    await decoder?.discard();
    const { replace, signal } = this.#options;
    const { self } = destination.root;
    prepare?.(self);
    const digest = replace === false ? undefined : await lastingFingerprint(self, signal);
    signal.throwIfAborted();
    const { identity } = rootfs;
    const left = await destination.commit(identity);
    if (left) {
      const place = printable(left.path);
      const what = `its old contents are still in ${place}, which cannot be removed: ${left.reason}`;
      this.#notice(`was replaced, but ${what}`);
    }
    if (replace === false) this.#reportOwner();
    destination[Symbol.dispose]();
    const lost = notRestoredText(notRestored, this.#options.uid === 0);
    if (lost !== undefined) this.#options.report({ type: 'notice', message: lost });
    return {
      layers: this.#layers,
      changed: true,
      notRestored,
      identity,
      tree: digest && { identity, digest },
    };
  }

  /** Reports the owner of a DIR that was empty and belonged to another user. */
  #reportOwner(): void {
    const { ownerBefore, root, mode } = this.#parts.destination;
    if (ownerBefore === undefined || ownerBefore === this.#options.uid || mode === 'overlay') return;
    const { uid } = root.status;
    this.#notice(
      uid === ownerBefore
        ? `belongs to user ${uid}, as before`
        : `belonged to user ${ownerBefore} and now belongs to user ${uid}, as the root of the image does`,
    );
  }

  async #commit(git: GitLayers, { layer, blobSize }: PulledLayer): Promise<void> {
    await this.#writeInfo(layer.info, blobSize);
    const { created } = layer.info;
    await git.commit({ id: layer.id, created: typeof created === 'string' ? created : undefined });
  }

  async #writeInfo(info: JsonObject, blobSize?: number): Promise<void> {
    const { layerInfo, git } = this.#options;
    const write = async (name: 'json' | 'layersize', text: string) => {
      if (await this.#parts.rootfs.writeLayerInfo(name, Buffer.from(text))) return;
      this.#notice(`has a file ${name} from the image: the layer's information is not written`);
    };
    if (layerInfo) await write('json', formatLayerInfo(info));
    if (git) await write('layersize', String(blobSize ?? -1));
  }

  #notice(what: string): void {
    this.#options.report({ type: 'notice', message: `${printable(this.#options.destination)} ${what}` });
  }
}

async function openDestination(options: PullOptions): Promise<Destination> {
  const { destination, replace, merge } = options;
  return await (replace === false
    ? Destination.open(destination, merge)
    : Destination.replace(destination, protectedPaths(options)));
}

/**
 * Refuses a path that is not UTF-8, which Node cannot pass to git.
 *
 * @throws UsageError
 */
function refuseOtherBytes({ target }: Destination): void {
  if (target.isWellFormed()) return;
  throw new UsageError(`cannot use -g in ${printable(target)}: its path is not UTF-8`, {
    hint: 'choose another directory with -d, or pull without -g',
  });
}

/**
 * Removes a failed build. Failures here are only reported: the caller throws the error that ended the build.
 */
async function discard(parts: Partial<Parts>, { report, destination }: PullOptions): Promise<void> {
  try {
    await parts.git?.discard();
    await parts.rootfs?.discard();
    await parts.decoder?.discard();
    await parts.destination?.discard();
  } catch (error) {
    const message = `cannot clean up beside ${printable(destination)}: ${reasonOf(error)}`;
    report({ type: 'notice', message });
  } finally {
    parts.destination?.[Symbol.dispose]();
  }
}
