import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import path from 'node:path';

/**
 * The reason why a test cannot run the program, or Node on this checkout, as another user; false if it can.
 */
export const noOtherUser: string | false =
  process.getuid?.() === 0 ? closedDirectory(import.meta.dirname) : 'needs root, to become somebody else';

function closedDirectory(directory: string): string | false {
  if ((statSync(directory).mode & 0o001) === 0)
    return `needs a checkout that others may enter: ${directory} is closed`;
  const parent = path.dirname(directory);
  return parent === directory ? false : closedDirectory(parent);
}

const NOBODY = 65_534;

/**
 * The reason why a user can make no user namespace; false if one can. In a chroot nobody can
 * (user_namespaces(7)).
 */
export const noUserNamespace: string | false =
  spawnSync(
    'unshare',
    ['--map-root-user', 'true'],
    process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {},
  ).status === 0
    ? false
    : 'needs user namespaces for users, as outside a chroot';
