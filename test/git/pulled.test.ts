import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { GitLayers } from '../../src/git/git-layers.ts';
import { surveyDirectory } from '../../src/git/survey.ts';
import { Rootfs } from '../../src/rootfs/rootfs.ts';
import {
  character,
  dir,
  fifo,
  file,
  hardlink,
  opaque,
  symlink,
  tar,
  whiteout,
  type Item,
} from '../support/archive.ts';
import { runs } from '../support/runs.ts';
import { branchOf, checkOut, environment, git, idOf, scratch, snapshot } from './git.ts';

const isRoot = process.getuid?.() === 0;
const needsRoot = { skip: !isRoot && 'needs root' };
const root = { mode: 0o755, uid: undefined, gid: undefined };

/** All but what a plain pull writes otherwise: `json`, and the root's own time where no layer says it. */
function entries(place: string): string[] {
  return snapshot(place).filter((line) => !/ (json|\.\/)$/.test(line));
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  yield bytes;
}

/** Layers unpacked one on the other; with `git` as -g does it. */
async function pull(
  directory: string,
  layers: readonly (readonly Item[])[],
  layersOfGit?: GitLayers,
  skip = 0,
  ids = layers.map((_, number) => idOf(number)),
): Promise<void> {
  const rootfs = await Rootfs.open(directory, {
    mode: 'stage',
    name: directory,
    recordChanges: layersOfGit !== undefined,
    hasLayers: skip > 0,
    contents: layersOfGit?.contents,
    ownFiles: layersOfGit?.ownFiles() ?? [],
  });
  try {
    for (const [number, items] of layers.entries()) {
      if (number < skip) continue;
      await rootfs.apply(once(tar(...items)), {
        label: `layer ${number}`,
        onChanges: layersOfGit && ((lines) => layersOfGit.note(lines)),
      });
      if (!layersOfGit) continue;
      assert.ok(await rootfs.writeLayerInfo('json', Buffer.from(`{${number}}`)));
      await layersOfGit.commit({ id: ids[number]! }, [layersOfGit.describeFile('json')]);
    }
    await rootfs.close(root);
    await layersOfGit?.finish();
  } catch (error) {
    await layersOfGit?.discard();
    await rootfs.discard();
    throw error;
  }
}

/** Pulls with and without -g, and compares what each branch gives with the layers up to it. */
async function everyBranchIsItsLayer(directory: string, layers: readonly (readonly Item[])[]): Promise<void> {
  const withGit = path.join(directory, 'git');
  mkdirSync(withGit);
  await pull(withGit, layers, await GitLayers.open(withGit, { environment }));
  assert.equal(git(withGit, 'status', '--porcelain'), '');
  assert.equal(git(withGit, 'fsck', '--strict', '--full', '--no-dangling'), '');
  const expected = layers.map((_, number) => {
    const plain = path.join(directory, `plain${number}`);
    mkdirSync(plain);
    return plain;
  });
  for (const [number, plain] of expected.entries()) await pull(plain, layers.slice(0, number + 1));
  assert.deepEqual(entries(withGit), entries(expected.at(-1)!));
  for (const number of [0, ...layers.keys(), ...[...layers.keys()].toReversed()]) {
    await checkOut(withGit, branchOf(number));
    assert.deepEqual(entries(withGit), entries(expected[number]!), branchOf(number));
    assert.equal(git(withGit, 'show', 'HEAD:json'), `{${number}}`);
    assert.equal(git(withGit, 'status', '--porcelain'), '');
  }
}

/** As `tar --acls` writes it: the name becomes a number when the layer is complete. */
const list = 'user::rw-,user:root:r--,group::r--,mask::rwx,other::---';

