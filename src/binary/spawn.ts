import { getAsset } from 'node:sea';
import { getEnvironmentData, Worker, type WorkerOptions } from 'node:worker_threads';
import { LIBRARY_KEY } from './koffi.ts';
import type { StartMessage } from './launch-thread.ts';

/** A thread that waits for its first message, and the limits that it was started with. */
interface Waiting {
  readonly worker: Worker;
  readonly limits: string;
}

/** The options of the writing thread; a thread that was started with other limits is not used. */
const expected: WorkerOptions = { name: 'rootfs', resourceLimits: { maxYoungGenerationSizeMb: 2 } };

let waiting: Waiting | undefined;

/**
 * Starts the thread ahead of time: it loads on another processor, for 50 ms or more, while this one loads the program and
 * connects to the registry.
 */
export function warmThread(): void {
  const worker = start('thread.js', expected);
  waiting = { worker, limits: limitsOf(expected) };
  worker.unref();
  const forget = (): void => {
    if (waiting?.worker === worker) waiting = undefined;
  };
  worker.once('error', forget).once('exit', forget);
}

/** Starts the writing thread from a script in the single executable. */
export function spawnThread(options: WorkerOptions): Worker {
  const ready = waiting?.limits === limitsOf(options) ? waiting.worker : start('thread.js', options);
  waiting = undefined;
  ready.ref();
  begin(ready, options);
  return ready;
}

/** Starts the thread that packs file contents for git. */
export function spawnPacker(options: WorkerOptions): Worker {
  const worker = start('packer-thread.js', options);
  begin(worker, options);
  return worker;
}

/** Starts the thread that decodes blobs. */
export function spawnDecoder(options: WorkerOptions): Worker {
  const worker = start('decoder-thread.js', options);
  begin(worker, options);
  return worker;
}

function start(script: string, { name, resourceLimits }: WorkerOptions): Worker {
  return new Worker(getAsset('launch-thread.js', 'latin1'), {
    name,
    resourceLimits,
    workerData: script,
    eval: true,
  });
}

function begin(worker: Worker, { workerData, transferList }: WorkerOptions): void {
  // A thread that was started before the library was loaded did not inherit its path.
  const message: StartMessage = { workerData, library: getEnvironmentData(LIBRARY_KEY) };
  worker.postMessage(message, transferList);
}

function limitsOf({ resourceLimits }: WorkerOptions): string {
  return JSON.stringify(resourceLimits);
}
