import { getAsset } from 'node:sea';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** A thread that waits for its first message, and what it was started with. */
interface Waiting {
  readonly worker: Worker;
  readonly limits: string;
}

/** What the writing thread asks for; a thread started with other limits than it then wants is not used. */
const expected: WorkerOptions = { name: 'rootfs', resourceLimits: { maxYoungGenerationSizeMb: 2 } };

let waiting: Waiting | undefined;

/**
 * Starts the thread before anybody wants it: it gets ready on another processor, 50 ms or more, while this one loads the
 * program and talks to the registry.
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

/** Starts the writing thread from the single executable's own scripts: there is no file to start it from. */
export function spawnThread(options: WorkerOptions): Worker {
  const ready = waiting?.limits === limitsOf(options) ? waiting.worker : start('thread.js', options);
  waiting = undefined;
  ready.ref();
  ready.postMessage(options.workerData, options.transferList);
  return ready;
}

/** Starts the thread that packs what files hold. */
export function spawnPacker(options: WorkerOptions): Worker {
  const worker = start('packer-thread.js', options);
  worker.postMessage(options.workerData, options.transferList);
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

function limitsOf({ resourceLimits }: WorkerOptions): string {
  return JSON.stringify(resourceLimits);
}
