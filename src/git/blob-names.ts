import { idSize, type ObjectID } from './object-id.ts';
import type { Inode } from './rootfs-state.ts';

/** Gives files and symlinks the names of their blobs, which come from elsewhere in the same order. */
export class BlobNames {
  #waiting: Inode[] = [];
  #named = 0;
  #ids: Uint8Array[] = [];
  #failure: { readonly reason: unknown } | undefined;
  #settled: (() => void) | undefined;

  /** What was written next. */
  expect(inodes: readonly Inode[]): void {
    for (const inode of inodes) this.#waiting.push(inode);
    this.#match();
  }

  /** The next names, `idSize` bytes each. */
  take(ids: Uint8Array): void {
    this.#ids.push(ids);
    this.#match();
  }

  /** No more names will come. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#settled?.();
  }

  /** Waits until all have their names. Throws what it failed with. */
  async settled(): Promise<void> {
    while (this.#waiting.length > 0) {
      if (this.#failure) throw this.#failure.reason;
      await new Promise<void>((resolve) => {
        this.#settled = resolve;
      });
    }
  }

  #match(): void {
    for (let ids = this.#ids[0]; ids && this.#named < this.#waiting.length;) {
      this.#waiting[this.#named++]!.id = Buffer.from(ids.buffer, ids.byteOffset, idSize).toString(
        'hex',
      ) as ObjectID;
      this.#ids[0] = ids = ids.subarray(idSize);
      if (ids.length > 0) continue;
      this.#ids.shift();
      ids = this.#ids[0]!;
    }
    if (this.#named < this.#waiting.length) return;
    this.#waiting = [];
    this.#named = 0;
    this.#settled?.();
  }
}
