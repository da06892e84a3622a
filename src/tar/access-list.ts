/**
 * The extended attributes in which Linux keeps POSIX access lists: acl(5). New files in a directory inherit
 * from the second one.
 */
export const accessListXattr = 'system.posix_acl_access';
export const defaultAccessListXattr = 'system.posix_acl_default';

/**
 * Keys of pax records with an access list as text, and their attributes. They are star's; GNU tar and bsdtar
 * write them too.
 */
export const textKeys: ReadonlyMap<string, string> = new Map([
  ['SCHILY.acl.access', accessListXattr],
  ['SCHILY.acl.default', defaultAccessListXattr],
]);

/** The key of each of these attributes. */
export const keyOfList: ReadonlyMap<string, string> = new Map(
  [...textKeys].map(([key, name]) => [name, key]),
);

interface AccessListEntry {
  readonly tag: number;
  readonly permissions: number;
  readonly id: number;
}

// linux/posix_acl.h and posix_acl_xattr.h
const LIST_VERSION = 2;
const OWNER = 0x01;
const USER = 0x02;
const OWNING_GROUP = 0x04;
const GROUP = 0x08;
const MASK = 0x10;
const OTHERS = 0x20;
const noId = 0xffff_ffff;
const HEAD_BYTES = 4;
const PART_BYTES = 8;
/**
 * Most parts that fit into the largest value of an attribute (XATTR_SIZE_MAX): longer text is no access list.
 */
const MAX_PARTS = Math.floor((65_536 - HEAD_BYTES) / PART_BYTES);

/**
 * Words of acl(5), each with its tag without a qualifier and with one. A word may be its first letter alone.
 */
const PART_KINDS: readonly (readonly [word: string, own: number, named?: number])[] = [
  ['user', OWNER, USER],
  ['group', OWNING_GROUP, GROUP],
  ['mask', MASK],
  ['other', OTHERS],
];
const kindOf = new Map(
  PART_KINDS.flatMap((kind) => [kind[0], kind[0][0]!].map((word) => [word, kind] as const)),
);
const words = new Map(PART_KINDS.flatMap(([word, ...tags]) => tags.map((tag) => [tag, word] as const)));

/** Rights of a part: each is a bit, the first one the highest. */
const PART_RIGHTS = ['r', 'w', 'x'] as const;

/**
 * Converts text of acl(5), with parts separated by newlines or commas, to an access list of the kernel. A
 * number is preferred to a name. Star and bsdtar put it behind the permissions (`user:daemon:rwx:1`). Others
 * put it in the name's place.
 *
 * @returns undefined for text that is not an access list, or has a name without a number
 */
export function accessListBytes(text: string): Buffer | undefined {
  const parts: AccessListEntry[] = [];
  let lines = 0;
  for (const [line] of text.matchAll(/[^\n,]+/g)) {
    lines += 1;
    if (lines > MAX_PARTS) return undefined;
    const comment = line.indexOf('#');
    const written = (comment === -1 ? line : line.slice(0, comment)).trim();
    if (written === '') continue;
    const part = parsePart(written.split(':'));
    if (part === undefined) return undefined;
    parts.push(part);
  }
  if (parts.length === 0) return undefined;
  // The kernel requires this order.
  parts.sort((one, other) => one.tag - other.tag || one.id - other.id);
  const bytes = Buffer.alloc(HEAD_BYTES + PART_BYTES * parts.length);
  bytes.writeUInt32LE(LIST_VERSION, 0);
  for (const [index, { tag, permissions, id }] of parts.entries()) {
    const at = HEAD_BYTES + PART_BYTES * index;
    bytes.writeUInt16LE(tag, at);
    bytes.writeUInt16LE(permissions, at + 2);
    bytes.writeUInt32LE(id, at + 4);
  }
  return bytes;
}

/** Returns the text of an access list, with numbers for names; undefined if the bytes are no access list. */
export function accessListText(bytes: Uint8Array): string | undefined {
  const parts = entriesOf(bytes)?.map(({ tag, permissions, id }) => {
    const word = words.get(tag);
    const rights = PART_RIGHTS.map((right, index) => ((permissions >> (2 - index)) & 1 ? right : '-')).join(
      '',
    );
    return word === undefined || permissions > 7
      ? undefined
      : `${word}:${tag === USER || tag === GROUP ? id : ''}:${rights}`;
  });
  return parts === undefined || parts.length === 0 || parts.includes(undefined) ? undefined : parts.join(',');
}

/** Returns true if an access list adds nothing to a mode. */
export function isPlainList(bytes: Uint8Array): boolean {
  return entriesOf(bytes)?.every(({ tag }) => [OWNER, OWNING_GROUP, OTHERS].includes(tag)) === true;
}

/**
 * Returns the mode of a file with this access list. The list has the rights of owner and others. Its mask, or
 * else its owning group, has the rights of the group.
 */
export function modeWithList(mode: number, bytes: Uint8Array): number {
  const permissions = new Map((entriesOf(bytes) ?? []).map((part) => [part.tag, part.permissions & 7]));
  const right = (tag: number | undefined, shift: number): number =>
    (tag === undefined ? undefined : permissions.get(tag)) ?? (mode >> shift) & 7;
  const groupTag = permissions.has(MASK) ? MASK : OWNING_GROUP;
  return (mode & 0o7000) | (right(OWNER, 6) << 6) | (right(groupTag, 3) << 3) | right(OTHERS, 0);
}

function parsePart(fields: readonly string[]): AccessListEntry | undefined {
  const [word = '', ...rest] = fields[0] === 'default' || fields[0] === 'd' ? fields.slice(1) : fields;
  const [, own, named] = kindOf.get(word.trim()) ?? [];
  // Solaris has no qualifier for mask and other.
  const [qualifier = '', rights = '', number = ''] =
    rest.length === 1 ? ['', ...rest] : rest.map((field) => field.trim());
  if (own === undefined || rest.length > 3 || !/^[rwx-]{1,3}$/.test(rights)) return undefined;
  const permissions = PART_RIGHTS.reduce((bits, right) => 2 * bits + (rights.includes(right) ? 1 : 0), 0);
  if (qualifier === '') return { tag: own, permissions, id: noId };
  if (named === undefined) return undefined;
  const digits = [number, qualifier].find((field) => /^\d{1,10}$/.test(field));
  const id = digits === undefined ? noId : Number(digits);
  return id >= noId ? undefined : { tag: named, permissions, id };
}

function entriesOf(bytes: Uint8Array): AccessListEntry[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const count = (bytes.length - HEAD_BYTES) / PART_BYTES;
  if (!Number.isInteger(count) || count < 0 || view.getUint32(0, true) !== LIST_VERSION) return undefined;
  return Array.from({ length: count }, (_, index) => {
    const at = HEAD_BYTES + PART_BYTES * index;
    return {
      tag: view.getUint16(at, true),
      permissions: view.getUint16(at + 2, true),
      id: view.getUint32(at + 4, true),
    };
  });
}
