import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import path from 'node:path';
import { osPath, utf8Path } from '../sys/os-path.ts';
import { explained } from './destination.ts';
import { locate } from './location.ts';

/**
 * Where blobs that nobody keeps may lie while DIR is built: on the same disk, beside it where that can be written, else in it.
 *
 * @throws DestinationError where DIR is no directory, or what should be above it is none
 */
export async function spoolPlace(directory: string): Promise<string> {
  const location = await locate(directory).catch((error: unknown) => {
    throw explained(error, directory);
  });
  let beside = path.dirname(location.path);
  while (!(await isThere(beside)) && beside !== path.dirname(beside)) beside = path.dirname(beside);
  const writable = await access(osPath(beside), constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  return utf8Path(writable || location.stat === undefined ? beside : location.path);
}

function isThere(directory: string): Promise<boolean> {
  return access(osPath(directory)).then(
    () => true,
    () => false,
  );
}
