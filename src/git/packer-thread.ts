import { parentPort, workerData } from 'node:worker_threads';
import { asGitError } from './git-error.ts';
import { packBlobs } from './object-store.ts';
import type { PackerData, PackerMessage } from './packer.ts';
import { ContentReader } from '../rootfs/contents.ts';
import { serializeError } from '../sys/thread-calls.ts';
import { RingAborted, RingReader } from '../sys/ring.ts';

// Entry point of the packer's thread, for -g: it receives contents through the ring, and sends back the ids
// of blobs.
const port = parentPort!;
const { ring, directory } = workerData as PackerData;
const post = (message: PackerMessage): void => port.postMessage(message);
const source = new RingReader(ring);

packBlobs(new ContentReader(source), directory, post).then(
  () => post('done'),
  (error: unknown) => {
    if (!(error instanceof RingAborted)) {
      post({
        failure: serializeError(asGitError(error, 'cannot pack the contents of files for git')),
      });
    }
    source.fail();
  },
);
