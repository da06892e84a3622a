import type { FindId } from './access-list.ts';

/** A passwd or group file of an image is looked into up to this size. */
export const longestAccountFile = 4 * 1024 * 1024;

/**
 * Finds users and groups by what is in an image's `etc/passwd` and `etc/group`, each read when it is first asked for; undefined where there
 * is none. Root is known anyway. One character a byte.
 */
export function accountNames(read: (file: 'passwd' | 'group') => string | undefined): FindId {
  const known = new Map<string, ReadonlyMap<string, number>>();
  return (kind, name) => {
    let ids = known.get(kind);
    if (ids === undefined)
      known.set(kind, (ids = parseIds(read(kind === 'user' ? 'passwd' : 'group') ?? '')));
    return ids.get(name) ?? (name === 'root' ? 0 : undefined);
  };
}

/** `NAME:…:NUMBER:…` (passwd(5), group(5)): the first line of a name counts. */
function parseIds(text: string): ReadonlyMap<string, number> {
  const ids = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [name, , number] = line.split(':');
    if (name !== undefined && /^\d{1,10}$/.test(number ?? '') && !ids.has(name))
      ids.set(name, Number(number));
  }
  return ids;
}
