import type { Serializable } from 'node:worker_threads';
import { LIBRARY_KEY } from './koffi.ts';
import { compileScript, requireBuiltin, requireScript } from './script.ts';

/** The first message to each thread: its data, and the descriptor of koffi's library, if known. */
export interface StartMessage {
  readonly workerData: unknown;
  readonly library: Serializable;
}

// The first script of each thread in the single executable. It compiles the script that `workerData` names,
// then runs it when a message brings the usual `workerData`.
const threads = requireBuiltin('node:worker_threads') as typeof import('node:worker_threads');
const script = threads.workerData as string;
compileScript(script);
for (const id of ['node:crypto', 'node:fs', 'node:os', 'node:util']) requireBuiltin(id);
threads.parentPort?.once('message', ({ workerData, library }: StartMessage) => {
  Object.assign(threads, { workerData });
  threads.setEnvironmentData(LIBRARY_KEY, library);
  requireScript(script);
});
