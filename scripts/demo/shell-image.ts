import { spawnSync } from 'node:child_process';
import { readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { dir, file, hardlink, symlink, tar, whiteout, type Item } from '../../test/support/archive.ts';
import type { FakeImage } from '../../test/support/fake-image.ts';

const greeting = 'Hello from inside a root file system that no Docker has seen.\n';

/** Returns the files of a program of this machine: itself and its libraries. */
function programFiles(name: string): string[] {
  const path = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
  if (!path.startsWith('/')) return [];
  const { stdout } = spawnSync('ldd', [path], { encoding: 'utf8' });
  return [path, ...(stdout.match(/\/\S+(?= \(0x)/g) ?? [])];
}

/** Returns the real path of the parent, plus the last component: `/bin/sh` may be `/usr/bin/sh`. */
function resolved(path: string): string {
  return `${realpathSync(dirname(path))}/${basename(path)}`;
}

function copy(path: string): Item {
  return file(path.slice(1), readFileSync(path), { mode: 0o755 });
}

function ancestors(path: string): string[] {
  const parent = dirname(path);
  return parent === '/' ? [] : [...ancestors(parent), parent];
}

/** Returns this machine's links such as `bin -> usr/bin`. */
function topLevelLinks(): Item[] {
  return ['bin', 'sbin', 'lib', 'lib64'].flatMap((name) => {
    try {
      return symlink(name, readlinkSync(`/${name}`));
    } catch {
      return [];
    }
  });
}

/**
 * Returns an image of this machine's shell in three layers: programs with their libraries; files; a change, a
 * hard link and a deletion.
 */
export function shellImage(): FakeImage {
  const programs = ['sh', 'ls', 'cat', 'id', 'uname'].flatMap((name) => programFiles(name));
  const paths = new Set(programs.map((path) => resolved(path)));
  const directories = new Set([...paths].flatMap((path) => ancestors(path)));
  const base = tar(
    ...topLevelLinks(),
    ...['/dev', '/etc', '/proc', '/root', '/sys', '/tmp', ...directories].map((path) => dir(path.slice(1))),
    ...[...paths].map((path) => copy(path)),
  );
  const files = tar(
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n'),
    file('etc/group', 'root:x:0:\n'),
    file('etc/motd', 'Old news.\n'),
    file('etc/secret', 'deleted in the next layer\n'),
  );
  const change = tar(file('etc/motd', greeting), hardlink('etc/issue', 'etc/motd'), whiteout('etc/secret'));
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  return {
    layers: [base, files, change].map((bytes) => ({ tar: bytes })),
    config: { config: { Cmd: ['/bin/sh'] } },
    platform: { os: 'linux', architecture },
  };
}
