import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { bundleForNpm } from './bundle.ts';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;

/** Makes what npm publishes: `cli.js` for bin/dlrootfs.js, `index.js` with its types, `thread.js`. */
export async function buildNpm(directory: string): Promise<void> {
  await rm(`${root}${directory}`, { recursive: true, force: true });
  await bundleForNpm(directory);
  await run('tsc', [
    '-p',
    `${root}scripts/build/tsconfig.types.json`,
    '--outDir',
    `${root}${directory}/types`,
  ]);
}
