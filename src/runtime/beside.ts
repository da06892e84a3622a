import { lstatSync } from 'node:fs';
import { DestinationError, printable } from '../errors.ts';
import { writeFileAtomically } from '../sys/atomic-file.ts';
import { explainOsError, hasCode } from '../sys/os-error.ts';

const elsewhere = 'choose another directory with -d';

/**
 * What `work` answers.
 *
 * @param action verb and object, for messages: `prepare rootfs`
 * @throws DestinationError for a system error of its file calls; any other error as it is
 */
export function explained<T>(action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw explainOsError(error, action, elsewhere);
  }
}

/**
 * Checks before a pull that nothing has the names of the configurations.
 *
 * @throws DestinationError
 */
export function refuseExisting(paths: readonly string[]): void {
  const found = paths.filter((path) =>
    explained(`write ${printable(path)}`, () => lstatSync(path, { throwIfNoEntry: false }) !== undefined),
  );
  if (found.length > 0) throw existing(found);
}

function existing(paths: readonly string[]): DestinationError {
  const names = paths.map((path) => printable(path)).join(' and ');
  return new DestinationError(`${names} ${paths.length === 1 ? 'is' : 'are'} there already`, {
    code: 'FILE_EXISTS',
    hint: 'add --force to replace it',
  });
}

/**
 * Writes a configuration, whole or not at all. A file or symlink of its name is replaced with `force` only.
 *
 * @throws DestinationError
 */
export async function writeConfig(path: string, text: string, force: boolean): Promise<void> {
  try {
    await writeFileAtomically(path, text, { mode: 0o644, replace: force });
  } catch (error) {
    if (hasCode(error, 'EEXIST')) throw existing([path]);
    throw explainOsError(error, `write ${printable(path)}`, `the rootfs is complete: ${elsewhere}`);
  }
}
