import { Worker } from 'node:worker_threads';
import type { WorkerOptions } from 'node:worker_threads';

/** Starts the writing thread from its own file; the single executable starts it from memory in this place. */
export function spawnThread(options: WorkerOptions): Worker {
  return new Worker(new URL('./thread.ts', import.meta.url), options);
}
