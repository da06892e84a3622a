import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { dlopen, getuid } from 'node:process';
import { getRawAsset } from 'node:sea';

/** O_TMPFILE of Linux, whose one half is O_DIRECTORY: a file without a name. With O_EXCL nobody can ever give it one. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/**
 * koffi's native library, loaded from inside the executable without leaving a file anywhere: it is written to a file that
 * never had a name and that only this user's processes can open, and mapped through /proc/self/fd.
 *
 * Throws the last directory's error where no directory takes such a file and lets it be mapped for execution.
 */
export function loadKoffi(): typeof import('koffi') {
  let failure: unknown;
  for (const directory of ['/dev/shm', `/run/user/${getuid?.() ?? 0}`, '/run', '/tmp', '/var/tmp', '.']) {
    try {
      return loadThrough(directory);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

function loadThrough(directory: string): typeof import('koffi') {
  const descriptor = openSync(directory, O_TMPFILE | constants.O_RDWR | constants.O_EXCL, 0o600);
  try {
    const library = Buffer.from(getRawAsset('koffi.node'));
    let written = 0;
    while (written < library.length) written += writeSync(descriptor, library, written);
    const module = { exports: {} };
    dlopen(module, `/proc/self/fd/${descriptor}`);
    return module.exports as typeof import('koffi');
  } finally {
    closeSync(descriptor);
  }
}
