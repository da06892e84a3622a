import { compileScript, requireBuiltin, requireScript } from './script.ts';

// The first script of each thread in the single executable, which is told by `workerData` what to run. It gets everything ready, then waits for what a thread is
// usually started with.
const threads = requireBuiltin('node:worker_threads') as typeof import('node:worker_threads');
const script = threads.workerData as string;
compileScript(script);
for (const id of ['node:crypto', 'node:fs', 'node:os', 'node:util']) requireBuiltin(id);
threads.parentPort?.once('message', (data: unknown) => {
  Object.assign(threads, { workerData: data });
  requireScript(script);
});