test('every branch of a pull gives what the layers up to it give', needsRoot, (t) =>
  everyBranchIsItsLayer(scratch(t), [
    [
      dir('.', { mtime: [1_500_000_000, 5] }),
      dir('etc'),
      file('etc/passwd', 'root', {
        uid: 1,
        gid: 2,
        mode: 0o4755,
        mtime: [1_600_000_000, 123_456_789],
        xattrs: { 'user.a': 'b' },
      }),
      file('etc/listed', '', { pax: { 'SCHILY.acl.access': list } }),
      dir('etc/handed-down', { pax: { 'SCHILY.acl.default': list, 'SCHILY.acl.access': list } }),
      symlink('bin', 'usr/bin'),
      dir('usr'),
      dir('usr/bin'),
      file('bin/through-the-link', 'x'),
      file('missing/directories/f', '1'),
      hardlink('etc/hard', 'etc/passwd'),
      character('null', 1, 3),
      fifo('pipe'),
      dir('empty', { mode: 0o1777 }),
      dir('repo/.git'),
      file('repo/.git/HEAD', 'ref'),
    ],
    [
      whiteout('etc/passwd'),
      dir('etc', { mode: 0o700 }),
      file('etc/new', 'n'),
      whiteout('empty'),
      hardlink('bin/linked', 'etc/hard'),
      file('pipe', 'a file'),
    ],
    [opaque('repo'), file('repo/f', 'f'), dir('null'), file('null/in', ''), symlink('etc/new', 'hard')],
    [whiteout('repo'), whiteout('bin'), dir('bin'), file('bin/own', '')],
  ]),
);

test('the same where aufs kept files with several names aside', needsRoot, (t) =>
  everyBranchIsItsLayer(scratch(t), [
    [
      dir('.wh..wh.plnk'),
      file('.wh..wh.plnk/1.2', 'shared', { mode: 0o4755, uid: 5, xattrs: { 'user.a': 'b' } }),
      file('.wh..wh.plnk/unused', 'x'),
      hardlink('one', '.wh..wh.plnk/1.2'),
      hardlink('d/two', '.wh..wh.plnk/1.2', { xattrs: { 'user.c': 'd' } }),
      hardlink('d/.git/three', '.wh..wh.plnk/1.2'),
      file('one', 'replaced'),
    ],
    [
      file('.wh..wh.plnk/1.2', 'other'),
      hardlink('one', '.wh..wh.plnk/1.2'),
      hardlink('e', '.wh..wh.plnk/1.2'),
    ],
    [whiteout('one'), file('.wh..wh.plnk/7', '')],
  ]),
);

/** Long, so that few files make the changes that are told at once. */
const oneOfMany = (index: number) => `many/directory-${index % 7}/${'file-number-'.repeat(18)}${index}`;

function many(count: number, text: string): Item[] {
  return Array.from({ length: count }, (_, index) => file(oneOfMany(index), `${text} ${index}`));
}

test('the same for layers that write a file again and again, read while they are written', needsRoot, (t) => {
  return everyBranchIsItsLayer(scratch(t), [
    [
      file('again', 'first'),
      hardlink('kept', 'again'),
      ...many(450, 'one'),
      file('again', 'again'),
      file('gone/soon', 'x'),
      ...many(450, 'two'),
      file('again', 'last!'),
      hardlink(oneOfMany(0), 'kept'),
      file('gone', 'no directory'),
    ],
    [whiteout('many'), ...many(250, 'three'), whiteout('again'), file('kept', 'other')],
  ]);
});

