import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { applyLayer, startRun } from '../../src/rootfs/apply.ts';
import type { Filesystem } from '../../src/rootfs/filesystem.ts';
import { finishRun } from '../../src/rootfs/directory-metadata.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { dir, file, opaque, symlink, tar, whiteout, type Item } from '../support/archive.ts';
import { build, diskBackends, openFilesystem, source, temporaryDirectory } from './harness.ts';

/** Counts the calls of a file system. */
function counting(filesystem: Filesystem): { filesystem: Filesystem; calls: Map<string, number> } {
  const calls = new Map<string, number>();
  const proxy = new Proxy(filesystem, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (typeof value !== 'function') return value;
      return (...values: unknown[]): unknown => {
        calls.set(String(key), (calls.get(String(key)) ?? 0) + 1);
        return Reflect.apply(value, target, values);
      };
    },
  });
  return { filesystem: proxy, calls };
}

const many = (count: number, item: (index: number) => Item): Item[] =>
  Array.from({ length: count }, (_, index) => item(index));

describe('a directory that a layer hides many times is read once', () => {
  const names = 100;
  const times = 50;
  const lower = many(names, (index) => file(`d/s${index % 10}/f${index}`));
  const table: [title: string, items: Item[]][] = [
    ['opaque markers of one directory', many(times, () => opaque('d'))],
    ['opaque markers of the root', many(times, () => opaque(''))],
    ['whiteouts of one directory', many(times, () => whiteout('d'))],
    [
      'opaque markers of directories in one another',
      many(times, (index) => opaque(index % 2 ? 'd' : 'd/s1')),
    ],
  ];
  for (const [title, markers] of table) {
    for (const mode of ['empty', 'overlay'] as const) {
      test(`${title}, ${mode}`, (t) => {
        const { filesystem, calls } = counting(openFilesystem(temporaryDirectory(t), 'libc'));
        const run = startRun(filesystem, { name: 'x', mode });
        const layers = [tar(...lower), tar(dir('d'), ...lower, ...markers)];
        for (const layer of layers) applyLayer(run, new TarReader(source(layer), 'x'), 'x');
        run.directories.close();
        filesystem.close();
        assert.ok(calls.get('list')! <= 13, `${calls.get('list')} directories were read`);
        assert.ok(
          calls.get('openDirectory')! <= 4 * names + times,
          `${calls.get('openDirectory')} were opened`,
        );
      });
    }
  }
});

test('a tree of directories that is gone is looked for once at the end', (t) => {
  const { filesystem, calls } = counting(openFilesystem(temporaryDirectory(t), 'libc'));
  const run = startRun(filesystem, { name: 'x', mode: 'empty' });
  const layers = [
    tar(file(`${'a/'.repeat(300)}x`), file(`b/${'a/'.repeat(300)}x`)),
    tar(whiteout('a'), whiteout('b')),
  ];
  for (const layer of layers) applyLayer(run, new TarReader(source(layer), 'x'), 'x');
  calls.clear();
  finishRun(run, undefined);
  run.directories.close();
  filesystem.close();
  assert.ok(calls.get('openDirectory')! <= 4, `${calls.get('openDirectory')} directories were looked for`);
});

for (const backend of diskBackends) {
  test(`a path may lead through 40 symlinks, as in the kernel, ${backend}`, (t) => {
    const links = many(41, (index) => symlink(`l${index + 1}`, index === 0 ? 'd' : `l${index}`));
    const apply = (path: string) =>
      build(temporaryDirectory(t), [tar(dir('d'), ...links, file(path))], { backend });
    assert.deepEqual(apply('l40/x').entries, [43]);
    assert.throws(() => apply('l41/x'), { name: 'IntegrityError', code: 'ELOOP' });
  });

  // Without /proc a system takes complete paths only, which are shorter.
  if (backend === 'node-paths') continue;
  test(`symlinks do not extend a path beyond 16 KiB, ${backend}`, (t) => {
    const target = Array.from({ length: 15 }, () => 'n'.repeat(250)).join('/');
    const layer = (count: number) =>
      tar(
        ...many(count, (index) => symlink(`${'l/'.repeat(index)}l`, target)),
        file(`${'l/'.repeat(count)}x`),
      );
    assert.deepEqual(build(temporaryDirectory(t), [layer(4)], { backend }).entries, [5]);
    assert.throws(() => build(temporaryDirectory(t), [layer(5)], { backend }), {
      name: 'IntegrityError',
      code: 'ENAMETOOLONG',
    });
  });
}
