import { withAllLayers } from './blob/queue.ts';
import { ArchiveFile } from './flatten/archive-file.ts';
import { compressionFor, flatten } from './flatten/flatten.ts';
import type { PullOptions } from './options.ts';
import { resolveImage, withSession } from './with-session.ts';

/** A stream that takes bytes and is not ours to close: standard output. */
export type OpenOutput = NodeJS.WritableStream & Parameters<typeof flatten>[1];

/**
 * Writes an image's flattened root file system as one archive, without a rootfs on disk: `output` names the file (its ending says
 * how it is compressed), `-` is standard output. Throws as `pull` does; a file appears whole or not at all.
 */
export async function exportArchive(options: PullOptions, output: string, stdout: OpenOutput): Promise<void> {
  const { report, signal, jobs } = options;
  const compression = compressionFor(output);
  await withSession(options, async (opened) => {
    const { source, store } = opened;
    const image = await resolveImage(opened, options);
    const file = output === '-' ? undefined : await ArchiveFile.create(output);
    try {
      const queue = { store, jobs, policy: options.retryPolicy, signal, report };
      const { ignored } = await withAllLayers(image.layers, queue, (layers) =>
        flatten(
          layers.map((layer) => ({ name: layer.layer.id.slice(0, 12), open: () => layer.tar() })),
          file?.output ?? stdout,
          { compression, temporaryFile: () => store.spool(), keepOpen: file === undefined, signal },
        ),
      );
      await file?.commit();
      if (ignored > 0)
        report({
          type: 'notice',
          message: `${ignored} entries for the root that are no directory are left out`,
        });
    } catch (error) {
      await file?.discard();
      throw error;
    }
    report({ type: 'done', reference: source.reference, destination: output });
  });
}
