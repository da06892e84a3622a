import type { Stats } from 'node:fs';
import { lstat, readlink, realpath } from 'node:fs/promises';
import path from 'node:path';
import { geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { unlessCode } from './os-error.ts';
import { osPath, pathText } from './os-path.ts';

const unlessMissing = unlessCode('ENOENT');

/** As many as the kernel follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/**
 * The absolute path without symlinks; `..` climbs from where a link leads to, as in the kernel. Missing levels stay as they are named.
 *
 * @throws DestinationError for a symlink that the kernel would not follow; the system's errors
 */
export async function trustedPath(name: string): Promise<string> {
  let here = name.startsWith('/') ? '/' : pathText(await realpath('.', { encoding: 'buffer' }));
  const pending = name.split('/');
  let links = 0;
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    if (next === '' || next === '.') continue;
    if (next === '..') {
      here = path.dirname(here);
      continue;
    }
    const place = path.join(here, next);
    const there = await lstat(osPath(place)).catch(unlessMissing);
    if (there === undefined) {
      const rest = [next, ...pending];
      if (!rest.includes('..')) return path.join(here, ...rest);
      pending.splice(0, pending.length, ...path.normalize(rest.join('/')).split('/'));
    } else if (there.isSymbolicLink()) {
      links += 1;
      if (links > MAX_LINKS) throw tooManyLinks(name);
      await refuseForeignLink(name, place, there);
      const target = pathText(await readlink(osPath(place), { encoding: 'buffer' }));
      if (target.startsWith('/')) here = '/';
      pending.unshift(...target.split('/'));
    } else {
      here = place;
    }
  }
  return here;
}

function tooManyLinks(name: string): DestinationError {
  return new DestinationError(`cannot use ${printable(name)}: it has more than ${MAX_LINKS} symlinks`, {
    code: 'ELOOP',
    hint: 'remove the symlinks that lead to each other, or choose another directory with -d',
  });
}

/**
 * The rule of `protected_symlinks` (proc_sys_fs(5)), independent of this system's setting: in a sticky directory that everybody may write, only
 * links of the caller's own and of the directory's owner are followed.
 */
async function refuseForeignLink(name: string, link: string, { uid }: Stats): Promise<void> {
  const above = await lstat(osPath(path.dirname(link)));
  if ((above.mode & 0o1002) !== 0o1002 || uid === geteuid!() || uid === above.uid) return;
  const shown = printable(link);
  throw new DestinationError(
    `cannot use ${printable(name)}: ${shown} is a symlink of user ${uid} in a directory that everybody may write`,
    { code: 'FOREIGN_SYMLINK', hint: `remove it (rm ${shown}), or choose another place` },
  );
}
