import { compileScript, requireBuiltin, requireScript } from './script.ts';

// The first script of the writing thread in the single executable. It gets everything ready, then waits for what a thread is
// usually started with.
const threads = requireBuiltin('node:worker_threads') as typeof import('node:worker_threads');
compileScript('thread.js');
for (const id of ['node:crypto', 'node:fs', 'node:os', 'node:util']) requireBuiltin(id);
threads.parentPort?.once('message', (data: unknown) => {
  Object.assign(threads, { workerData: data });
  requireScript('thread.js');
});
