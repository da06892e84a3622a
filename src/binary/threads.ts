import path from 'node:path';
import { getAsset } from 'node:sea';
import { getEnvironmentData, Worker } from 'node:worker_threads';
import { type ThreadName, threads } from '../sys/threads.ts';
import { LIBRARY_KEY } from './koffi.ts';
import type { StartMessage } from './launch-thread.ts';

/** The thread `rootfs`, until its first message. */
let waiting: Worker | undefined;

/**
 * Starts the thread `rootfs` early: it loads on another processor, for 50 ms or more, while this one loads
 * the program and connects to the registry.
 */
export function warmThread(): void {
  const worker = launch('rootfs');
  waiting = worker;
  worker.unref();
  const forget = (): void => {
    if (waiting === worker) waiting = undefined;
  };
  worker.once('error', forget).once('exit', forget);
}

/** Starts a thread from a script in the single executable. */
export function startThread(name: ThreadName, workerData: unknown): Worker {
  const worker = (name === 'rootfs' ? waiting : undefined) ?? launch(name);
  if (worker === waiting) waiting = undefined;
  worker.ref();
  // A thread that started before the library was loaded did not inherit its descriptor.
  const message: StartMessage = { workerData, library: getEnvironmentData(LIBRARY_KEY) };
  worker.postMessage(message, []);
  return worker;
}

function launch(name: ThreadName): Worker {
  const { script, youngMiB } = threads[name];
  return new Worker(getAsset('launch-thread.js', 'latin1'), {
    name,
    resourceLimits: { maxYoungGenerationSizeMb: youngMiB },
    workerData: path.basename(script).replace(/\.ts$/, '.js'),
    eval: true,
  });
}
