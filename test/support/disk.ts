import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';

/** Formats of disk images, with the program that makes each, and further flags. */
export const diskPrograms = [
  ['ext4', 'mke2fs', []],
  ['squashfs', 'sqfstar', []],
  ['erofs', 'mkfs.erofs', ['--compress', 'lz4']],
] as const;
/** The same formats, and an erofs that dlrootfs writes itself. */
export const diskKinds = [...diskPrograms, ['erofs', undefined, []]] as const;

/** Calls `use` with a directory in which a disk image is mounted read-only. */
export function mounted(file: string, format: string, use: (root: string) => void): void {
  const directory = mkdtempSync(path.join(tmpdir(), 'dlrootfs-test-mount-'));
  execFileSync('mount', ['-o', 'loop,ro', '-t', format, file, directory]);
  try {
    use(directory);
  } finally {
    execFileSync('umount', [directory]);
    rmdirSync(directory);
  }
}

/**
 * Mounts a disk image read-only until the test ends. If that is impossible, the test is skipped with the
 * reason, and the result is undefined.
 */
export function mountDisk(t: TestContext, file: string, format: string): string | undefined {
  const directory = mkdtempSync(path.join(tmpdir(), 'dlrootfs-test-mount-'));
  const { status, stderr } = spawnSync('mount', ['-o', 'loop,ro', '-t', format, file, directory], {
    encoding: 'utf8',
  });
  t.after(() => {
    if (status === 0) spawnSync('umount', [directory]);
    rmdirSync(directory);
  });
  if (status === 0) return directory;
  if (!/unknown filesystem|failed to setup loop|permission denied|must be superuser/i.test(stderr))
    throw new Error(`mount: ${stderr}`);
  t.skip(`needs a kernel with loop devices and ${format}: ${stderr.trim()}`);
  return undefined;
}
