import { createHash } from 'node:crypto';
import type { MemoryFilesystem } from '../../src/rootfs/memory.ts';
import { escapeBytes, formatNode, type PrintedNode, type TreeOptions } from '../support/tree.ts';

const letters = { file: '-', directory: 'd', symlink: 'l', character: 'c', block: 'b', fifo: 'p' } as const;

/** Prints a tree in memory as `printTree` prints a directory. The contents of its files must be complete. */
export function printMemory(filesystem: MemoryFilesystem, options: TreeOptions = {}): string {
  const lines: [path: string, line: string][] = [];
  const groups = new Map<string, string>();
  const { root } = filesystem;
  const print = (path: string, inode: number, content: () => Uint8Array): void => {
    const shown = path === '' ? '.' : path;
    lines.push([path, formatNode(printed(filesystem, shown, inode, content), options, groups)]);
  };
  const walk = (directory: number, above: string): void => {
    for (const [name, inode] of filesystem.inOrder(directory)) {
      if (above === '' && options.without?.includes(name)) continue;
      const path = above + escapeBytes(Buffer.from(name, 'latin1'));
      const bytes = (): Uint8Array => {
        const found = filesystem.readFile({ path: root.path, handle: directory }, name);
        return typeof found === 'number' ? new Uint8Array() : found;
      };
      print(path, inode, bytes);
      if (filesystem.inodes.type(inode) === 'directory') walk(inode, `${path}/`);
    }
  };
  if (options.root === true) print('', root.handle, () => new Uint8Array());
  walk(root.handle, '');
  return lines
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([, line]) => `${line}\n`)
    .join('');
}

function printed(
  filesystem: MemoryFilesystem,
  path: string,
  inode: number,
  content: () => Uint8Array,
): PrintedNode {
  const found = filesystem.inodes.metadata(inode);
  return {
    ...found,
    path,
    letter: letters[found.type],
    device: `${found.deviceMajor},${found.deviceMinor}`,
    mtimeNanoseconds: BigInt(found.mtimeSeconds) * 1_000_000_000n + BigInt(found.mtimeNanoseconds),
    links: found.links,
    identity: String(inode),
    target: () => Buffer.from(found.linkPath, 'latin1'),
    content: () => ({
      text: JSON.stringify(Buffer.from(content()).toString('latin1')),
      hash: createHash('sha256').update(content()).digest('hex').slice(0, 12),
    }),
    xattrs: () => [...(found.xattrs ?? [])].toSorted(([one], [other]) => (one < other ? -1 : 1)),
  };
}
