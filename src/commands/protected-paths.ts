import { readFileSync } from 'node:fs';
import { execPath } from 'node:process';
import { printable } from '../errors.ts';
import { parseSource } from '../layout/local-source.ts';
import type { PullOptions } from '../options.ts';
import type { ProtectedPath } from '../rootfs/location.ts';
import { parsePasswd } from '../sys/passwd.ts';

/**
 * Returns the files and directories that `--replace` must not remove with DIR, besides those of the system.
 */
export function protectedPaths({ image, environment, store }: PullOptions): ProtectedPath[] {
  const source = parseSource(image);
  const places: ProtectedPath[] = homes(environment['HOME']);
  places.push({ path: execPath, what: 'the running program' });
  if (store.directory !== undefined) places.push({ path: store.directory, what: 'the cache', inside: true });
  if (source !== undefined && source.path !== '') places.push({ path: source.path, what: 'the image' });
  return places;
}

function homes(own: string | undefined): ProtectedPath[] {
  let users = '';
  try {
    users = readFileSync('/etc/passwd', 'utf8');
  } catch {
    // The system has no users.
  }
  const places = parsePasswd(users).map(({ name, home }) => ({
    path: home,
    what: `the home directory of ${printable(name)}`,
  }));
  return [...(own === undefined ? [] : [{ path: own, what: 'the home directory' }]), ...places].filter(
    ({ path }) => path.startsWith('/'),
  );
}
