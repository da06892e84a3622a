// `make release`: for each architecture release/dlrootfs_VERSION_linux_MACHINE.tgz with its sha256, and a .deb; and what npm installs.
import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { copyFile, cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { version } from '../src/version.ts';
import { architectures, type Architecture } from './build/inject.ts';
import { makeDebianPackage } from './build/debian-package.ts';
import { commitTime } from './build/commit-time.ts';
import { buildSingleExecutable, hostArchitecture } from './build/single-executable.ts';

const run = promisify(execFile);
const release = 'release';

/** An archive with the binary as the original's had it, so that `tar -C /usr/local/bin -xzf … dlrootfs` installs it, and the licences. */
async function makeTarball(folder: string, machine: string, time: string): Promise<void> {
  const name = `dlrootfs_${version}_linux_${machine}.tgz`;
  const same = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', `--mtime=@${time}`];
  await copyFile('dist/copyright', `${folder}/dlrootfs.copyright`);
  const files = ['dlrootfs', 'dlrootfs.copyright'];
  await run('tar', ['-c', ...same, '-f', `${folder}/archive.tar`, '-C', folder, ...files]);
  const archive = gzipSync(await readFile(`${folder}/archive.tar`), { level: 9 });
  await writeFile(`${release}/${name}`, archive);
  const digest = createHash('sha256').update(archive).digest('hex');
  await writeFile(`${release}/${name}.sha256`, `${digest}  ${name}\n`);
}

async function releaseFor(architecture: Architecture, time: string): Promise<void> {
  const { machine, debian } = architectures[architecture];
  const folder = `dist/.release-${machine}`;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  if (architecture === hostArchitecture()) await cp('dist/dlrootfs', `${folder}/dlrootfs`);
  else await buildSingleExecutable(architecture, `${folder}/dlrootfs`);
  await makeTarball(folder, machine, time);
  try {
    await makeDebianPackage(folder, debian, `${release}/dlrootfs_${version}_${debian}.deb`);
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOENT') throw error;
    process.stderr.write('no dpkg-deb here: no .deb was made\n');
  }
  await rm(folder, { recursive: true });
}

await rm(release, { recursive: true, force: true });
await mkdir(release);
const time = await commitTime();
for (const architecture of Object.keys(architectures) as Architecture[]) await releaseFor(architecture, time);
await run('npm', ['pack', '--ignore-scripts', '--loglevel=error', '--pack-destination', release]);
const { stdout: made } = await run('ls', ['-l', release]);
process.stdout.write(made);
