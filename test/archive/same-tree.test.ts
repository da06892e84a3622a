import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError } from '../../src/errors.ts';
import { SyscallError } from '../../src/sys/os-error.ts';
import { build, isRoot } from '../rootfs/harness.ts';
import { character, dir, fifo, file, hardlink, sparse, symlink, tar } from '../support/archive.ts';
import { randomLayers } from '../support/random-layers.ts';
import { printTree } from '../support/tree.ts';
import { flattened, temporaryDirectory } from './harness.ts';

/** Runs `run`; returns true if it failed by a fault of the image, and false if it did not fail. */
async function refused(run: () => void | Promise<void>): Promise<boolean> {
  try {
    await run();
    return false;
  } catch (error) {
    // An error without an entry comes from the disk, not from the layers: such a run compares nothing.
    fc.pre(!(error instanceof SyscallError));
    assert.ok(error instanceof DlrootfsError, error instanceof Error ? error.stack : '');
    return true;
  }
}

describe('the flattened archive', () => {
  it('unpacks to the tree that the layers make, whatever they are', async (t) => {
    if (!isRoot) {
      t.skip('needs root');
      return;
    }
    const work = temporaryDirectory(t);
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(randomLayers, fc.constantFrom(512, 1000, 65_536), async (items, chunkSize) => {
        runs += 1;
        const [direct, unpacked] = [path.join(work, `d${runs}`), path.join(work, `u${runs}`)];
        for (const directory of [direct, unpacked]) mkdirSync(directory);
        const archives = items.map((layer) => tar(...layer));
        const failed = await refused(() => void build(direct, archives));
        let archive: Buffer = Buffer.alloc(0);
        const failedToo = await refused(async () => {
          archive = await flattened(archives, { chunkSize });
        });
        assert.equal(failedToo, failed);
        if (failed) return;
        // `build` takes such a name of an archive for a whiteout.
        fc.pre(!printTree(direct).includes('.wh.'));
        build(unpacked, [archive]);
        // Without an entry for it the root keeps the time of its creation by the test.
        const withRoot = { root: archive.toString('latin1', 0, 2) === './' };
        assert.equal(printTree(unpacked, withRoot), printTree(direct, withRoot));
        assert.ok(archive.equals(await flattened(archives)), 'the same bytes again');
        assert.ok(archive.equals(await flattened([archive])), 'flattened once more it stays as it is');
      }),
      { numRuns: 60 },
    );
  });

  it('unpacks to that tree by GNU tar and by bsdtar, also as another user', async (t) => {
    if (!isRoot) {
      t.skip('needs root');
      return;
    }
    const work = temporaryDirectory(t);
    const archives = [
      tar(
        dir('./', { mode: 0o711, mtime: 7 }),
        dir('closed', { mode: 0o555, mtime: 5 }),
        file('closed/z', 'zzz', { xattrs: { 'user.a': 'b' } }),
        dir('closed/inner', { mode: 0o500, mtime: 6 }),
        file('closed-not', 'sorts between the directory and what is in it'),
        file(Buffer.from('caf\xe9', 'latin1'), 'latin1'),
        file(Buffer.concat([Buffer.from('l'.repeat(200)), Buffer.from([0xe9])]), 'long and latin1'),
        file(`${'d'.repeat(120)}/${'f'.repeat(90)}`, 'prefixed'),
        hardlink('hard', 'closed/z'),
        symlink('link', 's'.repeat(200)),
        hardlink('hard-link-to-symlink', 'link'),
        sparse(
          'holes',
          1_000_000,
          [
            [0, 'a'],
            [500_000, 'b'.repeat(5000)],
          ],
          'gnu',
        ),
        fifo('pipe', { mtime: [1_600_000_000, 123_456_789] }),
        character('null', 1, 3),
      ),
      tar(
        file('closed/a', 'later', { uid: 0xffff_fffe, gid: 70_000 }),
        file('closed/inner/x', 'x', { mode: 0o4711 }),
      ),
    ];
    const direct = path.join(work, 'direct');
    mkdirSync(direct);
    build(direct, archives);
    const archive = path.join(work, 'flat.tar');
    writeFileSync(archive, await flattened(archives));

    // bsdtar does not set the time of the directory that it extracts into.
    const programs: [program: string, args: readonly string[], root: boolean][] = [
      ['tar', ['--xattrs', '--xattrs-include=*', '--numeric-owner', '-p'], true],
      ['bsdtar', ['--xattrs', '--numeric-owner', '-p'], false],
    ];
    for (const [program, args, withRoot] of programs) {
      const unpacked = path.join(work, program);
      mkdirSync(unpacked);
      execFileSync(program, [...args, '-C', unpacked, '-xf', archive], { stdio: ['ignore', 'pipe', 'pipe'] });
      assert.equal(printTree(unpacked, { root: withRoot }), printTree(direct, { root: withRoot }), program);
    }
    const user = path.join(work, 'user');
    mkdirSync(user);
    execFileSync('chmod', ['755', work]);
    execFileSync('chown', ['65534:65534', user]);
    execFileSync('setpriv', [
      ...'--reuid=65534 --regid=65534 --clear-groups tar --exclude=null -C'.split(' '),
      user,
      '-xf',
      archive,
    ]);
    assert.match(execFileSync('cat', [path.join(user, 'closed/a')]).toString(), /later/);
  });
});
