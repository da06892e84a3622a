import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { GitError } from '../../src/errors.ts';
import { GitLayers } from '../../src/git/git-layers.ts';
import { surveyDirectory, type Survey } from '../../src/git/survey.ts';
import {
  branchOf,
  checkOut,
  environment,
  git,
  idOf,
  pullLayers,
  scratch,
  type BuildLayer,
  StageLayers,
  snapshot,
} from './git.ts';
import { Stage } from './stage.ts';

const isRoot = process.getuid?.() === 0;

const layers: BuildLayer[] = [
  (stage) => stage.root().directory('etc').file('etc/a', 'one').hardlink('etc/b', 'etc/a').directory('empty'),
  (stage) =>
    stage.file('etc/c').directory('repo').directory('repo/.git').file('repo/.git/HEAD', 'x').fifo('pipe'),
  (stage) => stage.remove('etc/c').file('d').remove('pipe'),
];

/** Ids of an image of which the first layers are those of image a, the others those of image b. */
function image(...parts: readonly string[]): { id: string }[] {
  return parts.map((name, number) => ({ id: idOf(number, name) }));
}

function survey(directory: string, ...parts: string[]): Promise<Survey> {
  return surveyDirectory(directory, image(...parts), { environment });
}

test('what -g finds in a directory', async (t) => {
  const directory = path.join(scratch(t), 'rootfs');
  assert.deepEqual(await survey(directory, 'a'), { kind: 'new' });
  mkdirSync(directory);
  assert.deepEqual(await survey(directory, 'a'), { kind: 'new' });
  await pullLayers(directory, layers);
  const complete = { kind: 'complete', branch: branchOf(2) };
  assert.deepEqual(await survey(directory, 'a', 'a', 'a'), { ...complete, checkedOut: true });
  assert.deepEqual(await survey(directory, 'a', 'a'), {
    kind: 'complete',
    branch: branchOf(1),
    checkedOut: false,
  });
  const partial = await survey(directory, 'a', 'a', 'b', 'b');
  assert.equal(partial.kind, 'partial');
  assert.ok(partial.kind === 'partial' && partial.common === 2 && partial.base.branch === branchOf(1));
  git(directory, 'checkout', '--quiet', branchOf(0));
  assert.deepEqual(await survey(directory, 'a', 'a', 'a'), { ...complete, checkedOut: false });
  git(directory, 'checkout', '--quiet', '--detach', branchOf(2));
  assert.deepEqual(await survey(directory, 'a', 'a', 'a'), { ...complete, checkedOut: false });
});

test('what -g does not touch', async (t) => {
  const rows: [what: string, spoil: (directory: string) => void, code: string, message: RegExp][] = [
    [
      'files of the user',
      (at) => {
        rmSync(path.join(at, '.git'), { recursive: true });
      },
      'GIT_OCCUPIED',
      /is not empty, and its files are in no layer of the image$/,
    ],
    [
      'a repository of the user',
      (at) => {
        rmSync(path.join(at, '.git'), { recursive: true });
        git(at, 'init', '--quiet');
      },
      'GIT_NOT_OURS',
      /holds a git repository that is not from a pull with -g$/,
    ],
    [
      'a new file',
      (at) => writeFileSync(path.join(at, 'mine'), ''),
      'GIT_DIRTY',
      /files that are in no commit, mine for one$/,
    ],
    [
      'an ignored file',
      (at) => {
        writeFileSync(path.join(at, '.git/info/exclude'), '*\n');
        writeFileSync(path.join(at, 'mine'), '');
      },
      'GIT_DIRTY',
      /mine for one$/,
    ],
    [
      'a new empty directory',
      (at) => mkdirSync(path.join(at, 'etc/mine')),
      'GIT_DIRTY',
      /etc\/mine for one$/,
    ],
    [
      'a new file in a nested repository',
      (at) => writeFileSync(path.join(at, 'repo/.git/mine'), ''),
      'GIT_DIRTY',
      /repo\/\.git\/mine for one$/,
    ],
    ['a changed file', (at) => writeFileSync(path.join(at, 'd'), 'changed'), 'GIT_DIRTY', /d for one$/],
    [
      'a changed file in a nested repository',
      (at) => writeFileSync(path.join(at, 'repo/.git/HEAD'), 'changed'),
      'GIT_DIRTY',
      /HEAD for one$/,
    ],
    [
      'a staged file',
      (at) => {
        writeFileSync(path.join(at, 'mine'), '');
        git(at, 'add', 'mine');
      },
      'GIT_DIRTY',
      /mine for one$/,
    ],
    [
      'a pull that did not end',
      (at) => {
        git(at, 'for-each-ref', '--format=%(refname)')
          .trim()
          .split('\n')
          .forEach((ref) => git(at, 'update-ref', '-d', ref));
        writeFileSync(path.join(at, '.git/dlrootfs-checkout'), '4194305\n');
      },
      'GIT_INTERRUPTED',
      /was left by a pull that did not end$/,
    ],
  ];
  for (const [what, spoil, code, message] of rows) {
    await t.test(what, async (row) => {
      const directory = path.join(scratch(row), 'rootfs');
      await pullLayers(directory, layers);
      spoil(directory);
      await assert.rejects(
        survey(directory, 'a', 'a', 'b'),
        (error: unknown) =>
          error instanceof GitError &&
          error.code === code &&
          error.exitCode === 7 &&
          message.test(error.message) &&
          error.hint !== undefined,
      );
    });
  }
});

