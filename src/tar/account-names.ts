import { parseGroup, parsePasswd } from '../sys/passwd.ts';
import type { FindId } from './access-list.ts';

/**
 * Finds users and groups by what is in an image's `etc/passwd` and `etc/group`, each read when it is first asked for; undefined where there
 * is none. Root is known anyway. One character a byte.
 */
export function accountNames(read: (file: 'passwd' | 'group') => string | undefined): FindId {
  const known = new Map<string, ReadonlyMap<string, number>>();
  return (kind, name) => {
    let ids = known.get(kind);
    if (ids === undefined)
      known.set(kind, (ids = kind === 'user' ? userIds(read('passwd')) : groupIds(read('group'))));
    return ids.get(name) ?? (name === 'root' ? 0 : undefined);
  };
}

/** The first line of a name counts. */
function userIds(passwd = ''): ReadonlyMap<string, number> {
  return new Map(
    parsePasswd(passwd)
      .map(({ name, uid }) => [name, uid] as const)
      .toReversed(),
  );
}

function groupIds(group = ''): ReadonlyMap<string, number> {
  return new Map(
    parseGroup(group)
      .map(({ name, gid }) => [name, gid] as const)
      .toReversed(),
  );
}
