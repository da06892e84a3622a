import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { getgid, getuid } from 'node:process';
import { Destination } from '../../src/rootfs/destination.ts';
import { Rootfs } from '../../src/rootfs/rootfs.ts';
import { lockFile } from '../../src/sys/system-calls.ts';
import { dir, file, hardlink, tar } from '../support/archive.ts';
import { printTree } from '../support/tree.ts';
import { chunks, isRoot, mounted, openRootfs, temporaryDirectory } from './harness.ts';
import { runPull, startPull, writeLayers } from './run-pull.ts';
import { noOtherUser } from '../support/other-user.ts';

const layer = tar(dir('etc'), file('etc/motd', 'hi'));
const tree = 'd etc/\n- etc/motd "hi"\n';
const print = (directory: string): string =>
  printTree(directory, { text: true, hide: ['mode', 'owner', 'time'], without: ['json'] });

async function pullInto(directory: string, only: Uint8Array, merge = false): Promise<Destination> {
  const destination = await Destination.open(directory, merge);
  await using opened = await openRootfs(destination.root.self, { mode: destination.mode });
  const { rootfs } = opened;
  try {
    await rootfs.apply(chunks(only), { label: 'layer 0' });
    await rootfs.close(destination.metadata);
    await destination.commit(rootfs.identity);
  } catch (error) {
    await rootfs.discard();
    await destination.discard();
    throw error;
  }
  return destination;
}

