import assert from 'node:assert/strict';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { describe, test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { IntegrityError } from '../../src/errors.ts';
import { ImageTree } from '../../src/rootfs/image-tree.ts';
import type { InodeName } from '../../src/rootfs/filesystem.ts';
import { MemoryFilesystem } from '../../src/rootfs/memory.ts';
import type { BytePath } from '../../src/tar/entry.ts';
import { dir, file, hardlink, sparse, symlink, tar, type Item } from '../support/archive.ts';
import { layersOf } from '../archive/harness.ts';
import { temporaryDirectory } from './harness.ts';

interface BuiltTree {
  readonly tree: ImageTree;
  /** Returns the number of temporary files that were requested. */
  readonly files: () => number;
}

async function treeOf(t: TestContext, ...layers: readonly (readonly Item[])[]): Promise<BuiltTree> {
  let files = 0;
  const directory = temporaryDirectory(t);
  const temporaryFile = async (): Promise<FileHandle> => {
    files += 1;
    const handle = await open(`${directory}/${files}`, 'wx+');
    await unlink(`${directory}/${files}`);
    return handle;
  };
  const archives = layers.map((items) => tar(...items));
  const tree = await ImageTree.build(layersOf(archives), {
    name: 'the tree',
    temporaryFile,
    temporaryDirectory: directory,
  });
  t.after(() => tree.close());
  return { tree, files: () => files };
}

async function read(tree: ImageTree, paths: readonly string[]): Promise<string[]> {
  const entries = [...tree].filter(({ path }) => paths.includes(path));
  const contents = tree.contents(entries.map(({ inode }) => inode));
  const texts: string[] = [];
  for (const path of paths) {
    const { inode } = entries.find((entry) => entry.path === path)!;
    let text = '';
    const { pieces } = await contents.open(inode);
    for await (const piece of pieces) text += Buffer.from(piece).toString('latin1');
    texts.push(text);
  }
  await contents.close();
  return texts;
}

const attributes = (count: number): Record<string, string> =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`user.${index}`, 'v'.repeat(100)]));

describe('the tree of an image', () => {
  test('lists its names in order, with their metadata and the first name of a file', async (t) => {
    const { tree } = await treeOf(
      t,
      [dir('b', { mode: 0o750, uid: 7 }), file('b/y', 'text', { mtime: [5, 6] }), file('b-a')],
      [hardlink('a', 'b/y'), symlink('b/l', '../b-a')],
    );
    assert.deepEqual(
      [...tree].map(({ path, type, linkTo }) => [path, type, linkTo]),
      [
        ['a', 'file', undefined],
        ['b', 'directory', undefined],
        ['b/l', 'symlink', undefined],
        ['b/y', 'file', 'a'],
        ['b-a', 'file', undefined],
      ],
    );
    const [a, b, l, y] = [...tree];
    assert.equal(a!.inode, y!.inode);
    assert.deepEqual([b!.mode, b!.uid, l!.linkPath], [0o750, 7, '../b-a']);
    assert.deepEqual([y!.size, y!.mtimeSeconds, y!.mtimeNanoseconds], [4, 5, 6]);
    assert.deepEqual([tree.layerEntries, tree.counts.ignored], [[3, 2], 0]);
  });

  test('hands out the contents of the files that were asked for, in any order', async (t) => {
    const holes = [
      [0, 'start'],
      [5000, 'end'],
    ] as const;
    const { tree, files } = await treeOf(
      t,
      [file('a', '1'), file('b', '2'.repeat(70_000)), sparse('c', 6000, holes, '1.0')],
      [file('d', '4'), file('a', 'one')],
    );
    assert.deepEqual(await read(tree, ['a']), ['one']);
    assert.equal(files(), 0, 'what nobody wants is not put aside');
    assert.deepEqual(await read(tree, ['c', 'b']), ['startend', '2'.repeat(70_000)]);
    assert.equal(files(), 1);
    assert.deepEqual(await read(tree, ['b']), ['2'.repeat(70_000)], 'what was put aside stays there');
  });

  test('keeps long targets and attributes in its temporary file', async (t) => {
    const { tree, files } = await treeOf(t, [
      symlink('l', 's'.repeat(4095)),
      file('f', '', { xattrs: attributes(500) }),
      symlink('short', 'x'),
    ]);
    assert.equal(files(), 1);
    const [f, l, short] = [...tree];
    assert.equal(l!.linkPath, 's'.repeat(4095));
    assert.equal(short!.linkPath, 'x');
    assert.deepEqual(
      [...f!.xattrs!].map(([name, value]) => [name, Buffer.from(value).toString()]),
      Object.entries(attributes(500)),
    );
  });

  test('takes all attributes of an entry, but from hard links none beyond 64 KiB', async (t) => {
    const { tree } = await treeOf(t, [
      file('f', '', { xattrs: attributes(700) }),
      file('g', '', { xattrs: { 'user.0': 'old', 'user.1': '1' } }),
      hardlink('h', 'f', { xattrs: { 'user.more': 'x' } }),
      hardlink('i', 'g', { xattrs: { 'user.0': 'new', 'user.2': '2' } }),
    ]);
    const [f, g] = [...tree];
    assert.equal(f!.xattrs!.size, 700);
    assert.equal(tree.counts.xattrs, 1);
    assert.deepEqual(
      [...g!.xattrs!].map(([name, value]) => [name, Buffer.from(value).toString()]),
      [
        ['user.0', 'new'],
        ['user.1', '1'],
        ['user.2', '2'],
      ],
    );
  });

  test('a directory has the attributes of its last entry alone, in their order', async (t) => {
    const { tree } = await treeOf(
      t,
      [dir('d', { xattrs: { 'user.a': '1', 'user.b': '2', 'user.c': '3' } })],
      [dir('d', { xattrs: { 'user.c': '4', 'user.a': '5' } })],
    );
    const [d] = [...tree];
    assert.deepEqual(
      [...d!.xattrs!].map(([name, value]) => [name, Buffer.from(value).toString()]),
      [
        ['user.c', '4'],
        ['user.a', '5'],
      ],
    );
  });

  for (const item of [file('n'.repeat(256), ''), symlink('l', 's'.repeat(4096))]) {
    test('a name that no Linux takes is the fault of the layer', async (t) => {
      await assert.rejects(treeOf(t, [item]), (error) => {
        assert.ok(error instanceof IntegrityError);
        assert.equal(error.code, 'ENAMETOOLONG');
        assert.match(error.message, /^layer 0: /);
        return true;
      });
    });
  }
});

