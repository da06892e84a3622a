import { statSync } from 'node:fs';
import path from 'node:path';

/** Why a test cannot run the program, or Node on this checkout, as another user; false where it can. */
export const noOtherUser: string | false =
  process.getuid?.() === 0 ? closedDirectory(import.meta.dirname) : 'needs root, to become somebody else';

function closedDirectory(directory: string): string | false {
  if ((statSync(directory).mode & 0o001) === 0)
    return `needs a checkout that others may enter: ${directory} is closed`;
  const parent = path.dirname(directory);
  return parent === directory ? false : closedDirectory(parent);
}
