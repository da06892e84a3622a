// Runs the program in plain Node as the single executable does, and at the end writes a code cache of each
// script with all compiled functions of the run. code-cache.ts starts it for the program, and the program
// starts it for its thread. TRAINING_DIRECTORY holds the scripts and gets the caches.
import { ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Script } from 'node:vm';
import { isMainThread } from 'node:worker_threads';
import type { StartMessage } from '../../src/binary/launch-thread.ts';
import { wrapperHead, wrapperTail } from '../../src/binary/script.ts';

const directory = process.env['TRAINING_DIRECTORY'] ?? '';
const requireBuiltin = createRequire('/');
/** Scripts by name, with the open files of their caches, which a thread under Landlock can still write. */
const compiled = new Map<string, { readonly script: Script; readonly cache: number }>();
const loaded = new Map<string, { exports: unknown }>();

/** Replaces node:sea, which has assets only inside a single executable. */
const assets = {
  getAssetKeys: () => [],
  getRawAsset: (name: string) => new Uint8Array(readFileSync(`${directory}/${name}`)).buffer,
  getAsset: () => `import(${JSON.stringify(import.meta.url)})`,
};

function requireScript(name: string): unknown {
  const known = loaded.get(name);
  if (known) return known.exports;
  const script = new Script(wrapperHead + readFileSync(`${directory}/${name}`, 'latin1') + wrapperTail, {
    filename: name,
  });
  const module = { exports: {} };
  compiled.set(name, { script, cache: openSync(`${directory}/${name}.cache`, 'w') });
  loaded.set(name, module);
  const wrapped = script.runInThisContext() as (...parameters: unknown[]) => void;
  wrapped(requireFromScript, module, module.exports);
  return module.exports;
}

function requireFromScript(id: string): unknown {
  if (id === 'node:sea') return assets;
  return id.startsWith('./') ? requireScript(id.slice(2)) : requireBuiltin(id);
}

function writeCaches(): void {
  for (const { script, cache } of compiled.values()) {
    const bytes = script.createCachedData();
    let written = 0;
    while (written < bytes.length)
      written += writeSync(cache, bytes, written, bytes.length - written, written);
    ftruncateSync(cache, bytes.length);
  }
}

if (isMainThread) {
  process.on('exit', writeCaches);
  void (requireScript('cli.js') as typeof import('../../src/cli.ts')).main();
} else {
  trainThread();
}

/**
 * Does the same as launch-thread.ts. The program does not wait for its threads, so the thread writes its
 * cache with each of its messages.
 */
function trainThread(): void {
  const threads = requireBuiltin('node:worker_threads') as typeof import('node:worker_threads');
  const port = threads.parentPort;
  if (!port) throw new Error('no thread');
  const post = port.postMessage.bind(port);
  port.postMessage = (message: unknown) => {
    writeCaches();
    post(message);
  };
  const script = threads.workerData as string;
  port.once('message', ({ workerData }: StartMessage) => {
    Object.assign(threads, { workerData });
    requireScript(script);
  });
}