const ownAndMode = (path: string): string => {
  const { uid, gid, mode } = statSync(path);
  return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`;
};

describe('a new DIR', () => {
  test('appears whole, 0755, with the levels above it, and nothing beside it', async (t) => {
    const base = temporaryDirectory(t);
    const destination = await Destination.open(join(base, 'a/b/rootfs'));
    assert.equal(destination.mode, 'stage');
    assert.match(basename(destination.root.path), /^\.rootfs\.dlrootfs-\d+-[0-9a-f]{12}$/);
    assert.equal(statSync(destination.root.path).mode & 0o7777, 0o700);
    await using opened = await openRootfs(destination.root.self, { mode: destination.mode });
    const { rootfs } = opened;
    await rootfs.apply(chunks(layer), { label: 'layer' });
    assert.deepEqual(readdirSync(join(base, 'a/b')), [basename(destination.root.path)]);
    await rootfs.close(destination.metadata);
    await destination.commit(rootfs.identity);
    assert.deepEqual(readdirSync(join(base, 'a/b')), ['rootfs']);
    assert.equal(print(join(base, 'a/b/rootfs')), tree);
    assert.match(ownAndMode(join(base, 'a/b/rootfs')), / 755$/);
  });

  test("has the mode of the image's root entry", async (t) => {
    const base = temporaryDirectory(t);
    await pullInto(join(base, 'r'), tar(dir('.', { mode: 0o711 })));
    assert.match(ownAndMode(join(base, 'r')), / 711$/);
  });

  test('a failure removes the stage and the levels that were made, not those that were there', async (t) => {
    const base = temporaryDirectory(t);
    mkdirSync(join(base, 'there'));
    await assert.rejects(
      pullInto(join(base, 'there/a/b/rootfs'), tar(file('x', ''), hardlink('y', 'nowhere'))),
      {
        exitCode: 6,
      },
    );
    assert.deepEqual(readdirSync(join(base, 'there')), []);
  });

  test('behind a symlink that dangles', async (t) => {
    const base = temporaryDirectory(t);
    mkdirSync(join(base, 'disk'));
    symlinkSync('disk/rootfs', join(base, 'link'));
    await pullInto(join(base, 'link'), layer);
    assert.equal(print(join(base, 'disk/rootfs')), tree);
    assert.ok(lstatSync(join(base, 'link')).isSymbolicLink());
  });

  test('a trailing slash, .. and a name of 255 bytes', async (t) => {
    const base = temporaryDirectory(t);
    for (const name of ['slash/', 'x/../dots', 'n'.repeat(255), '\u00e9'.repeat(127)]) {
      mkdirSync(join(base, 'x'), { recursive: true });
      await pullInto(`${base}/${name}`, layer);
      assert.equal(print(join(base, name)), tree, name);
    }
  });

  test('a name that is too long, empty or below a file, and a circle of symlinks', async (t) => {
    const base = temporaryDirectory(t);
    writeFileSync(join(base, 'file'), '');
    symlinkSync('b', join(base, 'a'));
    symlinkSync('a', join(base, 'b'));
    for (const name of ['n'.repeat(256), 'file/x', 'file', 'a', 'a/x', 'nul\0']) {
      await assert.rejects(
        Destination.open(join(base, name)),
        { name: 'DestinationError', exitCode: 7 },
        name,
      );
    }
    await assert.rejects(Destination.open(''), { name: 'DestinationError' });
    assert.deepEqual(readdirSync(base).toSorted(), ['a', 'b', 'file']);
  });

  test('is not taken when somebody else makes it meanwhile', async (t) => {
    const base = temporaryDirectory(t);
    const destination = await Destination.open(join(base, 'r'));
    await using opened = await openRootfs(destination.root.self, { mode: destination.mode });
    const { rootfs } = opened;
    await rootfs.close(destination.metadata);
    mkdirSync(join(base, 'r'));
    writeFileSync(join(base, 'r/theirs'), '');
    await assert.rejects(destination.commit(rootfs.identity), {
      exitCode: 7,
      message: /filled by another process/,
    });
    await destination.discard();
    assert.deepEqual(readdirSync(base), ['r']);
    assert.deepEqual(readdirSync(join(base, 'r')), ['theirs']);
  });

  test('is not made of something that was put in the place of the stage', async (t) => {
    const base = temporaryDirectory(t);
    const destination = await Destination.open(join(base, 'r'));
    await using opened = await openRootfs(destination.root.self, { mode: destination.mode });
    const { rootfs } = opened;
    await rootfs.apply(chunks(layer), { label: 'layer' });
    await rootfs.close(destination.metadata);
    renameSync(destination.root.path, join(base, 'stolen'));
    mkdirSync(destination.root.path);
    await assert.rejects(destination.commit(rootfs.identity), { exitCode: 7, code: 'SWAPPED' });
    await destination.discard();
    // Nothing is removed by its name, so the files of this run remain under their new one.
    assert.deepEqual(readdirSync(base), [basename(destination.root.path), 'stolen']);
    assert.deepEqual(readdirSync(join(base, 'stolen')), []);
  });
});

describe('an empty DIR', () => {
  test("is replaced by one rename and keeps its mode; another user's becomes the caller's", async (t) => {
    const base = temporaryDirectory(t);
    const directory = join(base, 'r');
    mkdirSync(directory);
    if (isRoot) chownSync(directory, 5, 7);
    chmodSync(directory, 0o2750);
    const inode = statSync(directory).ino;
    assert.equal((await pullInto(directory, layer)).mode, 'stage');
    assert.equal(ownAndMode(directory), `${getuid!()}:${getgid!()} 2750`);
    assert.notEqual(statSync(directory).ino, inode);
    assert.equal(print(directory), tree);
  });

  test('stays as it was when the pull fails', async (t) => {
    const base = temporaryDirectory(t);
    mkdirSync(join(base, 'r'), 0o711);
    const before = statSync(join(base, 'r')).ino;
    await assert.rejects(pullInto(join(base, 'r'), tar(file('x', ''), hardlink('y', 'nowhere'))), {
      code: 'ENOENT',
      message: /: y: cannot link to nowhere/,
    });
    assert.deepEqual(readdirSync(base), ['r']);
    assert.equal(statSync(join(base, 'r')).ino, before);
  });

  test('through a symlink', async (t) => {
    const base = temporaryDirectory(t);
    mkdirSync(join(base, 'real'));
    symlinkSync('real', join(base, 'link'));
    await pullInto(join(base, 'link'), layer);
    assert.equal(print(join(base, 'real')), tree);
    assert.ok(lstatSync(join(base, 'link')).isSymbolicLink());
  });

  test('the current folder is written in place, and emptied again on failure', async (t) => {
    const base = temporaryDirectory(t);
    const [good, bad] = writeLayers(base, [layer, tar(file('x/y', ''), hardlink('x/z', 'nowhere'))]);
    const cwd = join(base, 'r');
    mkdirSync(cwd);
    const inode = statSync(cwd).ino;
    const failed = await runPull({ directory: '.', layers: [good!, bad!] }, { cwd });
    assert.equal(failed.error?.exitCode, 6);
    assert.deepEqual(readdirSync(cwd), []);
    assert.deepEqual(
      await runPull({ directory: '.', layers: [good!] }, { cwd }).then(({ mode, error }) => ({
        mode,
        error,
      })),
      { mode: 'empty', error: undefined },
    );
    assert.equal(print(cwd), tree);
    assert.equal(statSync(cwd).ino, inode);
  });

  test('in a folder that may not be written it is written in place', { skip: noOtherUser }, async (t) => {
    const base = temporaryDirectory(t);
    const [good, bad] = writeLayers(base, [layer, tar(file('x/y', ''), hardlink('x/z', 'nowhere'))]);
    const directory = join(base, 'r');
    mkdirSync(directory, 0o750);
    chownSync(directory, 65_534, 65_534);
    const user = { uid: 65_534, gid: 65_534 };
    assert.equal((await runPull({ directory, layers: [bad!] }, user)).error?.exitCode, 6);
    assert.deepEqual(readdirSync(directory), []);
    assert.equal((await runPull({ directory, layers: [good!] }, user)).mode, 'empty');
    assert.equal(print(directory), tree);
    assert.equal(ownAndMode(directory), '65534:65534 750');
  });
});

for (const backend of ['libc', 'node'] as const) {
  const name = `an empty DIR of another user is written in place, and stays theirs, ${backend}`;
  test(name, { skip: noOtherUser }, async (t) => {
    const base = temporaryDirectory(t);
    const layers = writeLayers(base, [tar(file('x', '')), tar(dir('.', { mode: 0o700, mtime: 5 }))]);
    const directory = join(base, 'r');
    mkdirSync(directory);
    chmodSync(directory, 0o777);
    chownSync(base, 65_534, 65_534);
    for (const [index, lost] of [0, 1].entries()) {
      const request = { directory, layers: [layers[index]!], backend };
      const { mode, error, counts } = await runPull(request, { uid: 65_534, gid: 65_534 });
      assert.deepEqual([mode, error], ['empty', undefined]);
      assert.deepEqual([counts!.times, counts!.modes], [lost, lost]);
      assert.equal(ownAndMode(directory), '0:0 777');
      for (const entry of readdirSync(directory)) rmSync(join(directory, entry));
    }
  });
}

for (const backend of ['libc', 'node'] as const) {
  const name = `--merge: what only the owner of a directory can set is counted, ${backend}`;
  test(name, { skip: noOtherUser }, async (t) => {
    const base = temporaryDirectory(t);
    const directory = join(base, 'r');
    for (const path of ['', 'theirs', 'setgid']) mkdirSync(join(directory, path));
    for (const path of ['theirs', 'setgid']) chmodSync(join(directory, path), 0o777);
    for (const path of [base, directory]) chownSync(path, 65_534, 65_534);
    const entries = [dir('theirs', { mtime: 5 }), file('theirs/x', ''), dir('setgid', { mode: 0o2755 })];
    const layers = writeLayers(base, [tar(...entries, file('setgid/y', ''), dir('own', { mtime: 5 }))]);
    const request = { directory, layers, backend, merge: true };
    const { mode, error, counts } = await runPull(request, { uid: 65_534, gid: 65_534 });
    assert.deepEqual([mode, error], ['overlay', undefined]);
    assert.deepEqual([counts!.times, counts!.modes], [2, 2]);
    assert.equal(ownAndMode(join(directory, 'theirs')), '0:0 777');
    assert.equal(statSync(join(directory, 'own')).mtimeMs, 5000);
    assert.deepEqual(readdirSync(join(directory, 'setgid')), ['y']);
  });
}

describe('a full DIR', () => {
  test('is refused; with merge it is laid over, and what fails leaves the files of the user', async (t) => {
    const base = temporaryDirectory(t);
    mkdirSync(join(base, 'r'));
    writeFileSync(join(base, 'r/mine'), 'mine');
    await assert.rejects(pullInto(join(base, 'r'), layer), { exitCode: 7, code: 'NOT_EMPTY' });
    assert.deepEqual(readdirSync(base), ['r']);
    assert.equal((await pullInto(join(base, 'r'), layer, true)).mode, 'overlay');
    assert.equal(print(join(base, 'r')), `${tree}- mine "mine"\n`);
    await assert.rejects(pullInto(join(base, 'r'), tar(file('mine/x', '')), true), { code: 'ENOTDIR' });
    assert.equal(readFileSync(join(base, 'r/mine'), 'utf8'), 'mine');
  });
});

describe('killed runs', () => {
  test('a run that is killed never shows a DIR, and the next one removes its stage', async (t) => {
    const base = temporaryDirectory(t);
    const layers = writeLayers(base, [
      tar(dir('ro', { mode: 0o555 }), file('ro/x', ''), file('y', Buffer.alloc(100_000))),
    ]);
    const directory = join(base, 'r');
    const child = startPull({ directory, layers, hang: true });
    await new Promise((resolve) => child.stdout!.once('data', resolve));
    const stages = readdirSync(base).filter((name) => name.startsWith('.r.dlrootfs-'));
    assert.equal(stages.length, 1);
    // While its process lives, a stage is not removed.
    await pullInto(directory, layer);
    assert.ok(readdirSync(base).includes(stages[0]!));
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await closed;
    assert.ok(readdirSync(base).includes(stages[0]!));
    await pullInto(join(base, 'other'), layer);
    assert.ok(readdirSync(base).includes(stages[0]!), 'the stage of another DIR is left alone');
    rmSync(directory, { recursive: true });
    await pullInto(directory, layer);
    assert.deepEqual(readdirSync(base).toSorted(), ['layer-0.tar', 'other', 'r']);
  });

  test('what only looks like a stage is left alone', async (t) => {
    const base = temporaryDirectory(t);
    const names = [
      '.r.dlrootfs-1-0123456789ab',
      '.r.dlrootfs-x',
      '.r.dlrootfs-999999999-xyz',
      '.r.dlrootfs-999999998-0123456789ab',
    ];
    for (const name of names.slice(0, 3)) mkdirSync(join(base, name));
    writeFileSync(join(base, names[3]!), 'a file');
    mkdirSync(join(base, 'outside'));
    symlinkSync('outside', join(base, '.r.dlrootfs-999999997-0123456789ab'));
    writeFileSync(join(base, 'outside/x'), '');
    await pullInto(join(base, 'r'), layer);
    assert.deepEqual(
      readdirSync(base).toSorted(),
      ['.r.dlrootfs-999999997-0123456789ab', ...names, 'outside', 'r'].toSorted(),
    );
    assert.deepEqual(readdirSync(join(base, 'outside')), ['x']);
  });
});

const mountTmpfs = (t: TestContext): string | undefined =>
  mounted(t, '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs');

describe(
  'what killed runs have left',
  { skip: isRoot ? false : 'needs root, to give files to other users' },
  () => {
    const [one, other] = [1234, 4321];
    // Columns: owner and mode of the directory above, owner of the stage, and if root removes it. Root must
    // be sure that only the owner can have given the stage its name.
    const rows: readonly [above: number, mode: number, owner: number, isRemoved: boolean][] = [
      [0, 0o755, 0, true],
      [0, 0o755, one, true],
      [0, 0o1777, 0, true],
      [0, 0o1777, one, false],
      [0, 0o777, 0, false],
      [0, 0o775, one, false],
      [one, 0o755, one, true],
      [one, 0o755, other, false],
      [one, 0o755, 0, false],
    ];
    for (const [above, mode, owner, isRemoved] of rows) {
      test(`a tree of ${owner} below a directory of ${above}, ${mode.toString(8)}`, async (t) => {
        const base = temporaryDirectory(t);
        const stage = '.r.dlrootfs-999999998-0123456789ab';
        mkdirSync(join(base, 'above', stage), { recursive: true });
        writeFileSync(join(base, 'above', stage, 'x'), '');
        chownSync(join(base, 'above', stage), owner, owner);
        chownSync(join(base, 'above'), above, above);
        chmodSync(join(base, 'above'), mode);
        await pullInto(join(base, 'above/r'), layer);
        assert.deepEqual(readdirSync(join(base, 'above')).toSorted(), [...(isRemoved ? [] : [stage]), 'r']);
      });
    }

    test('an empty tree stays while another run has its lock', async (t) => {
      const base = temporaryDirectory(t);
      const stage = '.r.dlrootfs-999999998-0123456789ab';
      mkdirSync(join(base, stage));
      const held = openSync(join(base, stage), constants.O_RDONLY);
      assert.equal(lockFile(held, 'exclusive'), 'locked');
      await pullInto(join(base, 'r'), layer);
      assert.ok(existsSync(join(base, stage)));
      closeSync(held);
      await Destination.tidy(join(base, 'r'));
      assert.deepEqual(readdirSync(base), ['r']);
    });

    test('a tree with a mount in it stays, and so does what is mounted', async (t) => {
      const base = temporaryDirectory(t);
      const stage = join(base, '.r.dlrootfs-999999998-0123456789ab');
      const inner = join(stage, 'a/mount');
      mkdirSync(inner, { recursive: true });
      if (spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', inner]).status !== 0)
        return t.skip('needs the right to mount');
      try {
        writeFileSync(join(inner, 'mounted'), '');
        writeFileSync(join(stage, 'file'), '');
        await pullInto(join(base, 'r'), layer);
        assert.deepEqual(readdirSync(stage), ['a', 'file']);
        for (const backend of ['libc', 'node'] as const) {
          const rootfs = await Rootfs.open(stage, { mode: 'empty', leftover: true, backend });
          await assert.rejects(rootfs.discard(), { code: 'EBUSY' });
          assert.deepEqual(readdirSync(inner), ['mounted']);
        }
      } finally {
        spawnSync('umount', [inner]);
      }
    });
  },
);

describe('small disks', () => {
  test('a mount point is written in place', async (t) => {
    const directory = mountTmpfs(t);
    if (directory === undefined) return t.skip('needs the right to mount');
    assert.equal((await pullInto(directory, layer)).mode, 'empty');
    assert.equal(print(directory), tree);
  });

  test('a directory of the same file system that is mounted there is written in place', async (t) => {
    const directory = mounted(t, '--bind', temporaryDirectory(t));
    if (directory === undefined) return t.skip('needs the right to mount');
    assert.equal((await pullInto(directory, layer)).mode, 'empty');
  });

  for (const backend of ['libc', 'node'] as const) {
    test(`a disk that gets full is an error that names it, and everything is removed, ${backend}`, async (t) => {
      const disk = mountTmpfs(t);
      if (disk === undefined) return t.skip('needs the right to mount');
      const base = temporaryDirectory(t);
      const many = tar(
        ...Array.from({ length: 100 }, (_, index) => file(`f${index}`, Buffer.alloc(100_000, 'x'))),
      );
      const large = tar(file('before', ''), file('large', Buffer.alloc(5_000_000, 'x')));
      const layers = writeLayers(base, [many, large]);
      for (const path of layers) {
        const { error } = await runPull({ directory: join(disk, 'r'), layers: [path], backend });
        assert.equal(error?.exitCode, 7);
        assert.equal(error.code, 'ENOSPC');
        assert.match(error.message, /^the disk of .*\/r is full: layer 0: (f\d+|large): cannot /);
        assert.deepEqual(readdirSync(disk), []);
      }
    });

    test(`a file that cannot fit is refused before any of it is written, ${backend}`, async (t) => {
      const disk = mountTmpfs(t);
      if (disk === undefined) return t.skip('needs the right to mount');
      const base = temporaryDirectory(t);
      // The header of a file of 1 TiB, without its content.
      const [path] = writeLayers(base, [
        tar(file('bomb', '', { pax: { size: '1099511627776' } })).subarray(0, 1536),
      ]);
      const { error } = await runPull({ directory: join(disk, 'r'), layers: [path!], backend });
      assert.equal(error?.code, 'ENOSPC');
      assert.match(error.message, /bomb: cannot .* 1099511627776 bytes/);
    });
  }
});
