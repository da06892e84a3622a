import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { GitLayers } from '../../src/git/git-layers.ts';
import { findGit } from '../../src/git/git-program.ts';
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
import { branchOf, git, idOf, scratch, snapshot } from './git.ts';

const isRoot = process.getuid?.() === 0;
const needsRoot = { skip: !isRoot && 'needs root' };
const root = { mode: 0o755, uid: undefined, gid: undefined };

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  yield bytes;
}

/** Unpacks layers in order; with `git` as -g does it. */
async function pull(
  directory: string,
  layers: readonly (readonly Item[])[],
  layersOfGit?: GitLayers,
): Promise<void> {
  const rootfs = await Rootfs.open(directory, {
    mode: 'stage',
    name: directory,
    contents: layersOfGit?.contents,
    onChanges: layersOfGit && ((records) => layersOfGit.note(records)),
  });
  try {
    for (const [number, items] of layers.entries()) {
      await rootfs.apply(once(tar(...items)), { label: `layer ${number}` });
      if (!layersOfGit) continue;
      assert.ok(await rootfs.writeLayerInfo('json', Buffer.from(`{${number}}`)));
      await layersOfGit.commit({ id: idOf(number) });
    }
    layersOfGit?.settle();
    await rootfs.close(root);
    await layersOfGit?.finish();
  } catch (error) {
    await layersOfGit?.discard();
    await rootfs.discard();
    throw error;
  }
}

/** Returns the files that git must have of a rootfs, in the format of `git ls-tree -r`. */
function held(directory: string): string[] {
  const lines: string[] = [];
  const look = (below: string): void => {
    for (const name of readdirSync(path.join(directory, below))) {
      const at = path.join(below, name);
      const stat = lstatSync(path.join(directory, at));
      if (name.toLowerCase() === '.git') continue;
      if (stat.isDirectory()) look(at);
      if (!stat.isFile() && !stat.isSymbolicLink()) continue;
      const content = stat.isFile()
        ? readFileSync(path.join(directory, at))
        : readlinkSync(path.join(directory, at));
      const mode = stat.isFile() ? ((stat.mode & 0o100) === 0 ? '100644' : '100755') : '120000';
      const head = `blob ${Buffer.byteLength(content)}\0`;
      lines.push(`${mode} blob ${createHash('sha1').update(head).update(content).digest('hex')}\t${at}`);
    }
  };
  look('');
  return lines.toSorted();
}

/** Pulls with and without -g, and compares each branch with the layers up to it. */
async function everyBranchIsItsLayer(directory: string, layers: readonly (readonly Item[])[]): Promise<void> {
  const withGit = path.join(directory, 'git');
  mkdirSync(withGit);
  await pull(withGit, layers, GitLayers.open(findGit(process.env), withGit));
  assert.equal(git(withGit, 'status', '--porcelain'), '');
  assert.equal(git(withGit, 'fsck', '--strict', '--full', '--no-dangling'), '');
  for (const number of layers.keys()) {
    const plain = path.join(directory, `plain${number}`);
    mkdirSync(plain);
    await pull(plain, layers.slice(0, number + 1));
    const listing = git(withGit, 'ls-tree', '-r', branchOf(number)).trimEnd().split('\n');
    const [json, ...others] = listing.toSorted((one) => (one.endsWith('\tjson') ? -1 : 0));
    assert.match(json!, /\tjson$/);
    assert.equal(git(withGit, 'show', `${branchOf(number)}:json`), `{${number}}`);
    assert.deepEqual(others.toSorted(), held(plain), branchOf(number));
    if (number === layers.length - 1) assert.deepEqual(entries(withGit), entries(plain));
  }
}

/** Prints all entries without `json`, whose content differs, and without the root, whose time may differ. */
function entries(place: string): string[] {
  return snapshot(place).filter((line) => !/ (json|\.\/)$/.test(line));
}

/** The format of `tar --acls`, which the pull does not restore. */
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

/** Long names, so that the changes of few files fill a message to the other thread. */
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
/**
 * Items may be invalid (a link to a missing file, a file below a file): then the pull without -g fails, too.
 */
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
