import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { GitError } from '../../src/errors.ts';
import { surveyDirectory } from '../../src/git/survey.ts';
import {
  branchOf,
  checkOut,
  environment,
  git,
  idOf,
  pullLayers,
  scratch,
  type BuildLayer,
  snapshot,
} from './git.ts';

const isRoot = process.getuid?.() === 0;
const needsRoot = { skip: !isRoot && 'needs root' };
const bytes = (text: string): Uint8Array => Buffer.from(text);

/** All that git cannot hold, and each in another way in each layer. */
const layers: BuildLayer[] = [
  (stage) =>
    stage
      .root({ mtimeNanoseconds: 123_456_789 })
      .directory('etc', { mode: 0o750, uid: 5, gid: 6 })
      .file('etc/shadow', 'secret', { mode: 0 })
      .directory('empty', { mode: 0o1777, xattrs: new Map([['user.dir', bytes('one')]]) })
      .directory('usr')
      .directory('usr/bin')
      .file('usr/bin/su', 'x'.repeat(200_000), {
        mode: 0o4755,
        mtimeNanoseconds: 987_654_321,
        xattrs: new Map([
          ['user.a', bytes('b\0c')],
          ['security.capability', capability],
        ]),
      })
      .hardlink('usr/bin/su2', 'usr/bin/su')
      .symlink('bin', 'usr/bin', { uid: 7, gid: 8 })
      .directory('dev')
      .device('dev/null', 1, 3)
      .fifo('dev/pipe', { mode: 0o622 })
      .directory('app')
      .file('app/code')
      .directory('app/.git')
      .file('app/.git/config', '[core]\n', { mode: 0o600, uid: 9 })
      .symlink('app/.git/link', 'nowhere')
      .hardlink('app/.git/hard', 'app/code')
      .file('h1', 'same')
      .hardlink('h2', 'h1')
      .file('to-device')
      .file('caf\xe9 \n"\\')
      .file('old', 'x', { mtimeSeconds: -1, mtimeNanoseconds: 0 }),
  (stage) =>
    stage
      .directory('etc', { mode: 0o755 })
      .file('etc/shadow', 'secret', { mode: 0o640, gid: 42 })
      .directory('empty', { mode: 0o755, xattrs: new Map([['user.dir', bytes('two')]]) })
      .file('usr/bin/su', 'x'.repeat(200_000), { mode: 0o755 })
      .remove('h2')
      .file('h2', 'same')
      .remove('dev/pipe')
      .file('dev/pipe', 'now a file')
      .remove('dev/null')
      .device('dev/null', 1, 5, { mode: 0o600 })
      .file('app/.git/config', '[core]\n\tx = 1\n')
      .remove('to-device')
      .device('to-device', 1, 7)
      .symlink('caf\xe9 \n"\\', 'h1'),
  (stage) =>
    stage
      .remove('app')
      .file('app', 'file now')
      .remove('to-device')
      .directory('to-device')
      .directory('to-device/deep')
      .directory('to-device/deep/er')
      .remove('empty')
      .symlink('empty', 'etc')
      .hardlink('dev/shadow', 'etc/shadow')
      .remove('dev/null')
      .directory('dev/null')
      .file('dev/null/x')
      .directory('usr/bin', { mode: 0o555 }),
  (stage) =>
    stage
      .directory('alone')
      .directory('alone/.git')
      .file('alone/.git/HEAD', 'x')
      .remove('dev')
      .file('json', '{}'),
];

/** vfs_cap_data: cap_net_raw+ep */
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');

async function pulled(t: TestContext): Promise<{ directory: string; snapshots: string[][] }> {
  const directory = path.join(scratch(t), 'rootfs');
  const snapshots: string[][] = [];
  await pullLayers(directory, layers, { after: (stage) => snapshots.push(snapshot(stage.path)) });
  return { directory, snapshots };
}

test(
  'every branch gives the rootfs of its layer, entry by entry, from every other one',
  needsRoot,
  async (t) => {
    const { directory, snapshots } = await pulled(t);
    assert.deepEqual(snapshot(directory), snapshots.at(-1));
    for (const number of [0, 1, 2, 3, 1, 3, 2, 0, 3, 0, 2, 1, 0]) {
      assert.equal(await checkOut(directory, String(number)), branchOf(number));
      assert.deepEqual(snapshot(directory), snapshots[number], branchOf(number));
      assert.equal(git(directory, 'status', '--porcelain'), '');
      assert.equal(git(directory, 'symbolic-ref', '--short', 'HEAD').trim(), branchOf(number));
    }
    assert.equal(git(directory, 'fsck', '--strict', '--full', '--no-dangling'), '');
    assert.deepEqual(
      readdirSync(path.join(directory, '.git')).filter((name) => /dlrootfs|lock/.test(name)),
      [],
    );
  },
);

