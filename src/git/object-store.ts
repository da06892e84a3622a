import type { ObjectID } from './object-id.ts';
import { PackWriter, type ObjectSource, type ObjectType } from './pack-writer.ts';

/** In bytes: what takes about a millisecond. */
const small = 256 * 1024;

/** The objects of a run: each once, in as many packs as it takes. */
export class ObjectStore {
  readonly #directory: string;
  readonly #breathe: () => Promise<void>;
  readonly #known = new Map<ObjectID, number>();
  #pack: PackWriter | undefined;
  #completed: Promise<void> = Promise.resolve();

  /**
   * @param directory `objects/pack` of the repository
   * @param breathe called in long loops
   */
  constructor(directory: string, breathe: () => Promise<void>) {
    this.#directory = directory;
    this.#breathe = breathe;
  }

  /** Bytes that no completed pack holds. */
  get pending(): number {
    return this.#pack?.size ?? 0;
  }

  /** Adds an object of `size` bytes: at once when it is small. What `source` throws goes through. */
  add(size: number, source: ObjectSource, type: ObjectType = 'blob'): ObjectID | Promise<ObjectID> {
    this.#pack ??= new PackWriter(this.#directory, this.#known, this.#breathe);
    return size <= small ? this.#pack.addAtOnce(size, source, type) : this.#pack.add(size, source, type);
  }

  /** Completes the pack: git sees all objects added so far when the promise is fulfilled. More may be added in the meantime. */
  complete(): Promise<void> {
    const pack = this.#pack;
    this.#pack = undefined;
    const before = this.#completed;
    this.#completed = (async () => {
      await Promise.all([before, pack?.close()]);
    })();
    // Who awaits it gets the error; when the pull fails first, nobody does.
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
