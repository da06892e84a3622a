import { parentPort, workerData } from 'node:worker_threads';
import { asGitError, ELSEWHERE } from './git/git-error.ts';
import { packBlobs } from './git/object-store.ts';
import type { PackerData, PackerMessage } from './packer.ts';
import { ContentReader } from './rootfs/contents.ts';
import { toFailure } from './rootfs/messages.ts';
import { RingAborted, RingReader } from './rootfs/ring.ts';

// What runs in a thread of its own with -g: contents come through the ring, names of blobs go back.
const port = parentPort!;
const { ring, directory } = workerData as PackerData;
const post = (message: PackerMessage): void => port.postMessage(message);
const source = new RingReader(ring);

packBlobs(new ContentReader(source), directory, (ids) => post({ ids })).then(
  () => post('done'),
  (error: unknown) => {
    if (!(error instanceof RingAborted)) {
      post({ failure: toFailure(asGitError(error, 'git could not be given what files hold', ELSEWHERE)) });
    }
    source.fail();
  },
);
