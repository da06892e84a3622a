import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import type { TestContext } from 'node:test';
import type { ImageLayer } from '../../src/rootfs/image-contents.ts';
import { type ArchiveOptions, writeArchive } from '../../src/archive/flatten.ts';
import { ImageTree } from '../../src/rootfs/image-tree.ts';
import type { NotRestored } from '../../src/rootfs/not-restored.ts';

/** A directory that is removed after the test with its content. */
export function temporaryDirectory(t: TestContext): string {
  const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'dlrootfs-flatten-')));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Returns a file without a name, and counts the calls. */
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

/** Layers whose chunks are valid only until the next one is requested. */
export function layersOf(archives: readonly Uint8Array[], chunkSize = 1000): ImageLayer[] {
  return archives.map((archive, index) => {
    async function* chunks() {
      for (let at = 0; at < archive.length; at += chunkSize) {
        const chunk = Uint8Array.from(archive.subarray(at, at + chunkSize));
        yield chunk;
        chunk.fill(0xaa);
      }
    }
    return { name: `layer ${index}`, open: chunks, reopen: chunks };
  });
}

/** Keeps all bytes that are written to it. */
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

type FlattenOptions = Partial<Pick<ArchiveOptions, 'compression' | 'signal'>>;

/** Writes the flattened archive of layers, uncompressed by default. */
export async function flatten(
  layers: readonly ImageLayer[],
  output: Writable,
  { compression = 'none', signal }: FlattenOptions = {},
): Promise<{ readonly layerEntries: readonly number[]; readonly notRestored: NotRestored }> {
  const tree = await ImageTree.build(layers, {
    name: 'the image',
    temporaryFile: spool.file,
    temporaryDirectory: tmpdir(),
  });
  try {
    await writeArchive(tree, output, { compression, name: 'the archive', signal });
    return { layerEntries: tree.layerEntries, notRestored: tree.counts };
  } finally {
    await tree.close();
  }
}

/** Returns the flattened archive of layers. */
export async function flattened(
  archives: readonly Uint8Array[],
  options: FlattenOptions & { readonly chunkSize?: number } = {},
): Promise<Buffer> {
  const output = new Collector();
  await flatten(layersOf(archives, options.chunkSize), output, options);
  return output.bytes;
}
