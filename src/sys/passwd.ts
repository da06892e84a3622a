/** A line of passwd(5). */
export interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/** A line of group(5). */
export interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** Limit on the passwd and group file of an image, in bytes. */
export const MAX_ACCOUNT_FILE_BYTES = 4 * 1024 * 1024;

/** The largest id: 2^32 − 1 means "none" to the kernel. */
const MAX_ID = 2 ** 32 - 2;

/** Parses a uid or gid in decimal digits; undefined if it is none. */
export function parseId(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,10}$/.test(text) && Number(text) <= MAX_ID ? Number(text) : undefined;
}

/** Parses passwd(5); malformed lines are skipped, as in libc. */
export function parsePasswd(text: string): PasswdEntry[] {
  return fields(text).flatMap(([name = '', , uidText, gidText, , home = '']) => {
    const uid = parseId(uidText);
    const gid = parseId(gidText);
    return name === '' || uid === undefined || gid === undefined ? [] : [{ name, uid, gid, home }];
  });
}

/** Parses group(5); malformed lines are skipped. */
export function parseGroup(text: string): GroupEntry[] {
  return fields(text).flatMap(([name = '', , gidText, members = '']) => {
    const gid = parseId(gidText);
    return name === '' || gid === undefined ? [] : [{ name, gid, members: members.split(',') }];
  });
}

function fields(text: string): string[][] {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return lines.map((line) => line.split(':'));
}
