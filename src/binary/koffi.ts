import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { dlopen, getuid } from 'node:process';
import { getRawAsset } from 'node:sea';
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads';

/** O_TMPFILE of open(2), which includes O_DIRECTORY: a file without a name. With O_EXCL it never gets one. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** The key in the environment data of threads: the descriptor of the main thread's file. */
export const LIBRARY_KEY = 'dlrootfs-koffi';

/**
 * Loads koffi's native library from the executable. It is written to a file without a name, which only
 * processes of this user can open, and mapped through /proc/self/fd. The main thread keeps it open, so that
 * the other threads map the same file.
 *
 * @throws the error of the last directory, if none allows such a file to be made and mapped for execution
 */
export function loadKoffi(): typeof import('koffi') {
  const shared = getEnvironmentData(LIBRARY_KEY);
  if (typeof shared === 'number') return map(shared);
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
    const koffi = map(descriptor);
    if (isMainThread) setEnvironmentData(LIBRARY_KEY, descriptor);
    else closeSync(descriptor);
    return koffi;
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

function map(descriptor: number): typeof import('koffi') {
  const module = { exports: {} };
  dlopen(module, `/proc/self/fd/${descriptor}`);
  return module.exports as typeof import('koffi');
}
