import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { applyLayer, startRun } from '../../src/rootfs/apply.ts';
import { nothingLost } from '../../src/rootfs/not-restored.ts';
import { Destination } from '../../src/rootfs/destination.ts';
import { WrittenPaths } from '../../src/rootfs/written-paths.ts';
import { TarReader } from '../../src/tar/reader.ts';
import {
  character,
  dir,
  fifo,
  file,
  hardlink,
  opaque,
  sparse,
  symlink,
  tar,
  whiteout,
} from '../support/archive.ts';
import { printTree, treeDiff } from '../support/tree.ts';
import { netRawCapability } from './access-list.ts';
import { build, mounted, openFilesystem, source, temporaryDirectory } from './harness.ts';

test('a file system without extended attributes: they are counted, the rest is done', (t) => {
  const root = mounted(t, '-t', 'ramfs', 'ramfs');
  if (root === undefined) return t.skip('needs the right to mount a ramfs');
  const xattrs = { 'user.a': '1', 'security.capability': netRawCapability };
  const { counts } = build(root, [
    tar(file('f', 'x', { uid: 5, xattrs }), dir('d', { xattrs }), symlink('l', 'x', { xattrs })),
  ]);
  assert.equal(counts.xattrs, 3);
  assert.equal(counts.capabilities, 3);
  assert.equal(
    printTree(root, { text: true, hide: ['time', 'mode'] }),
    'd 0:0 d/\n- 5:0 f "x"\nl 0:0 l -> x\n',
  );
});

for (const type of ['tmpfs', 'overlay'] as const) {
  test(`all that an image has can be kept on ${type}`, (t) => {
    let words = ['-t', 'tmpfs', 'tmpfs'];
    if (type === 'overlay') {
      const base = mounted(t, ...words);
      for (const name of ['lower', 'upper', 'work']) if (base) mkdirSync(join(base, name));
      words = [
        '-t',
        'overlay',
        'overlay',
        '-o',
        `lowerdir=${base}/lower,upperdir=${base}/upper,workdir=${base}/work`,
      ];
    }
    const root = mounted(t, ...words);
    if (root === undefined) return t.skip(`needs the right to mount ${type}`);
    const layers = [
      tar(
        dir('d', { mode: 0o2755, gid: 7, mtime: 5 }),
        file('d/x', 'x', {
          uid: 5,
          mode: 0o4755,
          xattrs: {
            'trusted.b': '2',
            'trusted.overlay.opaque': 'y',
            'security.capability': netRawCapability,
          },
        }),
        character('null', 1, 3),
        hardlink('h', 'd/x'),
        symlink('to', 'd'),
        fifo('p', { mtime: [7, 123_456_789] }),
        sparse('holes', 10_000_000, [[0, 'a']], '1.0'),
      ),
      tar(
        whiteout('to/x'),
        opaque('to'),
        file('to/y', '', { mode: 0o600 }),
        dir('p'),
        hardlink('again', 'h'),
      ),
    ];
    const { counts } = build(root, layers);
    const expected = temporaryDirectory(t);
    build(expected, layers);
    assert.equal(treeDiff(printTree(expected), printTree(root)), '');
    assert.deepEqual(counts, nothingLost());
    assert.ok(statSync(join(root, 'holes')).blocks < 1000);
  });
}

test('a file system that is read-only: an error before anything is done', async (t) => {
  const base = temporaryDirectory(t);
  mkdirSync(join(base, 'empty'));
  const root = mounted(t, '--bind', base);
  if (root === undefined || spawnSync('mount', ['-o', 'remount,bind,ro', root]).status !== 0) {
    return t.skip('needs the right to mount');
  }
  await assert.rejects(Destination.open(join(root, 'new')), { exitCode: 7 });
  await assert.rejects(Destination.open(join(root, 'empty')), { exitCode: 7, code: 'EROFS' });
  assert.throws(() => build(join(root, 'empty'), [tar(file('x', ''))]), {
    exitCode: 7,
    code: 'EROFS',
    message: /^layer 0: x: cannot create x: read-only file system/,
  });
  assert.deepEqual(readdirSync(join(root, 'empty')), []);
});

test('modes that the file system does not take are found out at the start, and counted', (t) => {
  const root = temporaryDirectory(t);
  const filesystem = openFilesystem(root, 'node');
  // A FAT file system that is mounted for one user, or exFAT by FUSE, ignores chmod(2) without an error.
  const stubborn = new Proxy(filesystem, {
    get(target, name: keyof typeof filesystem) {
      const member: unknown = target[name];
      if (name === 'setMode') return () => 0;
      return typeof member === 'function' ? (member.bind(target) as unknown) : member;
    },
  });
  const begin = (system: typeof filesystem) => startRun(system, { name: root, mode: 'stage' });
  assert.equal(begin(filesystem).creator.fixedModes, false);
  const run = begin(stubborn);
  const layer = tar(dir('d'), file('d/a', '', { mode: 0o4755 }), hardlink('d/b', 'd/a'), symlink('l', 'd'));
  applyLayer(run, new TarReader(source(layer), 'layer'), 'layer');
  filesystem.close();
  assert.equal(run.counts.modes, 2);
});

test('names that the file system takes for one are counted, and a whiteout takes only its own', (t) => {
  const root = temporaryDirectory(t);
  // Node cannot make FIFOs: nothing is made, and so nothing conflicts.
  const filesystem = openFilesystem(root, 'node');
  const begun = startRun(filesystem, { name: root, mode: 'stage' });
  // An obstacle that this run did not make can only be a name that differs in case.
  const run = Object.assign(begun, {
    written: new WrittenPaths(true),
    creator: { ...begun.creator, caseInsensitive: true },
  });
  build(root, [tar(file('README', ''), file('LICENSE', ''))], { mode: 'overlay' });
  for (const layer of [
    tar(file('readme2', ''), file('README', 'now'), file('readme2', 'again'), fifo('pipe')),
    tar(whiteout('LICENSE'), whiteout('readme2')),
  ]) {
    applyLayer(run, new TarReader(source(layer), 'layer'), 'layer');
  }
  filesystem.close();
  assert.deepEqual({ ...run.counts, times: 0 }, { ...nothingLost(), collisions: 1, devices: 1 });
  assert.equal(
    printTree(root, { text: true, hide: ['time', 'mode', 'owner'] }),
    '- LICENSE ""\n- README "now"\n',
  );
});
