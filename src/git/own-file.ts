import { GitError, printable } from '../errors.ts';
import { composeLine } from '../tar/mtree.ts';
import { PULL_AGAIN, type RootfsFiles } from './rootfs-files.ts';

/** What is on disk of a file that we wrote ourselves and no layer, as a change: lines of `composeLine`. */
export function describeFile(files: RootfsFiles, path: string): Uint8Array {
  const stat = files.stat(path);
  if (stat?.type !== 'file') {
    throw new GitError(`cannot find ${printable(path)}, which was just written`, { hint: PULL_AGAIN });
  }
  const { mode, uid, gid, size, mtimeSeconds, mtimeNanoseconds } = stat;
  const line = composeLine({
    type: 'file',
    path,
    linkPath: '',
    mode,
    uid,
    gid,
    size,
    mtimeSeconds,
    mtimeNanoseconds,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
    own: true,
  });
  return Buffer.from(line, 'latin1');
}