test('after a plain git checkout it puts right what git could not', needsRoot, async (t) => {
  const { directory, snapshots } = await pulled(t);
  for (const number of [0, 2, 1]) {
    // By force: git does not replace a device by a file on its own.
    git(directory, 'checkout', '--quiet', '--force', branchOf(number));
    assert.equal(git(directory, 'status', '--porcelain', '--untracked-files=no'), '');
    assert.notDeepEqual(snapshot(directory), snapshots[number]);
    await checkOut(directory, branchOf(number));
    assert.deepEqual(snapshot(directory), snapshots[number], branchOf(number));
  }
});

test(
  'metadata that was changed by hand is put right, and what was removed comes back with --force',
  needsRoot,
  async (t) => {
    const { directory, snapshots } = await pulled(t);
    await checkOut(directory, '0');
    chmodSync(path.join(directory, 'usr/bin/su'), 0o700);
    chownSync(path.join(directory, 'etc'), 1, 1);
    rmSync(path.join(directory, 'empty'), { recursive: true });
    rmSync(path.join(directory, 'dev/null'));
    rmSync(path.join(directory, 'app/.git/config'));
    await assert.rejects(checkOut(directory, '0'), dirty('etc'));
    chownSync(path.join(directory, 'etc'), 5, 6);
    await assert.rejects(checkOut(directory, '0'), dirty('usr/bin/su'));
    await checkOut(directory, '0', true);
    assert.deepEqual(snapshot(directory), snapshots[0]);
    unlinkSync(path.join(directory, 'h1'));
    await assert.rejects(checkOut(directory, '0'), dirty('h1'));
    await checkOut(directory, '0', true);
    assert.deepEqual(snapshot(directory), snapshots[0]);
  },
);

test('git gc packs it tightly and loses nothing', needsRoot, async (t) => {
  const { directory, snapshots } = await pulled(t);
  git(directory, 'reflog', 'expire', '--expire=now', '--all');
  git(directory, 'gc', '--quiet', '--prune=now', '--aggressive');
  for (const number of [0, 2, 1, 3]) {
    await checkOut(directory, String(number));
    assert.deepEqual(snapshot(directory), snapshots[number], branchOf(number));
  }
  assert.equal(git(directory, 'fsck', '--strict', '--full'), '');
});

test('a branch is found by its number, or by enough of its name', async (t) => {
  const directory = path.join(scratch(t), 'rootfs');
  await pullLayers(directory, [(stage) => stage.file('a'), (stage) => stage.file('b')]);
  git(directory, 'branch', 'mine');
  git(directory, 'branch', 'mine2');
  const rows: [wanted: string, branch: string | RegExp][] = [
    ['0', branchOf(0)],
    ['1', branchOf(1)],
    ['layer0', branchOf(0)],
    ['layer1_', branchOf(1)],
    [branchOf(0), branchOf(0)],
    ['mine', 'mine'],
    ['min', /^min could be 2 branches$/],
    ['layer', /^layer could be 2 branches$/],
    ['2', /^branch 2 does not exist$/],
    ['', /^branch  does not exist$/],
    ['HEAD', /^branch HEAD does not exist$/],
    ['--force', /^branch --force does not exist$/],
    ['la\x1byer', /^branch la\\x1byer does not exist$/],
  ];
  for (const [wanted, branch] of rows) {
    if (typeof branch === 'string') assert.equal(await checkOut(directory, wanted), branch);
    else {
      await assert.rejects(
        checkOut(directory, wanted),
        (error: unknown) =>
          (error instanceof GitError &&
            branch.test(error.message) &&
            error.hint?.startsWith('choose one of layer0_') === true) ||
          (error instanceof GitError && branch.test(error.message) && error.hint!.includes('mine2')),
      );
    }
  }
});

