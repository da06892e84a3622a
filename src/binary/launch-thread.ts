import { compileScript, requireBuiltin, requireScript } from './script.ts';

// The first script of each thread in the single executable; `workerData` names the script to run. It compiles that script, then
// waits for a message with the usual `workerData`.
const threads = requireBuiltin('node:worker_threads') as typeof import('node:worker_threads');
const script = threads.workerData as string;
compileScript(script);
for (const id of ['node:crypto', 'node:fs', 'node:os', 'node:util']) requireBuiltin(id);
threads.parentPort?.once('message', (data: unknown) => {
  Object.assign(threads, { workerData: data });
  requireScript(script);
});
