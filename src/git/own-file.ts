import { composeLine } from '../tar/mtree.ts';
import { secondsAndRest } from './index-file.ts';
import type { TreeFiles } from './tree-files.ts';

/** What is on disk of a file that we wrote ourselves and no layer, as a change: lines of `composeLine`. */
export function describeFile(files: TreeFiles, path: string): Uint8Array {
  const stat = files.stat(path);
  const [seconds, nanoseconds] = secondsAndRest(stat.mtimeNs);
  const line = composeLine({
    type: 'file',
    path,
    linkPath: '',
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: Number(stat.size),
    mtimeSeconds: Number(seconds),
    mtimeNanoseconds: Number(nanoseconds),
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
    own: true,
  });
  return Buffer.from(line, 'latin1');
}
