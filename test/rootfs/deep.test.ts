import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyLayer, startRun } from '../../src/rootfs/apply.ts';
import { finishRun } from '../../src/rootfs/directory-metadata.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { Setting } from '../faults/setting.ts';
import { dir, file, symlink, tar, whiteout, type Item } from '../support/archive.ts';
import { until } from '../support/until.ts';
import { openFilesystem, source, temporaryDirectory } from './harness.ts';
import { HANG } from '../support/hang.ts';

const deep = (levels: number) => Array.from({ length: levels }, () => 'd').join('/');

/** Returns the levels in an order that is neither ascending nor descending. */
function mixed(levels: number): number[] {
  return Array.from({ length: levels }, (_, n) => ((n * 7919) % levels) + 1);
}

/** Trees of nested directories, by the kind of later entries. */
const trees: Readonly<Record<string, (levels: number) => readonly Item[][]>> = {
  'from above downwards': (levels) => [Array.from({ length: levels }, (_, n) => dir(deep(n + 1)))],
  'with modes that keep their owner out': (levels) => [
    Array.from({ length: levels }, (_, n) => dir(deep(n + 1), { mode: 0 })),
  ],
  'with files at all levels, in no order': (levels) => [
    [dir(deep(levels)), ...mixed(levels).map((level) => file(`${deep(level)}/f`, ''))],
  ],
  'with files at all levels, from below upwards': (levels) => [
    [dir(deep(levels)), ...mixed(levels).map((_, n) => file(`${deep(levels - n)}/f`, ''))],
  ],
  'two, by turns': (levels) => [
    Array.from({ length: levels }, (_, n) => [file(`a/${deep(n + 1)}/f`), file(`b/${deep(n + 1)}/f`)]).flat(),
  ],
  'through a symlink that climbs from the deepest to the top': (levels) => [
    [
      symlink(`${deep(levels)}/up`, '../'.repeat(1000)),
      ...Array.from({ length: levels }, (_, n) => file(`${deep(levels)}/up/${n}`)),
    ],
  ],
  'gone again': (levels) => [[dir(deep(levels))], [whiteout('d')]],
};

/**
 * Counts how often a directory is opened, and how many are open at the same time. All of them must be closed.
 */
function opens(
  directory: string,
  layers: readonly Item[][],
): { readonly count: number; readonly most: number } {
  const filesystem = openFilesystem(directory, 'libc');
  let count = 0;
  let left = 0;
  let most = 0;
  const open = filesystem.openDirectory.bind(filesystem);
  const close = filesystem.closeDirectory.bind(filesystem);
  filesystem.openDirectory = (parent, name) => {
    count += 1;
    const handle = open(parent, name);
    if (handle >= 0) left += 1;
    most = Math.max(most, left);
    return handle;
  };
  filesystem.closeDirectory = (opened) => {
    left -= 1;
    close(opened);
  };
  const run = startRun(filesystem, {
    name: directory,
    mode: 'stage',
  });
  for (const [index, layer] of layers.entries()) {
    applyLayer(run, new TarReader(source(tar(...layer)), `layer ${index}`), `layer ${index}`);
  }
  finishRun(run, undefined);
  run.directories.close();
  assert.equal(left, 0, 'directories stay open');
  filesystem.close();
  return { count, most };
}

for (const [name, layersOf] of Object.entries(trees)) {
  test(`1,200 directories in directories ${name}: the calls for each do not grow with the depth`, (t) => {
    const levels = 1200;
    const { count, most } = opens(temporaryDirectory(t), layersOf(levels));
    assert.ok(count < 80 * levels, `${count} calls`);
    // The limit: those that the walker keeps open, and those of a removal.
    assert.ok(most < 256 + 100 + 10, `${most} open directories`);
  });
}

test('SIGTERM ends a pull of 2,000 directories in directories at once, and nothing is left', async () => {
  const levels = 2000;
  const items = [dir(deep(levels)), ...mixed(levels).map((level) => file(`${deep(level)}/f`))];
  await using setting = await Setting.open({ layers: [{ tar: tar(...items) }] });
  const running = setting.start();
  await until('a stage', () => setting.names.length > 0);
  const begin = performance.now();
  running.kill('SIGTERM');
  assert.equal((await running.result).exitCode, 143);
  assert.ok(performance.now() - begin < HANG);
  assert.deepEqual(setting.names, []);
});
