import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import type { TestContext } from 'node:test';
import type { ImageLayer } from '../../src/rootfs/image-contents.ts';
import { flatten, type FlattenOptions } from '../../src/archive/flatten.ts';

/** A directory that is removed after the test, whatever is in it. */
export function temporaryDirectory(t: TestContext): string {
  const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'dlrootfs-flatten-')));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A file without a name; counts how many were asked for. */
export const spool = {
  files: 0,
  async file(this: void): Promise<FileHandle> {
    spool.files += 1;
    const name = path.join(tmpdir(), `dlrootfs-spool-${process.pid}-${spool.files}`);
    const handle = await open(name, 'wx+');
    await unlink(name);
    return handle;
  },
};

/** Layers whose chunks are valid only until the next one is asked for. */
export function layersOf(archives: readonly Uint8Array[], chunkSize = 1000): ImageLayer[] {
  return archives.map((archive, index) => ({
    name: `layer ${index}`,
    async *open() {
      for (let at = 0; at < archive.length; at += chunkSize) {
        const chunk = Uint8Array.from(archive.subarray(at, at + chunkSize));
        yield chunk;
        chunk.fill(0xaa);
      }
    },
  }));
}

/** Keeps all that is written to it. */
export class Collector extends Writable {
  readonly chunks: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.chunks.push(chunk);
    done();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
}

/** The flattened archive of layers, not compressed unless asked for. */
export async function flattened(
  archives: readonly Uint8Array[],
  options: Partial<FlattenOptions> & { readonly chunkSize?: number } = {},
): Promise<Buffer> {
  const output = new Collector();
  const { chunkSize, ...others } = options;
  await flatten(layersOf(archives, chunkSize), output, {
    compression: 'none',
    temporaryFile: spool.file,
    ...others,
  });
  return output.bytes;
}
