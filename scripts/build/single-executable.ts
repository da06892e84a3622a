import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { bundleForExecutable } from './bundle.ts';
import { codeCaches } from './code-cache.ts';
import { makeExecutable, type Architecture } from './inject.ts';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;

/**
 * Flags of Node and V8 that the program always runs with; it takes none from NODE_OPTIONS.
 * Users cannot act on warnings about experimental parts of Node. V8's default lets young garbage take 16 MiB and more, with
 * -g 100, and makes no run faster. SIGUSR1 would open a debugger that any local user can reach.
 */
const flags = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=1', '--disable-sigusr1'];

export function hostArchitecture(): Architecture {
  const { arch, platform } = process;
  if (platform === 'linux' && (arch === 'x64' || arch === 'arm64')) return arch;
  throw new Error(
    `the single binary is for Linux on x64 and arm64, not ${platform} on ${arch}; dist/npm works here`,
  );
}

/**
 * Makes the single binary. It gets code caches for the architecture of this machine; on another one it compiles its scripts at
 * the start, since that Node cannot run here.
 */
export async function buildSingleExecutable(architecture: Architecture, output: string): Promise<void> {
  const { scripts } = await bundleForExecutable();
  const koffi = await packageFile(
    architecture,
    '.',
    `@koromix/koffi-linux-${architecture}/linux_${architecture}/koffi.node`,
  );
  const caches = architecture === hostArchitecture() ? await codeCaches(scripts, koffi, flags) : new Map();
  await makeExecutable({
    architecture,
    node: await packageFile(architecture, 'tools/node', `node-linux-${architecture}/bin/node`),
    koffi,
    flags,
    assets: new Map<string, string | Uint8Array>([...scripts, ...caches]),
    scratch: `${root}dist/.executable-${architecture}`,
    output: `${root}${output}`,
  });
}

/**
 * A file of a package for one architecture. npm installs the package of this machine only; for another architecture the
 * project's lockfile is installed again in dist/.foreign-ARCHITECTURE, with the options of that architecture.
 */
async function packageFile(architecture: Architecture, project: string, file: string): Promise<string> {
  const installed = `${root}${project}/node_modules/${file}`;
  if (existsSync(installed)) return installed;
  const folder = `${root}dist/.foreign-${architecture}/${project}`;
  const foreign = `${folder}/node_modules/${file}`;
  if (!existsSync(foreign)) {
    await mkdir(folder, { recursive: true });
    for (const name of ['package.json', 'package-lock.json']) {
      await copyFile(`${root}${project}/${name}`, `${folder}/${name}`);
    }
    const as = ['--os=linux', '--libc=glibc', `--cpu=${architecture}`];
    const quietly = ['--no-audit', '--no-fund', '--loglevel=error'];
    await run('npm', ['ci', '--prefix', folder, '--omit=dev', '--ignore-scripts', ...as, ...quietly]);
    // It is an optional dependency: npm says nothing when it could not be had.
    if (!existsSync(foreign)) throw new Error(`npm ci did not bring ${foreign}: is the registry reachable?`);
  }
  return foreign;
}