test('names in memory are as good as maps of maps, whatever is added and removed', () => {
  const directory = fc.constantFrom('1', '2', '3', '4');
  const text = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'ab', 'ba', 'abc', '\xff', 'n'.repeat(255));
  fc.assert(
    fc.property(fc.array(fc.tuple(directory, text, fc.boolean()), { maxLength: 200 }), (steps) => {
      const filesystem = new MemoryFilesystem();
      const { root } = filesystem;
      const parents = ['1', '2', '3', '4'].map((path) => {
        filesystem.makeDirectory(root, path, 0o755);
        return { path: path as BytePath, handle: filesystem.openDirectory(root, path) };
      });
      const model = new Map<string, number>();
      for (const [path, name, add] of steps) {
        const parent = parents.find((each) => each.path === path)!;
        const key = `${path}/${name}`;
        const found = filesystem.inodeAt(parent, name);
        assert.equal(found < 0 ? undefined : found, model.get(key));
        if (found < 0 && add) model.set(key, filesystem.createFile(parent, name, 0o644));
        else if (found >= 0 && !add) {
          assert.equal(filesystem.remove(parent, name), 0);
          model.delete(key);
        }
      }
      for (const { path, handle } of parents) {
        const expected = [...model.keys()]
          .filter((key) => key.startsWith(`${path}/`))
          .map((key) => key.slice(2))
          .toSorted((one, other) => (one < other ? -1 : 1));
        assert.deepEqual(
          [...filesystem.inOrder(handle)].map(([name]) => name),
          expected,
        );
      }
    }),
  );
});

test('inodes in memory keep what is set, and a freed one comes back empty', () => {
  const filesystem = new MemoryFilesystem();
  const parent = filesystem.root;
  const node = (inode: number): InodeName => ({ parent, name: String(inode), file: inode });
  const count = 40_000;
  for (let index = 1; index <= count; index += 1) {
    filesystem.source = { ...filesystem.source, size: index };
    assert.equal(filesystem.createFile(parent, String(index), 0o644), index + 1);
    filesystem.setTimes(node(index + 1), index / 3, index);
  }
  for (let index = 1; index <= count; index += 1) {
    const { size, mtimeSeconds, mtimeNanoseconds } = filesystem.inodes.status(index + 1);
    assert.deepEqual([size, mtimeSeconds, mtimeNanoseconds], [index, index / 3, index]);
  }
  assert.equal(filesystem.list(parent).length, count);
  for (const name of ['7', '20000']) assert.equal(filesystem.remove(parent, name), 0);
  assert.equal(filesystem.list(parent).length, count - 2);
  filesystem.source = { ...filesystem.source, size: 0 };
  const made = ['a', 'b', 'c'].map((name) => filesystem.createFile(parent, name, 0o644));
  assert.deepEqual(made, [20_001, 8, count + 2]);
  const { size, mtimeSeconds } = filesystem.inodes.status(8);
  assert.deepEqual([size, mtimeSeconds], [0, 0]);
});
