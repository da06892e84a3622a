import { parentPort, workerData } from 'node:worker_threads';
import { type DecoderData, type DecoderOrder, DecoderWork } from '../blob/decode/decoder.ts';
import { FileJobRunner } from '../rootfs/file-jobs.ts';
import { LinuxFilesystem } from '../rootfs/linux.ts';
import type { SharedMemory } from '../rootfs/rootfs.ts';
import { giveUpWriting } from '../sys/landlock.ts';
import { RingDigest } from '../sys/ring-digest.ts';
import { RingReader, RingWriter } from '../sys/ring.ts';
import { systemCalls } from '../sys/system-calls.ts';

// Entry point of the decoder's thread, which runs while large layers are unpacked.
// It decodes for `blob`, and writes open files for `rootfs`.
const { input, memory } = workerData as DecoderData<SharedMemory>;
const output = new RingWriter(memory.ring);
const jobs = new FileJobRunner(memory.jobs, output.bytes, LinuxFilesystem.ofOpenFiles(systemCalls()!));
const digest = new RingDigest(memory.digest, output.bytes);
const work = new DecoderWork(new RingReader(input), output, jobs, digest);

// All libraries are loaded. This thread only writes files that are open.
giveUpWriting();

const port = parentPort!;
port.on('message', (order: DecoderOrder) => {
  if (order === 'end') port.close();
  else port.postMessage(work.run(order));
});
