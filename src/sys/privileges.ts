import { readFileSync } from 'node:fs';
import { geteuid } from 'node:process';

/** Capabilities for restoring a rootfs, by their numbers in linux/capability.h. */
const CAPABILITY_NUMBERS = { chown: 0, sysAdmin: 21, mknod: 27, setfcap: 31 } as const;

/** True if this process has a capability outside of any user namespace. */
export function mayDo(what: Exclude<keyof typeof CAPABILITY_NUMBERS, 'chown'>): boolean {
  return isCapable(what) && isInitialUserNamespace();
}

/**
 * Returns a test: may this process give files to a user and group? It may, with CAP_CHOWN, to those of its
 * user namespace.
 */
export function ownersToGive(): (uid: number, gid: number) => boolean {
  if (!isCapable('chown')) return () => false;
  const [users, groups] = [idsOf('uid_map'), idsOf('gid_map')];
  return (uid, gid) => users(uid) && groups(gid);
}

function isCapable(what: keyof typeof CAPABILITY_NUMBERS): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(systemText('/proc/self/status'))?.[1];
  if (effective === undefined) return geteuid?.() === 0;
  return ((BigInt(`0x${effective}`) >> BigInt(CAPABILITY_NUMBERS[what])) & 1n) === 1n;
}

function idsOf(map: 'uid_map' | 'gid_map'): (id: number) => boolean {
  const ranges = idMappings(map);
  if (ranges.length === 0) return () => true;
  return (id) => ranges.some(({ containerID, size }) => id >= containerID && id < containerID + size);
}

/**
 * A range of ids in a user namespace, and its start outside, in the words of the OCI runtime specification.
 */
export interface IDMapping {
  readonly containerID: number;
  readonly hostID: number;
  readonly size: number;
}

/** Returns the id mappings of this process's user namespace (user_namespaces(7)); empty without /proc. */
export function idMappings(map: 'uid_map' | 'gid_map'): IDMapping[] {
  const lines = systemText(`/proc/self/${map}`).split('\n');
  return lines.flatMap((line) => {
    const [containerID, hostID, size] = line.trim().split(/\s+/).map(Number);
    return containerID === undefined || hostID === undefined || size === undefined
      ? []
      : [{ containerID, hostID, size }];
  });
}

/**
 * True outside of any user namespace (user_namespaces(7)). Inside, root may not give all owners and
 * attributes.
 */
export function isInitialUserNamespace(): boolean {
  const map = systemText('/proc/self/uid_map');
  return map === '' || /^\s*0\s+0\s+4294967295\s*$/.test(map);
}

/** With --userns: set for the run inside the user namespace by the run outside. */
export const USERNS_VARIABLE = 'DLROOTFS_USERNS';

/**
 * True if this run is the one inside. The variable alone proves nothing: root outside any namespace may have
 * inherited it.
 */
export function isInUserNamespace(environment: Readonly<Record<string, string | undefined>>): boolean {
  return environment[USERNS_VARIABLE] !== undefined && !isInitialUserNamespace();
}

/** Returns the text of a file in /proc or /sys; empty if it cannot be read. */
export function systemText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
