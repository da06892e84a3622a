import { GitError } from '../errors.ts';
import { outOfStep } from './git-error.ts';
import { KnownObjects } from './pack-format.ts';
import type { PackedIds } from './packer.ts';
import { type ObjectID, ID_BYTES } from './trees.ts';
import {
  MAX_AT_ONCE,
  type ObjectSource,
  type ObjectType,
  PackWriter,
  type PackWorkspace,
} from './pack-writer.ts';
import type { ContentReader } from '../rootfs/contents.ts';

/** The number of objects in the first packs. */
const SMALLEST_PLAN = 1024;
/**
 * Each pack has at least this part of the number of all earlier objects: so packs are few, and the last one
 * is small.
 */
const PLANNED_PART = 1 / 4;
/**
 * Limits on the bytes of a pack: these many, or this part of the bytes of all earlier packs if that is more.
 * Such a pack has fewer objects than planned and is read once more (see `PackWriter.close`), like the last
 * one.
 */
const LARGE_PACK = 64 * 2 ** 20;
const LARGE_PART = 1 / 2;

/** Stores each object of a run once, in as many packs as needed. */
export class ObjectStore {
  readonly #directory: string;
  readonly #pause: () => Promise<void>;
  readonly #known = new KnownObjects();
  #pack: PackWriter | undefined;
  /** The workspace of the pack that was closed last. */
  #workspace: PackWorkspace | undefined;
  /** The bytes in earlier packs. */
  #bytes = 0;
  #completed: Promise<void> = Promise.resolve();

  /**
   * @param directory `objects/pack` of the repository
   * @param pause called in long loops
   */
  constructor(directory: string, pause: () => Promise<void>) {
    this.#directory = directory;
    this.#pause = pause;
  }

  /**
   * Adds an object of `size` bytes; returns its id.
   *
   * @throws errors of `source`
   */
  async add(size: number, source: ObjectSource, type: ObjectType = 'blob'): Promise<ObjectID> {
    return (await this.addNamed(size, source, type)).toString('hex') as ObjectID;
  }

  /**
   * Adds an object like `add`, a small one without a promise. Returns the id as `ID_BYTES` bytes, valid until
   * the next object is added.
   */
  addNamed(size: number, source: ObjectSource, type: ObjectType = 'blob'): Buffer | Promise<Buffer> {
    const pack = (this.#pack ??= this.#open());
    const added = size <= MAX_AT_ONCE ? pack.addAtOnce(size, source, type) : pack.add(size, source, type);
    return Buffer.isBuffer(added) && !this.#isDue(pack) ? added : this.#completeAfter(added, pack);
  }

  /**
   * Completes the pack: once the promise is fulfilled, git sees all objects added so far. More may be added
   * before that.
   */
  complete(): Promise<void> {
    const pack = this.#pack;
    this.#pack = undefined;
    this.#bytes += pack?.size ?? 0;
    const before = this.#completed;
    this.#completed = (async () => {
      await Promise.all([before, pack?.close()]);
      this.#workspace = pack?.workspace;
    })();
    // An error reaches the caller that awaits it; when the pull fails first, no caller does.
    this.#completed.catch(() => undefined);
    return this.#completed;
  }

  #open(): PackWriter {
    const workspace = this.#workspace;
    this.#workspace = undefined;
    const planned = Math.max(SMALLEST_PLAN, Math.floor(this.#known.count * PLANNED_PART));
    return new PackWriter(this.#directory, this.#known, this.#pause, planned, workspace);
  }

  #isDue(pack: PackWriter): boolean {
    return pack.isFull || pack.size >= Math.max(LARGE_PACK, this.#bytes * LARGE_PART);
  }

  async #completeAfter(added: Buffer | Promise<Buffer>, pack: PackWriter): Promise<Buffer> {
    const name = await added;
    if (this.#isDue(pack)) await this.complete();
    return name;
  }

  /** Removes what was not completed. */
  async discard(): Promise<void> {
    this.#pack?.discard();
    this.#pack = undefined;
    await this.#completed.catch(() => undefined);
  }
}

const IDS_AT_ONCE = 2048;

/**
 * Makes blobs of contents, each once, in packs that git sees when the promise is fulfilled.
 *
 * @param directory `objects/pack` of the repository
 * @param tell gets the ids of the blobs, in the order of the contents, many at a time
 * @throws errors of `contents`; GitError, also if a content has another number than its place; the system's
 * errors
 */
export async function packBlobs(
  contents: Pick<ContentReader, 'next' | 'fill' | 'number'>,
  directory: string,
  tell: (ids: PackedIds) => void,
): Promise<void> {
  const store = new ObjectStore(directory, () => Promise.resolve());
  const source: ObjectSource = (into, at, count) => {
    if (!contents.fill(into, at, count)) throw new GitError('a file is shorter than its size');
  };
  let ids = Buffer.allocUnsafeSlow(IDS_AT_ONCE * ID_BYTES);
  let length = 0;
  let first = 0;
  const flush = (): void => {
    if (length > 0) tell({ first, ids: ids.subarray(0, length) });
    ids = Buffer.allocUnsafeSlow(IDS_AT_ONCE * ID_BYTES);
    first += length / ID_BYTES;
    length = 0;
  };
  for (let size = contents.next(); size !== undefined; size = contents.next()) {
    const expected = first + length / ID_BYTES;
    if (contents.number !== expected) throw outOfStep(contents.number, expected);
    if (size === 'flush') {
      flush();
      continue;
    }
    const added = store.addNamed(size, source);
    length += (Buffer.isBuffer(added) ? added : await added).copy(ids, length);
    if (length === ids.length) flush();
  }
  flush();
  await store.complete();
}
