import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { bundleForNpm } from './bundle.ts';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;

/**
 * Builds the files that the npm package runs: `cli.js` for bin/dlrootfs.js, `index.js` with its types, and
 * the threads.
 */
export async function buildNpm(directory: string): Promise<void> {
  await rm(`${root}${directory}`, { recursive: true, force: true });
  await bundleForNpm(directory);
  const types = ['--outDir', `${root}${directory}/types`];
  await run('tsc', ['-p', `${root}scripts/build/tsconfig.types.json`, ...types]);
}

/**
 * Writes the folder that `npm pack` and `npm publish` take: the files that package.json lists, and a
 * package.json without the scripts and packages of development, so that no script runs on a user's machine.
 */
export async function writeNpmPackage(directory: string): Promise<void> {
  const target = `${root}${directory}`;
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  const manifest = JSON.parse(await readFile(`${root}package.json`, 'utf8')) as Record<string, unknown> & {
    readonly files: readonly string[];
  };
  for (const name of manifest.files) await cp(`${root}${name}`, `${target}/${name}`, { recursive: true });
  const { private: _private, scripts: _scripts, devDependencies: _development, ...published } = manifest;
  await writeFile(`${target}/package.json`, `${JSON.stringify(published, undefined, 2)}\n`);
}
