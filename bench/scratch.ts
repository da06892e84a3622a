import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs';

export interface Scratch extends Disposable {
  readonly path: string;
}

/**
 * Mounts a new journaled ext4 (a sparse file of at most 24 GiB, through a loop device) for all timed runs. On
 * an ext4 without a journal the kernel skips recently freed inodes one by one: creating files soon after a
 * tree was deleted gets slower with each run. Also, other programs do not use this file system.
 */
export function mountScratch(directory: string): Scratch {
  const path = `${directory}/fs`;
  const image = `${directory}/fs.img`;
  mkdirSync(path, { recursive: true });
  if (statSync(path).dev === statSync(directory).dev) {
    if (!existsSync(image)) {
      execFileSync('truncate', ['-s', '24G', image]);
      execFileSync('mkfs.ext4', [
        '-q',
        '-F',
        '-N',
        '2500000',
        '-E',
        'lazy_itable_init=0,lazy_journal_init=0',
        image,
      ]);
    }
    execFileSync('mount', ['-o', 'loop', image, path]);
  }
  return {
    path,
    [Symbol.dispose]() {
      execFileSync('umount', [path]);
    },
  };
}

/** Empties and creates the folder of one run, and waits for the disk. */
export function freshFolder(path: string): void {
  removeFolder(path);
  mkdirSync(path, { recursive: true });
}

/** Deletes the files of a run and waits for the disk, so that the next run is not slower for it. */
export function removeFolder(path: string): void {
  rmSync(path, { recursive: true, force: true });
  execFileSync('sync');
}
