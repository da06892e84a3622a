import type { ObjectID } from './object-id.ts';
import { PackWriter, type BlobSource } from './pack-writer.ts';

/** From this size on, in bytes, a pack is completed while the next layer is being applied. */
const packSize = 64 * 2 ** 20;

/** The blobs of a run: each once, in as many packs as it takes. */
export class BlobStore {
  readonly #directory: string;
  readonly #breathe: () => Promise<void>;
  readonly #known = new Map<ObjectID, number>();
  readonly #closing: Promise<void>[] = [];
  #pack: PackWriter | undefined;

  /**
   * @param directory `objects/pack` of the repository
   * @param breathe called in long loops
   */
  constructor(directory: string, breathe: () => Promise<void>) {
    this.#directory = directory;
    this.#breathe = breathe;
  }

  /** Adds a blob of `size` bytes. What `source` throws goes through. */
  add(size: number, source: BlobSource): Promise<ObjectID> {
    this.#pack ??= new PackWriter(this.#directory, this.#known, this.#breathe);
    return this.#pack.add(size, source);
  }

  /** Between two layers: completes a large pack, without making anyone wait. */
  rollOver(): void {
    if (this.#pack && this.#pack.size >= packSize) this.#completePack();
  }

  /** Completes all packs: git sees the blobs from then on. */
  async close(): Promise<void> {
    this.#completePack();
    await Promise.all(this.#closing);
  }

  /** Leaves nothing behind that was not completed. */
  async discard(): Promise<void> {
    this.#pack?.discard();
    this.#pack = undefined;
    await Promise.allSettled(this.#closing);
  }

  #completePack(): void {
    if (!this.#pack) return;
    const closing = this.#pack.close();
    // Who awaits it gets the error; when the pull fails first, nobody does.
    closing.catch(() => undefined);
    this.#closing.push(closing);
    this.#pack = undefined;
  }
}