test('another image is refused, and a layer that is there on top of others', async (t) => {
  const directory = path.join(scratch(t), 'rootfs');
  await pullLayers(directory, layers);
  await assert.rejects(survey(directory, 'b', 'a', 'a'), /holds the layers of another image/);
  await assert.rejects(
    survey(directory, 'a', 'b', 'a'),
    /has layer 2 of the image, 0{12}, already on top of other layers/,
  );
});

test(
  'another tag of the image goes on from the last common layer, in a directory of its own',
  { skip: !isRoot && 'needs root' },
  async (t) => {
    const parent = scratch(t);
    const directory = path.join(parent, 'rootfs');
    const snapshots: string[][] = [];
    await pullLayers(directory, layers, { after: (stage) => snapshots.push(snapshot(stage.path)) });
    git(directory, 'branch', 'mine');
    const before = snapshot(directory);

    const found = await survey(directory, 'a', 'a', 'b', 'b');
    assert.ok(found.kind === 'partial');
    const staged = path.join(parent, 'stage');
    const stage = new Stage(staged);
    const resumed = new StageLayers(await GitLayers.resume(staged, directory, found.base, { environment }));
    assert.deepEqual(snapshot(staged), snapshots[1]);
    assert.deepEqual(snapshot(directory), before);

    stage.file('etc/new').hardlink('etc/link', 'etc/b').remove('repo');
    await resumed.commit({ id: idOf(2, 'b') }, stage);
    stage.fifo('other-pipe').file('etc/a', 'changed');
    await resumed.commit({ id: idOf(3, 'b') }, stage);
    await resumed.finish();
    rmSync(directory, { recursive: true });
    renameSync(staged, directory);

    const last = snapshot(directory);
    assert.equal(git(directory, 'status', '--porcelain'), '');
    assert.equal(git(directory, 'fsck', '--strict', '--full'), '');
    assert.deepEqual(
      git(directory, 'for-each-ref', '--format=%(refname:short)', 'refs/heads').trim().split('\n'),
      [branchOf(0), branchOf(1), branchOf(2), branchOf(2, 'b'), branchOf(3, 'b'), 'mine'],
    );
    assert.equal(git(directory, 'symbolic-ref', '--short', 'HEAD').trim(), branchOf(3, 'b'));
    for (const number of [0, 1, 2]) {
      await checkOut(directory, branchOf(number));
      assert.deepEqual(snapshot(directory), snapshots[number]);
    }
    await checkOut(directory, branchOf(3, 'b'));
    assert.deepEqual(snapshot(directory), last);
    assert.deepEqual(await survey(directory, 'a', 'a', 'a'), {
      kind: 'complete',
      branch: branchOf(2),
      checkedOut: false,
    });
    assert.deepEqual(await survey(directory, 'a', 'a', 'b', 'b'), {
      kind: 'complete',
      branch: branchOf(3, 'b'),
      checkedOut: true,
    });
    assert.deepEqual(
      readdirSync(path.join(directory, '.git')).filter((name) => /dlrootfs|lock/.test(name)),
      [],
    );
  },
);

test('a directory without git', async (t) => {
  const empty = scratch(t);
  await assert.rejects(
    surveyDirectory(empty, image('a'), { environment: { PATH: empty } }),
    (error: unknown) => error instanceof GitError && error.code === 'GIT_MISSING',
  );
});
