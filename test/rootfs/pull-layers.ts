/**
 * A pull of layers that are files, in a process of its own (of another user, with another folder, to be killed):
 * `node pull-layers.ts '{"directory": …, "layers": [paths], "backend": …, "pause": …}'`. Prints one line of JSON.
 */
import { readFileSync, writeSync } from 'node:fs';
import { Destination } from '../../src/rootfs/destination.ts';
import { Rootfs, type Backend, type NotRestored } from '../../src/rootfs/rootfs.ts';
import { chunks } from './harness.ts';

export interface PullRequest {
  readonly directory: string;
  readonly layers: readonly string[];
  readonly backend?: Backend;
  readonly umask?: number;
  /** Say `applied` and wait for ever when all layers are applied, before the rootfs is closed. */
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
  const destination = await Destination.open(request.directory);
  let rootfs: Rootfs | undefined;
  try {
    rootfs = await Rootfs.open(destination.path, {
      mode: destination.mode,
      name: request.directory,
      backend: request.backend,
    });
    for (const [index, layer] of request.layers.entries()) {
      await rootfs.apply(chunks(readFileSync(layer)), { label: `layer ${index}` });
    }
    await rootfs.writeLayerInfo('json', Buffer.from('{}'));
    if (request.hang === true) {
      writeSync(1, 'applied\n');
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    }
    const counts = await rootfs.close(destination.root);
    await destination.commit(rootfs.identity);
    return { mode: destination.mode, counts };
  } catch (error) {
    await rootfs?.discard();
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
