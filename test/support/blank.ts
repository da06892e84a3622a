/** Default members of an entry, and of a record of changes. */
export const blank = {
  linkPath: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeSeconds: 0,
  mtimeNanoseconds: 0,
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: undefined,
};
