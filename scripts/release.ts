// `make release` writes release/: a .tgz and a .deb for each architecture, the npm package, an SBOM, and
// SHA256SUMS over all of them.
import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { version } from '../src/version.ts';
import { architectures, type Architecture } from './build/inject.ts';
import { makeDebianPackage } from './build/debian-package.ts';
import { commitTime } from './build/commit-time.ts';
import { softwareBillOfMaterials } from './build/sbom.ts';
import { buildSingleExecutable, hostArchitecture } from './build/single-executable.ts';

const run = promisify(execFile);
const compress = promisify(gzip);
const release = 'release';

/** Runs one step and prints its time. */
async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const begin = performance.now();
  const result = await work();
  process.stderr.write(`${what}: ${((performance.now() - begin) / 1000).toFixed(1)} s\n`);
  return result;
}

/**
 * Writes the archive of one architecture. The binary is its first member, without a directory, as in the
 * original's archives: `tar -C /usr/local/bin -xzf FILE dlrootfs` installs it alone. `tar -C /usr/local -xzf
 * FILE share` installs the rest.
 */
async function makeTarball(folder: string, machine: string, time: string): Promise<void> {
  const tree = `${folder}/tree`;
  await run('bash', ['scripts/install.sh', tree, `${folder}/dlrootfs`]);
  await rename(`${tree}/bin/dlrootfs`, `${tree}/dlrootfs`);
  const same = [
    '--sort=name',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--mode=go=rX,u+rw',
    `--mtime=@${time}`,
  ];
  await run('tar', ['-c', ...same, '-f', `${folder}/archive.tar`, '-C', tree, 'dlrootfs', 'share']);
  const archive = await compress(await readFile(`${folder}/archive.tar`), { level: 6 });
  await writeFile(`${release}/dlrootfs_${version}_linux_${machine}.tgz`, archive);
}

async function releaseFor(architecture: Architecture, time: string): Promise<void> {
  const { machine, debian } = architectures[architecture];
  const folder = `dist/.release-${machine}`;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await step(`the binary for ${machine}`, () =>
    architecture === hostArchitecture()
      ? cp('dist/dlrootfs', `${folder}/dlrootfs`)
      : buildSingleExecutable(architecture, `${folder}/dlrootfs`),
  );
  await step(`the .tgz for ${machine}`, () => makeTarball(folder, machine, time));
  try {
    const file = `${release}/dlrootfs_${version}_${debian}.deb`;
    await step(`the .deb for ${debian}`, () => makeDebianPackage(folder, debian, file));
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOENT') throw error;
    process.stderr.write('no .deb was made: dpkg-deb is not installed (apt install dpkg)\n');
  }
  await rm(folder, { recursive: true });
}

async function writeSums(): Promise<void> {
  const names = (await readdir(release)).toSorted();
  const lines = names.map(async (name) => {
    const digest = createHash('sha256').update(await readFile(`${release}/${name}`));
    return `${digest.digest('hex')}  ${name}\n`;
  });
  await writeFile(`${release}/SHA256SUMS`, (await Promise.all(lines)).join(''));
}

await rm(release, { recursive: true, force: true });
await mkdir(release);
const time = await commitTime();
// Both run at the same time: each spends most of its time in single-threaded compressors.
await Promise.all((Object.keys(architectures) as Architecture[]).map((name) => releaseFor(name, time)));
const pack = [
  'pack',
  './dist/package',
  '--ignore-scripts',
  '--loglevel=error',
  '--pack-destination',
  release,
];
await step('the npm package', () => run('npm', pack));
await step('the SBOM', async () =>
  writeFile(`${release}/dlrootfs_${version}.cdx.json`, await softwareBillOfMaterials()),
);
await step('SHA256SUMS', writeSums);
const { stdout: made } = await run('ls', ['-l', release]);
process.stdout.write(made);
