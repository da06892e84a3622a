/**
 * Pulls layers from files in a separate process, which may have another user or folder, or be killed. `node
 * pull-layers.ts '{"directory": …, "layers": [paths], "backend": …, "hang": …}'` prints one line of JSON.
 */
import { readFileSync, writeSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { Decoder } from '../../src/blob/decode/decoder.ts';
import { Destination } from '../../src/rootfs/destination.ts';
import type { Backend } from '../../src/rootfs/confined-root.ts';
import type { NotRestored } from '../../src/rootfs/not-restored.ts';
import { Rootfs } from '../../src/rootfs/rootfs.ts';
import { chunks, decoding } from './harness.ts';

export interface PullRequest {
  readonly directory: string;
  readonly layers: readonly string[];
  readonly backend?: Backend;
  /** True: the layers are merged into the files of the directory. */
  readonly merge?: boolean;
  readonly umask?: number;
  /** True: layers are compressed; the decoder's thread decodes them and writes part of the files. */
  readonly decoder?: boolean;
  /**
   * True: when all layers are applied it prints `applied`, and waits for a minute before it closes the
   * rootfs.
   */
  readonly hang?: boolean;
}

export interface PullOutcome {
  readonly mode?: string;
  readonly counts?: NotRestored;
  readonly error?: {
    readonly name: string;
    readonly message: string;
    readonly exitCode?: number;
    readonly code?: string;
  };
}

async function pull(request: PullRequest): Promise<PullOutcome> {
  if (request.umask !== undefined) process.umask(request.umask);
  const destination = await Destination.open(request.directory, request.merge);
  let rootfs: Rootfs | undefined;
  let decoder: Decoder | undefined;
  try {
    rootfs = await Rootfs.open(destination.root.self, {
      mode: destination.mode,
      name: request.directory,
      backend: request.backend,
    });
    if (request.decoder === true) decoder = new Decoder(rootfs);
    for (const [index, layer] of request.layers.entries()) {
      const bytes = readFileSync(layer);
      const options = { label: `layer ${index}` };
      if (decoder) await rootfs.applyFrom(decoding(decoder, gzipSync(bytes)), options);
      else await rootfs.apply(chunks(bytes), options);
    }
    await rootfs.writeLayerInfo('json', Buffer.from('{}'));
    if (request.hang === true) {
      writeSync(1, 'applied\n');
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    }
    const counts = await rootfs.close(destination.metadata);
    await decoder?.discard();
    await destination.commit(rootfs.identity);
    return { mode: destination.mode, counts };
  } catch (error) {
    await rootfs?.discard();
    await decoder?.discard();
    await destination.discard();
    throw error;
  }
}

const outcome = await pull(JSON.parse(process.argv[2]!) as PullRequest).catch(
  (error: unknown): PullOutcome => {
    const { name, message, exitCode, code } = error as Error & { exitCode?: number; code?: string };
    return {
      error: {
        name,
        message,
        ...(exitCode !== undefined && { exitCode }),
        ...(code !== undefined && { code }),
      },
    };
  },
);
process.stdout.write(`${JSON.stringify(outcome)}\n`);
