import { Worker } from 'node:worker_threads';

/**
 * The threads of the program: the script of each, and the size of its heap of young objects in MiB. Few of
 * their objects live long.
 */
export const threads = {
  rootfs: { script: '../rootfs/thread.ts', youngMiB: 2 },
  packer: { script: '../git/packer-thread.ts', youngMiB: 2 },
  decoder: { script: '../commands/decoder-thread.ts', youngMiB: 1 },
} as const;

export type ThreadName = keyof typeof threads;

/**
 * Starts a thread from its script. The single executable replaces this function, and starts it from memory.
 */
export function startThread(name: ThreadName, workerData: unknown): Worker {
  const { script, youngMiB } = threads[name];
  const resourceLimits = { maxYoungGenerationSizeMb: youngMiB };
  return new Worker(new URL(script, import.meta.url), { name, workerData, resourceLimits });
}
