import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { printable, UntrustedError } from '../errors.ts';
import { type ConfigPlaces, homeDirectory, readConfigBytes } from '../sys/config-files.ts';
import { hasCode, osErrorOf, reasonOf } from '../sys/os-error.ts';
import type { Policy } from './policy.ts';

/** Errors of lstat(2) for what does not exist. */
const ABSENT = ['ENOENT', 'ENOTDIR'];

/**
 * Returns the file of the host's policy: the user's, else the system's, else undefined. A user's directory
 * that may not be searched is skipped, as in containers/image.
 */
export function findPolicy(places: ConfigPlaces): string | undefined {
  const home = homeDirectory(places.environment);
  const own = home === undefined ? undefined : join(home, '.config/containers/policy.json');
  if (own !== undefined && isThere(own, [...ABSENT, 'EACCES'])) return own;
  const { configDirs = ['/etc'] } = places;
  return configDirs
    .map((directory) => join(directory, 'containers/policy.json'))
    .find((file) => isThere(file, ABSENT));
}

/**
 * True also after any other error: opening the file will report it, and a policy that cannot be read refuses.
 */
function isThere(file: string, absent: readonly string[]): boolean {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    return !absent.some((code) => hasCode(error, code));
  }
}

/**
 * Reads a policy.
 *
 * @param named true if the user named the file
 * @throws UntrustedError where it cannot be read, or is malformed
 */
export async function readPolicy(
  file: string,
  named: boolean,
  signal: AbortSignal | undefined,
): Promise<Policy> {
  const refuse = (done: string, reason: string, cause: unknown): UntrustedError =>
    new UntrustedError(`cannot ${done} the policy ${printable(file)}: ${reason}`, {
      code: 'BAD_POLICY',
      hint: 'correct the file, or ask the administrator of this machine; --insecure-policy goes on without',
      cause,
    });
  let bytes: Uint8Array;
  try {
    bytes = await readConfigBytes(file, { named, signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw refuse('read', osErrorOf(error)?.text ?? reasonOf(error), error);
  }
  const { parsePolicy } = await import('./policy.ts');
  try {
    return parsePolicy(bytes);
  } catch (error) {
    throw refuse('use', printable(reasonOf(error), 500), error);
  }
}
