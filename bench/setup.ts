import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { generated } from './generated.ts';
import type { Candidate } from './rows.ts';
import { hasTag, recompress, uploadImage } from './upload.ts';

const here = fileURLToPath(new URL('.', import.meta.url));

/** Debian packages that every measurement needs. */
const needed = [
  'docker-registry',
  'curl',
  'jq',
  'isal',
  'zstd',
  'iproute2',
  'time',
  'busybox-static',
  'e2fsprogs',
  'attr',
  'git',
];
/** Debian packages of peers, and of images that are built by running commands in them. */
const wanted = ['buildah', 'crun', 'mmdebstrap', 'skopeo', 'umoci', 'podman', 'containers-storage'].concat([
  'erofs-utils',
  'squashfs-tools',
  'golang-github-containers-common',
  'golang-go',
  'golang-github-google-go-containerregistry-dev',
]);

/** Installs the missing Debian packages. Optional ones that cannot be installed are skipped. */
export function installPackages(): void {
  for (const [names, mustSucceed] of [
    [missing(needed), true],
    [missing(wanted), false],
  ] as const) {
    if (names.length === 0) continue;
    const { status } = spawnSync(
      'apt-get',
      ['-o', 'DPkg::Lock::Timeout=300', 'install', '-y', '--no-install-recommends', ...names],
      // Without this, Debian's scripts start the daemons that they install.
      { env: { ...process.env, RUNLEVEL: '1', DEBIAN_FRONTEND: 'noninteractive' }, stdio: ['ignore', 2, 2] },
    );
    if (status !== 0 && mustSucceed)
      throw new Error(
        `apt-get install ${names.join(' ')} failed: is this Debian, and was apt-get update run?`,
      );
  }
}

function missing(packages: readonly string[]): string[] {
  return packages.filter(
    (name) => !output('dpkg-query', ['-W', '-f', '${db:Status-Abbrev}', name]).startsWith('ii'),
  );
}

/** Builds crane's export from Debian's Go packages. Undefined if that fails. */
export function craneExport(directory: string): string | undefined {
  const binary = `${directory}/bin/crane-export`;
  if (existsSync(binary)) return binary;
  mkdirSync(`${directory}/bin`, { recursive: true });
  const { status } = spawnSync('go', ['build', '-trimpath', '-o', binary, '.'], {
    cwd: `${here}/crane-export`,
    env: {
      ...process.env,
      CGO_ENABLED: '0',
      GO111MODULE: 'off',
      GOTOOLCHAIN: 'local',
      GOPATH: '/usr/share/gocode',
    },
    stdio: ['ignore', 2, 2],
  });
  return status === 0 ? binary : undefined;
}

/** Builds `bench/IMAGE:COMPRESSION` for each image that the registry at `port` lacks. */
export async function buildImages(
  candidates: Iterable<Pick<Candidate, 'image' | 'compression'>>,
  port: number,
  directory: string,
): Promise<void> {
  const work = `${directory}/work`;
  mkdirSync(work, { recursive: true });
  for (const { image, compression = 'gzip' } of candidates) {
    const repository = { port, name: `bench/${image}` };
    if (!(await hasTag(repository, 'gzip'))) {
      process.stderr.write(`building the image ${image}\n`);
      const layers = generated[image]?.();
      if (layers !== undefined) await uploadImage(repository, 'gzip', layers, work);
      else
        execFileSync(`${here}/images/build.sh`, [image, `127.0.0.1:${port}/${repository.name}`, work], {
          stdio: ['ignore', 2, 2],
        });
    }
    if (compression === 'zstd' && !(await hasTag(repository, 'zstd'))) await recompress(repository, work);
  }
}

/** The first line that a command prints; empty if it fails. */
export function output(command: string, args: readonly string[]): string {
  const { stdout } = spawnSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return (stdout ?? '').trim().split('\n')[0] ?? '';
}
