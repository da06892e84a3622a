import { getAsset } from 'node:sea';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** Starts the writing thread from the single executable's own scripts: there is no file to start it from. */
export function spawnThread(options: WorkerOptions): Worker {
  return new Worker(getAsset('launch-thread.js', 'latin1'), { ...options, eval: true });
}