/** Two layers whose difference can be in the way of a user's files. */
const base: BuildLayer = (stage) => stage.directory('d').file('d/f', 'one').file('g').file('json', '0');
const next: BuildLayer = (stage) =>
  stage
    .file('d/f', 'two')
    .file('new')
    .directory('dir')
    .file('dir/x')
    .remove('g')
    .directory('n')
    .directory('n/.git')
    .file('n/.git/c', 'c');

test("nothing of the user's is lost without --force", async (t) => {
  const rows: [
    what: string,
    from: string,
    to: string,
    spoil: (place: (name: string) => string) => void,
    name: string | undefined,
  ][] = [
    ['a changed file', '1', '0', (at) => appendFileSync(at('d/f'), 'mine'), 'd/f'],
    ['a changed file that both have', '1', '0', (at) => writeFileSync(at('json'), 'mine'), 'json'],
    ['a removed file', '1', '0', (at) => unlinkSync(at('json')), 'json'],
    [
      'a changed file in a nested repository',
      '1',
      '0',
      (at) => writeFileSync(at('n/.git/c'), 'mine'),
      'n/.git/c',
    ],
    ['a new file where one has to be', '0', '1', (at) => writeFileSync(at('new'), 'mine'), 'new'],
    ['a new directory where a file has to be', '0', '1', (at) => mkdirSync(at('new')), 'new'],
    ['a new file where a directory has to be', '0', '1', (at) => writeFileSync(at('dir'), 'mine'), 'dir'],
    ['a new file in no way', '0', '1', (at) => writeFileSync(at('mine'), 'mine'), undefined],
    ['a new directory that both can have', '0', '1', (at) => mkdirSync(at('dir')), undefined],
    [
      'a new file in a directory that goes',
      '1',
      '0',
      (at) => writeFileSync(at('dir/mine'), 'mine'),
      undefined,
    ],
    [
      'a new file in a nested repository',
      '1',
      '0',
      (at) => writeFileSync(at('n/.git/mine'), 'mine'),
      undefined,
    ],
  ];
  for (const [what, from, to, spoil, name] of rows) {
    await t.test(what, async (row) => {
      const directory = path.join(scratch(row), 'rootfs');
      await pullLayers(directory, [base, next]);
      await checkOut(directory, from);
      spoil((place) => path.join(directory, place));
      const before = snapshot(directory);
      if (name === undefined) {
        await checkOut(directory, to);
        const mine = before.filter((line) => line.endsWith('mine'));
        assert.deepEqual(
          snapshot(directory).filter((line) => line.endsWith('mine')),
          mine,
        );
        return;
      }
      await assert.rejects(checkOut(directory, to), dirty(name));
      assert.deepEqual(snapshot(directory), before);
      assert.ok(!existsSync(path.join(directory, '.git/dlrootfs-checkout')));
      await checkOut(directory, to, true);
      assert.equal(git(directory, 'status', '--porcelain'), '');
    });
  }
});

test(
  'to build on a layer: commits of the user, with owners and modes as far as they are known',
  needsRoot,
  async (t) => {
    const { directory, snapshots } = await pulled(t);
    await checkOut(directory, '0');
    writeFileSync(path.join(directory, 'usr/bin/su'), 'patched');
    writeFileSync(path.join(directory, 'usr/bin/mine'), 'new', { mode: 0o755 });
    mkdirSync(path.join(directory, 'my/own'), { recursive: true });
    writeFileSync(path.join(directory, 'my/own/file'), 'new');
    rmSync(path.join(directory, 'h1'));
    git(directory, 'checkout', '--quiet', '-b', 'mine');
    git(directory, 'add', '-A');
    git(directory, 'commit', '--quiet', '-m', 'mine');

    await checkOut(directory, '3');
    assert.deepEqual(snapshot(directory), snapshots[3]);
    assert.ok(!existsSync(path.join(directory, 'my/own/file')));
    await checkOut(directory, 'mine');
    assert.equal(git(directory, 'status', '--porcelain'), '');
    const stat = (name: string): string => {
      const { mode, uid, gid } = lstatSync(path.join(directory, name));
      return `${mode.toString(8)} ${uid}:${gid}`;
    };
    assert.equal(readFileSync(path.join(directory, 'usr/bin/su'), 'utf8'), 'patched');
    assert.equal(stat('usr/bin/su'), '104755 0:0');
    assert.equal(stat('usr/bin/mine'), '100755 0:0');
    assert.equal(stat('my/own/file'), '100644 0:0');
    assert.equal(stat('etc'), '40750 5:6');
    assert.equal(stat('dev/null'), '20666 0:0');
    assert.ok(!existsSync(path.join(directory, 'h1')));
    assert.equal(lstatSync(path.join(directory, 'h2')).nlink, 1);
    await checkOut(directory, '0');
    assert.deepEqual(
      snapshot(directory).filter((line) => !/ my(\/|$)/.test(line)),
      snapshots[0],
    );
  },
);

