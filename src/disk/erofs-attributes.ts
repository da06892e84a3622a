import { crc32 } from 'node:zlib';
import type { InodeMetadata } from '../rootfs/memory-inodes.ts';
import { accessListXattr, accessListText, defaultAccessListXattr, keyOfList } from '../tar/access-list.ts';
import { isLinuxXattr } from './format.ts';

/** The prefixes of names that the format stores as numbers. */
const NAME_INDEXES: readonly (readonly [prefix: string, index: number])[] = [
  ['user.', 1],
  [accessListXattr, 2],
  [defaultAccessListXattr, 3],
  ['trusted.', 4],
  ['security.', 6],
];
const MAX_XATTR_NAME_BYTES = 255;
const MAX_VALUE_BYTES = 0xffff;
const HEAD_BYTES = 12;
const MAX_SHARED = 255;
/** `i_xattr_icount` has 16 bits. */
const MAX_BYTES = HEAD_BYTES + 4 * (0xffff - 1);
/** An attribute of more inodes than this is stored once. */
const MAX_COPIES = 2;

/**
 * Returns the attributes that the format can store, encoded. An access list that the kernel cannot read would
 * deny access to the file.
 */
export function storableXattrs({ type, xattrs }: InodeMetadata): Buffer[] {
  const attributes: Buffer[] = [];
  for (const [name, value] of xattrs ?? []) {
    const isFit = keyOfList.has(name)
      ? type !== 'symlink' && accessListText(value) !== undefined
      : isLinuxXattr(name, type);
    const bytes = isFit ? xattrBytes(name, value) : undefined;
    if (bytes) attributes.push(bytes);
  }
  return attributes;
}

/** The attributes that many inodes share, stored once. */
export class SharedXattrs {
  /**
   * The number of inodes with an attribute, by its checksum. A collision only stores one more attribute here.
   */
  readonly #counts = new Map<number, number>();
  readonly #numbers = new Map<string, number>();
  readonly #stored: Buffer[] = [];
  #length = 0;

  count(attribute: Buffer): void {
    const checksum = crc32(attribute);
    this.#counts.set(checksum, (this.#counts.get(checksum) ?? 0) + 1);
  }

  /** Returns the offset of the attribute, in units of four bytes; undefined if few inodes have it. */
  numberOf(attribute: Buffer): number | undefined {
    if (this.#counts.get(crc32(attribute))! <= MAX_COPIES) return undefined;
    const key = attribute.toString('latin1');
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const number = this.#length / 4;
    this.#numbers.set(key, number);
    this.#stored.push(attribute);
    this.#length += attribute.length;
    return number;
  }

  toBytes(): Buffer {
    return Buffer.concat(this.#stored);
  }
}

/** Encodes an attribute; undefined if the format cannot store it. */
function xattrBytes(name: string, value: Uint8Array): Buffer | undefined {
  const [prefix, index] = NAME_INDEXES.find(([beginning]) => name.startsWith(beginning)) ?? [];
  if (prefix === undefined || index === undefined) return undefined;
  const length = name.length - prefix.length;
  if (length > MAX_XATTR_NAME_BYTES || value.length > MAX_VALUE_BYTES) return undefined;
  const bytes = Buffer.alloc(4 * Math.ceil((4 + length + value.length) / 4));
  bytes.writeUInt8(length, 0);
  bytes.writeUInt8(index, 1);
  bytes.writeUInt16LE(value.length, 2);
  bytes.write(name.slice(prefix.length), 4, 'latin1');
  bytes.set(value, 4 + length);
  return bytes;
}

/**
 * Encodes all attributes of an inode; shared ones become their numbers.
 *
 * @param sharedNumber returns undefined for an attribute that is not shared
 * @returns empty bytes without attributes; `refused`: how many had no room
 */
export function xattrsBytes(
  attributes: readonly Buffer[],
  sharedNumber: (attribute: Buffer) => number | undefined,
): { readonly bytes: Buffer; readonly refused: number } {
  const shared: number[] = [];
  const own: Buffer[] = [];
  let size = HEAD_BYTES;
  for (const attribute of attributes) {
    const number = shared.length < MAX_SHARED ? sharedNumber(attribute) : undefined;
    const length = number === undefined ? attribute.length : 4;
    if (size + length > MAX_BYTES) continue;
    size += length;
    if (number === undefined) own.push(attribute);
    else shared.push(number);
  }
  const refused = attributes.length - shared.length - own.length;
  if (size === HEAD_BYTES) return { bytes: Buffer.alloc(0), refused };
  const head = Buffer.alloc(HEAD_BYTES + 4 * shared.length);
  head.writeUInt8(shared.length, 4);
  for (const [index, number] of shared.entries()) head.writeUInt32LE(number, HEAD_BYTES + 4 * index);
  return { bytes: Buffer.concat([head, ...own]), refused };
}

/** Returns the value of `i_xattr_icount` for so many bytes of attributes. */
export function xattrCount(length: number): number {
  return length === 0 ? 0 : (length - HEAD_BYTES) / 4 + 1;
}
