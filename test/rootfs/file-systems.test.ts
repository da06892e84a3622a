import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { applyLayer, startRun } from '../../src/rootfs/apply.ts';
import { Destination } from '../../src/rootfs/destination.ts';
import { PathSet } from '../../src/rootfs/path-set.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { dir, file, symlink, tar } from '../support/archive.ts';
import { printTree } from '../support/tree.ts';
import { netRawCapability } from './access-list.ts';
import { build, isRoot, openFilesystem, source, temporaryDirectory } from './harness.ts';

/** A file system mounted for the test; undefined where that cannot be. */
function mounted(t: TestContext, ...words: string[]): string | undefined {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'dlrootfs-test-')));
  const done = isRoot && spawnSync('mount', [...words, directory]).status === 0;
  t.after(() => {
    if (done) spawnSync('umount', ['-l', directory]);
    rmSync(directory, { recursive: true, force: true });
  });
  return done ? directory : undefined;
}

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

test('names that the file system takes for one are counted', (t) => {
  const root = temporaryDirectory(t);
  const filesystem = openFilesystem(root, 'libc');
  const begun = startRun(filesystem, { name: root, mode: 'stage', reservedNames: [], recordChanges: false });
  // What stands in the way and was not made by this run can only be one of its names in other letters.
  const run = { ...begun, made: new PathSet(), creator: { ...begun.creator, caseInsensitive: true } };
  build(root, [tar(file('README', ''))], { mode: 'overlay' });
  applyLayer(
    run,
    new TarReader(source(tar(file('readme2', ''), file('README', 'now'), file('readme2', 'again'))), 'layer'),
    'layer',
  );
  filesystem.close();
  assert.equal(run.counts.collisions, 1);
  assert.equal(
    printTree(root, { text: true, hide: ['time', 'mode', 'owner'] }),
    '- README "now"\n- readme2 "again"\n',
  );
});