const names = ['a', 'b', 'c', 'd/e', 'd/f', 'd/.git/g', 'h/.git', 'd', 'h', 'd/l/x', 'd/l'] as const;
const name = fc.constantFrom(...names);
const metadata = fc.record({
  mode: fc.constantFrom(0o644, 0o755, 0o4711, 0o600),
  uid: fc.constantFrom(0, 7),
  mtime: fc.integer({ min: 1, max: 2_000_000_000 }),
});
/** Items that go wrong by themselves (a link to nothing, a file below a file) are left to `pull` without -g to refuse. */
const item: fc.Arbitrary<Item> = fc.oneof(
  fc
    .tuple(name, fc.constantFrom('', 'same', 'other'), metadata)
    .map(([at, content, data]) => file(at, content, data)),
  fc.tuple(name, metadata).map(([at, data]) => dir(at, { ...data, mode: 0o755 })),
  fc.tuple(name, name).map(([at, target]) => symlink(at, target)),
  fc.tuple(name, name).map(([at, target]) => hardlink(at, target)),
  name.map((at) => character(at, 1, 3)),
  name.map((at) => fifo(at)),
  name.map((at) => whiteout(at)),
  name.map((at) => opaque(at)),
);
const image = fc.array(fc.array(item, { minLength: 1, maxLength: 8 }), { minLength: 2, maxLength: 4 });

test('a FIFO of two names that a layer makes two FIFOs', needsRoot, async (t) => {
  await everyBranchIsItsLayer(scratch(t), [[fifo('a'), hardlink('b', 'a')], [fifo('b')]]);
});

test('the same for images of any layers', needsRoot, async (t) => {
  await fc.assert(
    fc.asyncProperty(image, async (layers) => {
      const directory = scratch(t);
      const trial = path.join(directory, 'trial');
      mkdirSync(trial);
      const isSound = await pull(trial, layers).then(
        () => true,
        () => false,
      );
      fc.pre(isSound);
      await everyBranchIsItsLayer(directory, layers);
    }),
    { numRuns: runs(4, 50) },
  );
});

test('another tag of the image is what it is when it is pulled alone', needsRoot, async (t) => {
  const directory = scratch(t);
  const common: Item[][] = [
    [
      dir('.', { mode: 0o711, mtime: 5, xattrs: { 'user.root': 'x' }, pax: { 'SCHILY.acl.access': list } }),
      dir('d', { mtime: 6, xattrs: { 'user.gone': 'x' } }),
      file('d/f', '1'),
      dir('e/.git'),
      file('e/.git/c', '1'),
      character('null', 1, 3),
      dir('handing-down', { mode: 0o2775, gid: 7, pax: { 'SCHILY.acl.default': list } }),
      dir('setgid', { mode: 0o2755, gid: 7 }),
    ],
    [file('d/g', '2'), hardlink('d/h', 'd/f')],
  ];
  const first = path.join(directory, 'first');
  mkdirSync(first);
  await pull(
    first,
    [...common, [file('old', ''), whiteout('e')]],
    await GitLayers.open(first, { environment }),
  );

  const inherits: Item[] = ['handing-down', 'setgid'].flatMap((parent) => [
    file(`${parent}/new`, '', { mode: 0o640 }),
    dir(`${parent}/inner`, { mode: 0o750 }),
    file(`${parent}/implicit/new`, '', { mode: 0o604 }),
    symlink(`${parent}/link`, 'x'),
  ]);
  const other = [
    ...common,
    [...inherits, file('d/new', '3'), whiteout('d/f'), file('x', ''), dir('d', { mtime: 7 })],
  ];
  const ids = [idOf(0), idOf(1), idOf(9)];
  const found = await surveyDirectory(
    first,
    ids.map((id) => ({ id })),
    { environment },
  );
  assert.ok(found.kind === 'partial');
  const stage = path.join(directory, 'stage');
  mkdirSync(stage);
  const resumed = await GitLayers.resume(stage, first, found.base, { environment });
  await pull(stage, other, resumed, found.common, ids);

  const alone = path.join(directory, 'alone');
  mkdirSync(alone);
  await pull(alone, other);
  assert.deepEqual(entries(stage), entries(alone));
  assert.match(entries(stage).join('\n'), / 5\.0+ \.\/ \{system\.posix_acl_access=\w+ user\.root=78\}$/m);
  assert.equal(git(stage, 'status', '--porcelain'), '');
  assert.equal(git(stage, 'show', 'HEAD:json'), '{2}');
  assert.deepEqual(resumed.ownFiles(), ['json']);
});
