import { GitError } from '../errors.ts';
import { type ObjectID, ID_SIZE } from './objects.ts';
import { type ObjectSource, type ObjectType, PackWriter } from './pack-writer.ts';

/** In bytes: what takes about a millisecond. */
const SMALL = 256 * 1024;

/** The objects of a run: each once, in as many packs as it takes. */
export class ObjectStore {
  readonly #directory: string;
  readonly #pause: () => Promise<void>;
  readonly #known = new Map<ObjectID, number>();
  #pack: PackWriter | undefined;
  #completed: Promise<void> = Promise.resolve();

  /**
   * @param directory `objects/pack` of the repository
   * @param pause called in long loops
   */
  constructor(directory: string, pause: () => Promise<void>) {
    this.#directory = directory;
    this.#pause = pause;
  }

  /** Bytes that no completed pack holds. */
  get pending(): number {
    return this.#pack?.size ?? 0;
  }

  /** Adds an object of `size` bytes: at once when it is small. What `source` throws goes through. */
  add(size: number, source: ObjectSource, type: ObjectType = 'blob'): ObjectID | Promise<ObjectID> {
    this.#pack ??= new PackWriter(this.#directory, this.#known, this.#pause);
    return size <= SMALL ? this.#pack.addAtOnce(size, source, type) : this.#pack.add(size, source, type);
  }

  /** Completes the pack: git sees all objects added so far when the promise is fulfilled. More may be added in the meantime. */
  complete(): Promise<void> {
    const pack = this.#pack;
    this.#pack = undefined;
    const before = this.#completed;
    this.#completed = (async () => {
      await Promise.all([before, pack?.close()]);
    })();
    // An error reaches the caller that awaits it; when the pull fails first, no caller does.
    this.#completed.catch(() => undefined);
    return this.#completed;
  }

  /** Leaves nothing behind that was not completed. */
  async discard(): Promise<void> {
    this.#pack?.discard();
    this.#pack = undefined;
    await this.#completed.catch(() => undefined);
  }
}

/** Contents, one after the other: see `BlobPacker`. */
export interface Contents {
  /** Size of the next content; `settle` where its names are awaited; undefined after the last one. */
  next(): number | 'settle' | undefined;
  /** Puts its next `length` bytes at `at`; false when there are none. */
  fill(into: Uint8Array, at: number, length: number): boolean;
}

const NAMES_AT_ONCE = 2048;

/** In bytes: what has to be read once more at the end, as a pack's checksum is of all of it (see `PackWriter.close`). */
const SMALLEST_PACK = 64 * 2 ** 20;

/**
 * Makes blobs of contents, each once, in packs that git sees when the promise is fulfilled.
 *
 * @param directory `objects/pack` of the repository
 * @param tell told the names of the blobs, `idSize` bytes each, in the order of the contents, many at a time
 * @throws what `contents` throws, GitError, the system's errors
 */
export async function packBlobs(
  contents: Contents,
  directory: string,
  tell: (ids: Uint8Array) => void,
): Promise<void> {
  const store = new ObjectStore(directory, () => Promise.resolve());
  let ids = Buffer.allocUnsafeSlow(NAMES_AT_ONCE * ID_SIZE);
  let length = 0;
  const answer = (): void => {
    if (length > 0) tell(ids.subarray(0, length));
    ids = Buffer.allocUnsafeSlow(NAMES_AT_ONCE * ID_SIZE);
    length = 0;
  };
  let completed = 0;
  for (let size = contents.next(); size !== undefined; size = contents.next()) {
    if (size === 'settle') {
      answer();
      continue;
    }
    const added = store.add(size, (into, at, count) => {
      if (!contents.fill(into, at, count)) throw new GitError('a file ended before its end');
    });
    length += ids.write(typeof added === 'string' ? added : await added, length, 'hex');
    if (length === ids.length) answer();
    if (store.pending < Math.max(SMALLEST_PACK, completed / 4)) continue;
    completed += store.pending;
    await store.complete();
  }
  answer();
  await store.complete();
}