test("a layer's branch that the user committed to is checked out with that commit", async (t) => {
  const directory = path.join(scratch(t), 'rootfs');
  await pullLayers(directory, [(stage) => stage.file('a'), (stage) => stage.file('b')]);
  writeFileSync(path.join(directory, 'c'), 'mine');
  git(directory, 'add', 'c');
  git(directory, 'commit', '--quiet', '-m', 'mine');
  await checkOut(directory, '0');
  assert.deepEqual(readdirSync(directory).toSorted(), ['.git', 'a']);
  await checkOut(directory, '1');
  assert.deepEqual(readdirSync(directory).toSorted(), ['.git', 'a', 'b', 'c']);
});

test('a checkout that was killed is finished by the next one, whatever it had done', needsRoot, async (t) => {
  const { directory, snapshots } = await pulled(t);
  const gitDirectory = path.join(directory, '.git');
  const kills: [what: string, kill: () => void][] = [
    ['before anything', () => undefined],
    ['when git held its lock', () => writeFileSync(path.join(gitDirectory, 'index.lock'), '')],
    [
      "when half of the files were another layer's",
      () => git(directory, 'checkout', '--quiet', '--force', branchOf(0), '--', 'app', 'h1'),
    ],
    ['when git was done', () => git(directory, 'checkout', '--quiet', '--force', branchOf(1))],
    [
      'when files were being put ready',
      () => {
        mkdirSync(path.join(gitDirectory, 'dlrootfs-contents'));
        writeFileSync(path.join(gitDirectory, 'dlrootfs-contents/0'), 'half');
        writeFileSync(path.join(gitDirectory, 'dlrootfs-contents.index.lock'), 'half');
      },
    ],
    [
      'when devices were gone',
      () => rmSync(path.join(directory, 'to-device'), { recursive: true, force: true }),
    ],
  ];
  for (const [what, kill] of kills) {
    await checkOut(directory, '2', true);
    kill();
    // No process has this number.
    writeFileSync(path.join(gitDirectory, 'dlrootfs-checkout'), '4194305\n');
    await assert.rejects(
      surveyDirectory(
        directory,
        [0, 1, 2, 3].map((number) => ({ id: idOf(number) })),
        { environment },
      ),
      /is between two layers: a checkout was interrupted/,
    );
    await checkOut(directory, '1');
    assert.deepEqual(snapshot(directory), snapshots[1], what);
    assert.equal(git(directory, 'status', '--porcelain'), '', what);
  }
});

test('two checkouts at once: the second one waits for nobody', async (t) => {
  const directory = path.join(scratch(t), 'rootfs');
  await pullLayers(directory, [(stage) => stage.file('a')]);
  writeFileSync(path.join(directory, '.git/dlrootfs-checkout'), `${process.ppid}\n`);
  await assert.rejects(checkOut(directory, '0'), /process \d+ is checking out another layer/);
});

test('where there is nothing to check out', async (t) => {
  const directory = scratch(t);
  mkdirSync(path.join(directory, 'plain'));
  mkdirSync(path.join(directory, 'own'));
  git(path.join(directory, 'own'), 'init', '--quiet');
  mkdirSync(path.join(directory, 'file'));
  writeFileSync(path.join(directory, 'file/.git'), 'gitdir: ../own/.git\n');
  for (const name of ['missing', 'plain', 'own', 'file']) {
    await assert.rejects(
      checkOut(path.join(directory, name), '0'),
      (error: unknown) =>
        error instanceof GitError &&
        error.code === 'GIT_NOT_OURS' &&
        error.message.endsWith('holds no rootfs that was pulled with -g'),
    );
  }
});

function dirty(name: string) {
  return (error: unknown): boolean =>
    error instanceof GitError && error.code === 'GIT_DIRTY' && error.message.startsWith(`${name} `);
}
