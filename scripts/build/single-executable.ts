import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir, rename, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { extract } from 'tar';
import { bundleForExecutable } from './bundle.ts';
import { codeCaches } from './code-cache.ts';
import { makeExecutable, type Architecture } from './inject.ts';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;

/** package-lock.json, version 3 */
interface Lockfile {
  readonly packages: Readonly<Record<string, { readonly version: string; readonly integrity: string }>>;
}

/**
 * Flags of Node and V8 that the program always runs with; it takes none from NODE_OPTIONS.
 * Users cannot act on warnings about experimental parts of Node.
 * V8's default lets young garbage take 16 MiB and more (100 with -g), and makes no run faster.
 * SIGUSR1 would open a debugger that any local user can reach.
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
 * Builds the single binary. For the architecture of this machine it has code caches. A binary for another
 * architecture compiles its scripts at the start, since its Node cannot run here.
 */
export async function buildSingleExecutable(architecture: Architecture, output: string): Promise<void> {
  const { scripts } = await bundleForExecutable();
  const koffi = await packageFile(
    architecture,
    '',
    `@koromix/koffi-linux-${architecture}/linux_${architecture}/koffi.node`,
  );
  const caches = architecture === hostArchitecture() ? await codeCaches(scripts, koffi, flags) : new Map();
  await makeExecutable({
    architecture,
    node: await packageFile(architecture, 'tools/node/', `node-linux-${architecture}/bin/node`),
    koffi,
    flags,
    assets: new Map<string, string | Uint8Array>([...scripts, ...caches]),
    scratch: `${root}dist/.executable-${architecture}`,
    output: `${root}${output}`,
  });
}

/**
 * A file of a package for one architecture. npm installs the package of this machine only; the package of
 * another architecture is fetched into dist/.foreign-ARCHITECTURE, as the lockfile names it. (`npm ci --cpu`
 * needs npm 10; Debian 13 has npm 9.2.)
 */
async function packageFile(architecture: Architecture, project: string, file: string): Promise<string> {
  const installed = `${root}${project}node_modules/${file}`;
  if (existsSync(installed)) return installed;
  const [, name = '', inside = ''] = /^((?:@[^/]+\/)?[^/]+)\/(.*)$/.exec(file)!;
  const { packages } = JSON.parse(await readFile(`${root}${project}package-lock.json`, 'utf8')) as Lockfile;
  const { version, integrity } = packages[`node_modules/${name}`]!;
  const folder = `${root}dist/.foreign-${architecture}/${name}-${version}`;
  const foreign = `${folder}/${inside}`;
  if (!existsSync(foreign)) {
    const scratch = `${folder}.part`;
    await rm(scratch, { recursive: true, force: true });
    await mkdir(`${scratch}/package`, { recursive: true });
    await run('npm', ['pack', `${name}@${version}`, '--pack-destination', scratch, '--loglevel=error']);
    const packed = (await readdir(scratch)).find((each) => each.endsWith('.tgz')) ?? '';
    const bytes = await readFile(`${scratch}/${packed}`);
    const found = `sha512-${createHash('sha512').update(bytes).digest('base64')}`;
    if (found !== integrity)
      throw new Error(`${name}@${version} is ${found}, not ${integrity} of the lockfile`);
    await extract({ file: `${scratch}/${packed}`, cwd: `${scratch}/package`, strip: 1 });
    await rename(`${scratch}/package`, folder);
    await rm(scratch, { recursive: true });
  }
  return foreign;
}
