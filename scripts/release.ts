// `make release`: for each architecture release/dlrootfs_VERSION_linux_MACHINE.tgz with its sha256, and a .deb.
import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { chmod, copyFile, cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { version } from '../src/version.ts';
import { architectures, type Architecture } from './build/inject.ts';
import { commitTime } from './build/commit-time.ts';
import { buildSingleExecutable, hostArchitecture } from './build/single-executable.ts';

const run = promisify(execFile);
const release = 'release';

/** An archive with the binary alone, as the original's: `tar -C /usr/local/bin -xzf` installs it. */
async function makeTarball(folder: string, machine: string, time: string): Promise<void> {
  const name = `dlrootfs_${version}_linux_${machine}.tgz`;
  const same = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', `--mtime=@${time}`];
  await run('tar', ['-c', ...same, '-f', `${folder}/archive.tar`, '-C', folder, 'dlrootfs']);
  const archive = gzipSync(await readFile(`${folder}/archive.tar`), { level: 9 });
  await writeFile(`${release}/${name}`, archive);
  const digest = createHash('sha256').update(archive).digest('hex');
  await writeFile(`${release}/${name}.sha256`, `${digest}  ${name}\n`);
}

/** A Debian package: binary, manual page, completions, licence. */
async function makeDebianPackage(folder: string, architecture: string, time: string): Promise<void> {
  const tree = `${folder}/package`;
  await run('bash', ['scripts/install.sh', `${tree}/usr`, `${folder}/dlrootfs`]);
  const manual = `${tree}/usr/share/man/man1/dlrootfs.1`;
  await writeFile(`${manual}.gz`, gzipSync(await readFile(manual), { level: 9 }));
  await rm(manual);
  await mkdir(`${tree}/usr/share/doc/dlrootfs`, { recursive: true });
  await copyFile('LICENSE', `${tree}/usr/share/doc/dlrootfs/copyright`);
  await chmod(`${tree}/usr/share/doc/dlrootfs/copyright`, 0o644);
  await rename(`${tree}/usr/share/zsh/site-functions`, `${tree}/usr/share/zsh/vendor-completions`);
  const { stdout: size } = await run('du', ['-sk', '--apparent-size', tree]);
  await mkdir(`${tree}/DEBIAN`);
  await writeFile(
    `${tree}/DEBIAN/control`,
    [
      'Package: dlrootfs',
      `Version: ${version}`,
      `Architecture: ${architecture}`,
      'Maintainer: The dlrootfs developers <dlrootfs@localhost>',
      `Installed-Size: ${size.split('\t')[0]}`,
      'Depends: libc6 (>= 2.28), libgcc-s1, libstdc++6 (>= 7)',
      'Suggests: git, lxc, runc, systemd-container',
      'Section: admin',
      'Priority: optional',
      'Description: turns a container image in a registry into a root file system',
      ' One command downloads an image from a container registry, verifies it and lays its',
      ' layers down as a directory, exactly as they are in the image, without Docker: ready',
      ' for chroot, LXC, runc or systemd-nspawn.',
      '',
    ].join('\n'),
  );
  const file = `${release}/dlrootfs_${version}_${architecture}.deb`;
  const environment = { ...process.env, SOURCE_DATE_EPOCH: time };
  await run('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', tree, file], { env: environment });
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
    await makeDebianPackage(folder, debian, time);
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
const { stdout: made } = await run('ls', ['-l', release]);
process.stdout.write(made);
