import { IntegrityError, printable } from '../errors.ts';
import { parseGroup, parseId, parsePasswd } from '../sys/passwd.ts';

/** Who a container's process runs as, in numbers. */
export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, ascending. */
  readonly groups: readonly number[];
  /** The name in the image's passwd, where it has one. */
  readonly name?: string | undefined;
  readonly home: string;
}

/** The image's own /etc/passwd and /etc/group; empty where it has none. */
export interface Accounts {
  readonly passwd: string;
  readonly group: string;
}

/**
 * `Config.User` (`user`, `uid`, `user:group`, `uid:gid`, and mixed; empty is root) in numbers, as Docker takes it and the image
 * specification's conversion.md wants it: names are looked up in the image; a number is an id, and when passwd has it
 * brings that entry's group and home. Supplementary groups are those that list the user's name, none where a group is named.
 *
 * @throws IntegrityError for a name that the image does not have
 */
export function resolveUser(text: string, accounts: Accounts): ContainerUser {
  const colon = text.indexOf(':');
  const userText = (colon < 0 ? text : text.slice(0, colon)) || '0';
  const groupText = colon < 0 ? '' : text.slice(colon + 1);
  const uid = parseId(userText);
  const users = parsePasswd(accounts.passwd);
  const entry = users.find((each) => each.name === userText) ?? users.find((each) => each.uid === uid);
  if (!entry && uid === undefined) throw unknown('user', userText, '/etc/passwd');
  const groups = parseGroup(accounts.group);
  const who = { uid: entry?.uid ?? uid ?? 0, name: entry?.name, home: entry?.home || '/' };
  if (groupText === '') {
    const member = groups
      .filter((group) => entry && group.members.includes(entry.name))
      .map(({ gid }) => gid);
    const supplementary = [...new Set(member)].toSorted((a, b) => a - b);
    return { ...who, gid: entry?.gid ?? 0, groups: supplementary };
  }
  const gid = groups.find((group) => group.name === groupText)?.gid ?? parseId(groupText);
  if (gid === undefined) throw unknown('group', groupText, '/etc/group');
  return { ...who, gid, groups: [] };
}

function unknown(what: string, name: string, file: string): IntegrityError {
  return new IntegrityError(`the image runs as ${what} ${printable(name)}, which its ${file} does not have`, {
    code: 'UNKNOWN_USER',
    hint: `the rootfs is complete: leave --for out and write the runtime's configuration by hand`,
  });
}
