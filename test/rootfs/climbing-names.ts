/**
 * Applies images to directories; names climb by the bug of planted-bug.ts. It prints the result of each
 * attempt as JSON. Usage: `node --import planted-bug.ts climbing-names.ts`.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import type { DestinationError } from '../../src/errors.ts';
import { Rootfs } from '../../src/rootfs/rootfs.ts';
import {
  block,
  character,
  dir,
  fifo,
  file,
  hardlink,
  type Item,
  symlink,
  tar,
  whiteout,
} from '../support/archive.ts';
import { Scratch } from '../support/program.ts';
import { printTree, treeDiff } from '../support/tree.ts';
import { chunks, isRoot } from './harness.ts';

export interface Climbed {
  /** The error; undefined if the image was written without one. */
  readonly error: { readonly message: string; readonly exitCode: number } | undefined;
  /** The changes outside the rootfs, as lines of a diff. */
  readonly changed: string;
}

/** The layers of an image that would change a file outside its rootfs, by name. */
const ways: Readonly<Record<string, readonly (readonly Item[])[]>> = {
  'a file is made': [[file('%up%made', 'x')]],
  'a file is replaced': [[file('%up%victim', 'x')]],
  'a file is made below a directory': [[dir('a'), file('a/%up%%up%made', 'x')]],
  'a directory is made': [[dir('%up%made')]],
  'a symlink is made': [[symlink('%up%made', '/etc/passwd')]],
  'a FIFO is made': [[fifo('%up%made')]],
  'a file is linked out': [[file('a', 'x'), hardlink('%up%made', 'a')]],
  'a file is linked in': [[hardlink('a', '%up%victim')]],
  'a file is removed': [[file('a', 'x')], [whiteout('%up%victim')]],
  'a directory is removed': [[file('a', 'x')], [whiteout('%up%full')]],
  ...(isRoot && {
    'a character device is made': [[character('%up%made', 1, 3)]],
    'a block device is made': [[block('%up%made', 7, 0)]],
  }),
};

async function climb(layers: readonly (readonly Item[])[]): Promise<Climbed> {
  using scratch = new Scratch();
  const root = scratch.join('root');
  mkdirSync(root);
  mkdirSync(scratch.join('full'));
  writeFileSync(scratch.join('full/file'), 'of the user');
  writeFileSync(scratch.join('victim'), 'of the user');
  const outside = (): string => printTree(scratch.path, { without: ['root'], hide: ['time'] });
  const before = outside();
  const rootfs = await Rootfs.open(root, { mode: 'stage', name: 'DIR' });
  let error: Climbed['error'];
  try {
    for (const items of layers) await rootfs.apply(chunks(tar(...items)), { label: 'layer' });
  } catch (thrown) {
    const { message, exitCode } = thrown as DestinationError;
    error = { message, exitCode };
  }
  await rootfs.discard();
  return { error, changed: treeDiff(before, outside()) };
}

const climbed: Record<string, Climbed> = {};
for (const [name, layers] of Object.entries(ways)) climbed[name] = await climb(layers);
process.stdout.write(JSON.stringify(climbed));
