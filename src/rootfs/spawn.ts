import { Worker, type WorkerOptions } from 'node:worker_threads';

/** Starts the writing thread from its own file; the single executable starts it from memory in this place. */
export function spawnThread(options: WorkerOptions): Worker {
  return new Worker(new URL('./thread.ts', import.meta.url), options);
}

/** Starts the thread that packs what files hold, in the same manner. */
export function spawnPacker(options: WorkerOptions): Worker {
  return new Worker(new URL('../packer-thread.ts', import.meta.url), options);
}

/** Starts the thread that decodes blobs. */
export function spawnDecoder(options: WorkerOptions): Worker {
  return new Worker(new URL('../decoder-thread.ts', import.meta.url), options);
}
