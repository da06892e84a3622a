import { readFileSync } from 'node:fs';
import { geteuid } from 'node:process';

/** Capabilities that restoring a rootfs takes, by their numbers in linux/capability.h. */
const capabilities = { chown: 0, sysAdmin: 21, mknod: 27, setfcap: 31 } as const;

/** Whether this process may do something on all of the system: with the capability for it, outside of any user namespace. */
export function mayDo(what: Exclude<keyof typeof capabilities, 'chown'>): boolean {
  return isCapable(what) && isInitialUserNamespace();
}

/** Whether this process may give files to a user and group: those that its user namespace has. */
export function ownersToGive(): (uid: number, gid: number) => boolean {
  if (!isCapable('chown')) return () => false;
  const [users, groups] = [idsOf('uid_map'), idsOf('gid_map')];
  return (uid, gid) => users(uid) && groups(gid);
}

function isCapable(what: keyof typeof capabilities): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(procFile('status'))?.[1];
  if (effective === undefined) return geteuid?.() === 0;
  return ((BigInt(`0x${effective}`) >> BigInt(capabilities[what])) & 1n) === 1n;
}

/** Which ids are in a map of user_namespaces(7), whose lines are: the first id inside, that outside, their number. */
function idsOf(map: string): (id: number) => boolean {
  const ranges = procFile(map)
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number));
  if (ranges[0]!.length < 3) return () => true;
  return (id) => ranges.some(([first, , count]) => id >= first! && id < first! + count!);
}

/** user_namespaces(7): elsewhere there are owners and attributes that root may not give. */
export function isInitialUserNamespace(): boolean {
  const map = procFile('uid_map');
  return map === '' || /^\s*0\s+0\s+4294967295\s*$/.test(map);
}

/** Set by the run outside of --userns for the one that it starts in a user namespace. */
export const USERNS_VARIABLE = 'DLROOTFS_USERNS';

/** Whether this run is the one inside. */
export function isInUserNamespace(environment: Readonly<Record<string, string | undefined>>): boolean {
  return environment[USERNS_VARIABLE] !== undefined;
}

/** Empty without /proc. */
function procFile(name: string): string {
  try {
    return readFileSync(`/proc/self/${name}`, 'latin1');
  } catch {
    return '';
  }
}
