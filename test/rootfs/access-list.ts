/**
 * Returns a POSIX access list in the format of the extended attribute (linux/posix_acl_xattr.h): owner, one
 * user, group, mask, others.
 */
export function accessListBytes(entries: {
  readonly owner: number;
  readonly user: readonly [uid: number, permissions: number];
  readonly group: number;
  readonly mask: number;
  readonly others: number;
}): Buffer {
  const undefinedId = 0xffff_ffff;
  const rows: [tag: number, permissions: number, id: number][] = [
    [0x01, entries.owner, undefinedId],
    [0x02, entries.user[1], entries.user[0]],
    [0x04, entries.group, undefinedId],
    [0x10, entries.mask, undefinedId],
    [0x20, entries.others, undefinedId],
  ];
  const bytes = Buffer.alloc(4 + 8 * rows.length);
  bytes.writeUInt32LE(2, 0);
  for (const [index, [tag, permissions, id]] of rows.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * index);
    bytes.writeUInt16LE(permissions, 6 + 8 * index);
    bytes.writeUInt32LE(id, 8 + 8 * index);
  }
  return bytes;
}

/** `cap_net_raw+ep` in the format of setcap(8): struct vfs_cap_data, revision 2. */
export const netRawCapability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
