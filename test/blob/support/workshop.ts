import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { FetchOptions } from '../../../src/blob/layer-blob.ts';
import { layerQueue, withoutCorruptBlobs } from '../../../src/blob/queue.ts';
import { Store, type StoreOptions } from '../../../src/blob/store.ts';
import type { Layer } from '../../../src/oci/image.ts';
import type { PullEvent } from '../../../src/report/event.ts';
import { OpenDirectory } from '../../../src/sys/open-directory.ts';
import { RequestQueue } from '../../../src/sys/request-queue.ts';
import { namelessFile } from '../../../src/sys/temp-file.ts';

/** @param jobs limit on the connections of a pull; default 7 */
export type ShopOptions = Partial<FetchOptions> & { readonly jobs?: number };

/** A folder for one test, with a cache, a spool, and all reported events. */
export class Workshop implements AsyncDisposable {
  readonly directory: string;
  readonly events: PullEvent[] = [];
  /** Number of bytes of tars that pulls have returned. */
  given = 0;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(): Promise<Workshop> {
    return new Workshop(await mkdtemp(path.join(tmpdir(), 'dlrootfs-blob-')));
  }

  get cache(): string {
    return path.join(this.directory, 'cache');
  }

  get notices(): string[] {
    return this.events.filter((event) => event.type === 'notice').map((event) => event.message);
  }

  async namelessFile(): Promise<FileHandle> {
    using directory = OpenDirectory.open(this.directory);
    return await namelessFile(directory);
  }

  async store(options: Partial<StoreOptions> = {}): Promise<Store> {
    return Store.open({
      directory: this.cache,
      spoolDirectory: path.join(this.directory, 'spool'),
      maxBytes: 2 ** 30,
      report: (event) => this.events.push(event),
      ...options,
    });
  }

  /** Pulls all layers; returns the tars. */
  async pull(layers: readonly Layer[], options: ShopOptions = {}): Promise<Buffer[]> {
    const store = options.store ?? (await this.store());
    const tars: Buffer[] = [];
    try {
      for await (const pulled of layerQueue(layers, this.#with(options, store))) {
        const chunks: Buffer[] = [];
        for await (const chunk of pulled.tar()) {
          chunks.push(Buffer.from(chunk));
          this.given += chunk.length;
        }
        tars.push(Buffer.concat(chunks));
      }
    } finally {
      if (!options.store) await store.close();
    }
    return tars;
  }

  /** Pulls all layers as the program does: after a corrupt blob it starts again without this blob. */
  async pullAgain(layers: readonly Layer[], options: ShopOptions = {}): Promise<Buffer[]> {
    const report = (event: PullEvent) => void this.events.push(event);
    return withoutCorruptBlobs(report, (careful) => this.pull(layers, { ...options, careful }));
  }

  #with(options: ShopOptions, store: Store): FetchOptions {
    return {
      store,
      requests: new RequestQueue(options.jobs ?? 7),
      retryPolicy: { retries: 2, delay: 10 },
      signal: new AbortController().signal,
      report: (event) => this.events.push(event),
      ...options,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Returns random bytes, which no compressor makes smaller. */
export function noise(length: number): Buffer {
  return randomBytes(length);
}
