import { execFile } from 'node:child_process';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { commitTime } from './commit-time.ts';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;

/** Findings of lintian, and the reason for each. */
const lintianOverrides = `# The binary is Node.js with the program inside; Node brings the libraries it was tested with.
dlrootfs: embedded-library *
dlrootfs: hardening-no-pie [usr/bin/dlrootfs]
# Each licence stands whole, in the words that its work comes with; some are only named in those of Node's libraries.
dlrootfs: copyright-file-contains-full-apache-2-license
dlrootfs: copyright-not-using-common-license-for-gpl
dlrootfs: old-fsf-address-in-copyright-file
`;

/**
 * Makes a Debian package of `folder/dlrootfs` and the other files of scripts/install.sh.
 *
 * @throws ENOENT without dpkg-deb
 */
export async function makeDebianPackage(folder: string, architecture: string, file: string): Promise<void> {
  const { version, maintainers } = JSON.parse(await readFile(`${root}package.json`, 'utf8')) as {
    readonly version: string;
    readonly maintainers: readonly { readonly name: string; readonly email: string }[];
  };
  const maintainer = maintainers.map(({ name, email }) => `${name} <${email}>`).join(', ');
  const time = await commitTime();
  const tree = `${folder}/package`;
  const share = `${tree}/usr/share`;
  await run('bash', [`${root}scripts/install.sh`, `${tree}/usr`, `${folder}/dlrootfs`]);
  await compress(`${share}/man/man1/dlrootfs.1`);
  await rename(`${share}/zsh/site-functions`, `${share}/zsh/vendor-completions`);
  const date = new Date(Number(time) * 1000).toUTCString().replace('GMT', '+0000');
  const changes = `dlrootfs (${version}) unstable; urgency=medium\n\n  * Release ${version}.\n\n -- ${maintainer}  ${date}\n`;
  await writeFile(`${share}/doc/dlrootfs/changelog`, changes);
  await compress(`${share}/doc/dlrootfs/changelog`);
  await mkdir(`${share}/lintian/overrides`, { recursive: true });
  await writeFile(`${share}/lintian/overrides/dlrootfs`, lintianOverrides);

  const { stdout: size } = await run('du', ['-sk', '--apparent-size', tree]);
  const { stdout: sums } = await run(
    'sh',
    ['-c', 'find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum'],
    { cwd: tree },
  );
  await mkdir(`${tree}/DEBIAN`);
  await writeFile(`${tree}/DEBIAN/md5sums`, sums);
  await writeFile(
    `${tree}/DEBIAN/control`,
    [
      'Package: dlrootfs',
      `Version: ${version}`,
      `Architecture: ${architecture}`,
      `Maintainer: ${maintainer}`,
      `Installed-Size: ${size.split('\t')[0]}`,
      'Depends: libc6 (>= 2.28), libgcc-s1, libstdc++6 (>= 7)',
      'Suggests: e2fsprogs, erofs-utils, git, gpgv, lxc, runc, squashfs-tools, systemd-container, uidmap',
      'Section: admin',
      'Priority: optional',
      'Description: turn a container image in a registry into a root file system',
      ' One command downloads an image from a container registry, verifies it and',
      ' lays its layers down as a directory, exactly as they are in the image, without',
      ' Docker: ready for chroot, LXC, runc or systemd-nspawn.',
      '',
    ].join('\n'),
  );
  await run('chmod', ['-R', 'u=rwX,go=rX', tree]);
  const environment = { ...process.env, SOURCE_DATE_EPOCH: time };
  // xz takes a minute for a tenth less. dpkg reads zstd since Debian 12 and Ubuntu 18.04.
  const words = ['--root-owner-group', '-Zzstd', '-z9', '--build', tree, file];
  await run('dpkg-deb', words, { env: environment });
}

async function compress(path: string): Promise<void> {
  await writeFile(`${path}.gz`, gzipSync(await readFile(path), { level: 9 }));
  await rm(path);
}
