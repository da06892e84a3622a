import { readFileSync } from 'node:fs';
import { printable } from '../errors.ts';
import { containerName, attempt } from './config-files.ts';
import { ConfinedRoot } from '../rootfs/confined-root.ts';
import { absolutePath } from '../sys/os-path.ts';

/** The mount points of a system for /dev, /proc and the like, with their modes. */
export const mountPoints: readonly (readonly [path: string, mode: number])[] = [
  ['dev', 0o755],
  ['proc', 0o555],
  ['sys', 0o555],
  ['run', 0o755],
  ['tmp', 0o1777],
];

/** The mount points, and directories that runtimes look for. */
export const neededDirectories: typeof mountPoints = [...mountPoints, ['etc', 0o755], ['usr', 0o755]];

/** Files that are filled if they are missing or empty. */
export const filledFiles = ['etc/hostname', 'etc/hosts', 'etc/resolv.conf'] as const;

/**
 * Adds to a rootfs what a system needs to boot and images omit: missing mount points; and /etc/resolv.conf
 * (the host's), /etc/hosts and /etc/hostname if they are missing, or empty as Docker leaves them. Files with
 * content are not changed.
 *
 * @param directory the rootfs, before it gets its name
 * @returns the paths that were made or filled
 * @throws DestinationError
 */
export function prepareRootfs(destination: string, directory = absolutePath(destination)): string[] {
  return attempt(`prepare ${printable(destination)}`, () => addMissing(destination, directory));
}

function addMissing(destination: string, directory: string): string[] {
  const name = containerName(absolutePath(destination));
  using root = new ConfinedRoot(directory);
  const made = neededDirectories.filter(([path, mode]) => !root.stat(path) && root.makeDirectory(path, mode));
  const contents: Readonly<Record<(typeof filledFiles)[number], string>> = {
    'etc/hostname': `${name}\n`,
    'etc/hosts': `127.0.0.1\tlocalhost\n127.0.1.1\t${name}\n::1\tlocalhost ip6-localhost ip6-loopback\n`,
    'etc/resolv.conf': hostResolvConf(),
  };
  const filled = filledFiles.filter((path) => contents[path] !== '' && root.fillFile(path, contents[path]));
  return [...made.map(([path]) => path), ...filled].map((path) => `/${path}`);
}

/**
 * Returns the host's name servers; with systemd-resolved its upstream servers, since no container reaches the
 * local one.
 */
function hostResolvConf(): string {
  for (const path of ['/run/systemd/resolve/resolv.conf', '/etc/resolv.conf']) {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      // Missing: try the next one.
    }
  }
  return '';
}
