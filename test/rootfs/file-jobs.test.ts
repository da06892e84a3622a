import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { applyLayer, startRun } from '../../src/rootfs/apply.ts';
import { createFileJobs, FileJobRunner, FileJobs } from '../../src/rootfs/file-jobs.ts';
import type { DiskFilesystem } from '../../src/rootfs/filesystem.ts';
import { LinuxFilesystem } from '../../src/rootfs/linux.ts';
import { finishRun } from '../../src/rootfs/directory-metadata.ts';
import { createRing, RingReader, RingWriter } from '../../src/sys/ring.ts';
import { systemCalls } from '../../src/sys/system-calls.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { dir, file, hardlink, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { printTree, treeDiff } from '../support/tree.ts';
import { readXattrs, writeXattr } from '../support/xattrs.ts';
import { netRawCapability } from './access-list.ts';
import { build, openBelow, openFilesystem, temporaryDirectory } from './harness.ts';

const MIB = 1024 * 1024;

/** Makes a file system close each file and then return this error. */
function closingWith<T extends Pick<DiskFilesystem, 'closeFile'>>(filesystem: T, error: number): T {
  const close = filesystem.closeFile.bind(filesystem);
  filesystem.closeFile = (descriptor) => close(descriptor) || error;
  return filesystem;
}

/**
 * Applies a layer of at most 4 MiB in one thread. A file that 1 MiB or more follows becomes a job. A job is
 * done only when it is waited for, as if the other thread were very slow. Returns the number of jobs.
 *
 * @param closed the result of close(2) after the file was closed
 */
function applyLate(t: TestContext, root: string, layer: Uint8Array, closed = 0): number {
  const ring = createRing();
  const writer = new RingWriter(ring);
  const reader = new RingReader(ring);
  const memory = createFileJobs();
  const filesystem = closingWith(openFilesystem(root, 'libc'), closed);
  const run = startRun(filesystem, { name: root, mode: 'stage' }, undefined, new FileJobs(memory, reader));
  const openFiles = closingWith(LinuxFilesystem.ofOpenFiles(systemCalls()!), closed);
  const runner = new FileJobRunner(memory, writer.bytes, openFiles);
  const wait = t.mock.method(Atomics, 'wait', () => {
    assert.ok(runner.waiting > 0, 'it would wait for ever');
    runner.run(1);
    return 'ok';
  });
  try {
    writer.reopen();
    reader.restart();
    runner.begin();
    assert.equal(writer.writeBlocking(layer), true);
    writer.end();
    applyLayer(run, new TarReader(reader, 'the layer'), 'the layer');
    finishRun(run, undefined);
    // The second word counts jobs that are done.
    return new Int32Array(memory)[1]!;
  } finally {
    wait.mock.restore();
    run.directories.close();
    filesystem.close();
  }
}

const behind = file('behind', Buffer.alloc(2 * MIB, 'y'));

function tested(name: string, run: (t: TestContext) => void): void {
  test(name, { skip: systemCalls() ? false : 'needs libc' }, run);
}

tested('files that are written late: the tree is the one that a single thread writes', (t) => {
  const layer = tar(
    dir('d', { mode: 0o500, mtime: 5 }),
    ...Array.from({ length: 300 }, (_, n) =>
      file(`d/f${n}`, 'x'.repeat(n * 10), {
        mode: n % 2 === 0 ? 0o4755 : 0o600,
        uid: n % 3,
        mtime: 1000 + n,
      }),
    ),
    file('d/f7', 'again', { mtime: 1 }),
    hardlink('d/f8', 'd/f9'),
    whiteout('d/f10'),
    file('d/f11/in', 'a directory in its place'),
    hardlink('first', 'd/f12'),
    file('d/f12', 'another one'),
    behind,
  );
  const [one, two] = [temporaryDirectory(t), temporaryDirectory(t)];
  build(one, [layer], { mode: 'stage' });
  const jobs = applyLate(t, two, layer);
  assert.ok(jobs > 100, `${jobs} jobs`);
  assert.equal(treeDiff(printTree(one), printTree(two)), '');
  assert.deepEqual(openBelow(two), []);
});

test(
  'attributes of a hard link stay, however late its file gets content and owner',
  { skip: missing('root') || (systemCalls() ? false : 'needs libc') },
  (t) => {
    const [root, probe] = [temporaryDirectory(t), temporaryDirectory(t)];
    const xattrs = { 'security.capability': netRawCapability };
    if (!writeXattr(probe, 'security.capability', netRawCapability))
      return t.skip('needs a file system with capabilities');
    const jobs = applyLate(
      t,
      root,
      tar(file('a', 'elf', { uid: 7 }), hardlink('b', 'a', { xattrs }), behind),
    );
    assert.ok(jobs > 0);
    assert.deepEqual(readXattrs(join(root, 'b')), [['security.capability', netRawCapability]]);
    return undefined;
  },
);

tested(
  'the tar ends inside a file: its pieces are written before it is closed, and the early end is the error',
  (t) => {
    const root = temporaryDirectory(t);
    const cut = tar(file('a', Buffer.alloc(8 * MIB, 'x'))).subarray(0, 3.5 * MIB);
    assert.throws(() => applyLate(t, root, cut), { code: 'MALFORMED_TAR' });
    assert.deepEqual(openBelow(root), []);
  },
);

for (const [who, items] of [
  ['the thread that opens it', [file('a', 'x')]],
  ['the other thread', [file('a', 'x'), behind]],
] as const) {
  tested(`close(2) fails in ${who}: the error says so, since the content may be lost`, (t) => {
    const root = temporaryDirectory(t);
    assert.throws(() => applyLate(t, root, tar(...items), -constants.errno.EIO), {
      name: 'DestinationError',
      message: /the layer: a: cannot write a: i\/o error \(EIO\)/,
    });
    assert.deepEqual(openBelow(root), []);
  });
}
