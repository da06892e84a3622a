import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import fc from 'fast-check';
import { diskIdentityOf } from '../../src/disk/format.ts';
import { writeErofs } from '../../src/disk/erofs.ts';
import { DlrootfsError } from '../../src/errors.ts';
import { ImageTree } from '../../src/rootfs/image-tree.ts';
import type { NotRestored } from '../../src/rootfs/not-restored.ts';
import { layersOf, spool, temporaryDirectory } from '../archive/harness.ts';
import { build, isRoot } from '../rootfs/harness.ts';
import {
  block,
  character,
  dir,
  endMark,
  fifo,
  file,
  hardlink,
  type Item,
  sparse,
  symlink,
  tar,
} from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { mounted, mountDisk } from '../support/disk.ts';
import { randomLayers } from '../support/random-layers.ts';
import { printTree } from '../support/tree.ts';

const identity = diskIdentityOf('erofs', 'a'.repeat(64), '2001-09-09T01:46:40Z');

async function writeImage(archives: readonly Uint8Array[], image: string): Promise<NotRestored> {
  const tree = await ImageTree.build(layersOf(archives, 10_000), {
    name: 'the image',
    temporaryFile: spool.file,
    temporaryDirectory: tmpdir(),
  });
  const handle = await open(image, 'wx');
  try {
    const signal = new AbortController().signal;
    return await writeErofs(tree, { descriptor: handle.fd, name: image, identity, guestFiles: [], signal });
  } finally {
    await handle.close();
    await tree.close();
  }
}

/** Encodes the items in a loop, since they are too many for the arguments of `tar`. */
function archiveOf(items: readonly Item[]): Buffer {
  return Buffer.concat([...items.map((item) => item.encode('pax')), endMark]);
}

function assertValid(image: string): void {
  const { status, stdout, stderr } = spawnSync('fsck.erofs', ['-d1', image], { encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
}

/** Writes the image, checks it, and compares it with the tree of a directory. */
async function compare(
  t: TestContext,
  items: readonly Item[],
): Promise<{ image: string; lost: NotRestored }> {
  const work = temporaryDirectory(t);
  const [tree, image] = [path.join(work, 'tree'), path.join(work, 'image')];
  const archive = archiveOf(items);
  const lost = await writeImage([archive], image);
  assertValid(image);
  mkdirSync(tree);
  build(tree, [archive]);
  const root = mountDisk(t, image, 'erofs');
  if (root !== undefined) assert.equal(printTree(root), printTree(tree));
  return { image, lost };
}

/** Sizes near those of blocks and of data inside inodes. */
const sizes = fc.oneof(
  fc.nat(100),
  fc.constantFrom(
    0,
    1,
    2047,
    2048,
    2049,
    4031,
    4032,
    4033,
    4095,
    4096,
    4097,
    6144,
    6145,
    8191,
    8192,
    8193,
    300_000,
  ),
  fc.nat(20_000),
);
const metadata = fc.record({
  mode: fc.constantFrom(0o755, 0o644, 0o4755, 0o1777, 0),
  uid: fc.constantFrom(0, 65_535, 65_536, 0xffff_fffe),
  gid: fc.constantFrom(0, 65_535, 65_536),
  // The first value is the time of the file system itself.
  mtime: fc.oneof(
    fc.constant(identity.madeAt),
    // ext4, the reference, has no nanoseconds in its first second.
    fc.tuple(fc.integer({ min: 1 - 2 ** 31, max: 2 ** 33 }), fc.nat(999_999_999)),
  ),
  xattrs: fc.oneof(
    fc.constant({}),
    fc.constant({ 'user.often': 'the same', 'trusted.often': '', 'security.often': 'x'.repeat(99) }),
    fc.dictionary(
      fc.constantFrom('user.a', 'user.=', `user.${'n'.repeat(200)}`, 'trusted.b', 'security.c'),
      // ext4, the reference, has 4 KiB for the attributes of a file.
      fc.nat(600).map((length) => 'v'.repeat(length)),
    ),
  ),
});
const xattrsOf = (xattrs: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(xattrs).filter(([name]) => !name.startsWith('user.')));
const byteNames = fc.oneof(
  fc.constantFrom('!', '-', '.a', '..b', '...', '\xff', 'é'),
  fc
    .uint8Array({ minLength: 1, maxLength: 255 })
    .map((bytes) => Buffer.from(bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x5f : byte))))
    .map((bytes) => (/^\.{1,2}$|^\.wh\./.test(bytes.toString('latin1')) ? Buffer.from('_') : bytes)),
  fc.nat(9999).map((number) => `name-${number}`),
);
const kinds = fc.constantFrom(
  'file',
  'symlink',
  'sparse',
  'character',
  'block',
  'fifo',
  'hardlink',
  'directory',
);

/** A layer with every attribute and type that a file system can have. */
const richLayer: fc.Arbitrary<Item[]> = fc
  .array(fc.tuple(kinds, byteNames, sizes, metadata, fc.nat(40)), { minLength: 1, maxLength: 120 })
  .map((entries) => {
    const items: Item[] = [dir('./', { mtime: 1 })];
    const files: Buffer[] = [];
    const directories = [Buffer.from('')];
    const taken = new Set<string>();
    for (const [kind, name, size, own, choice] of entries) {
      const at = Buffer.concat([directories[choice % directories.length]!, Buffer.from(name)]);
      if (taken.has(at.toString('latin1'))) continue;
      taken.add(at.toString('latin1'));
      const special = { ...own, xattrs: xattrsOf(own.xattrs) };
      const content = Buffer.alloc(size, `${size} `);
      if (kind === 'directory') directories.push(Buffer.concat([at, Buffer.from('/')]));
      if (kind === 'file') files.push(at);
      if (kind === 'directory') items.push(dir(at, own));
      else if (kind === 'symlink') items.push(symlink(at, 't'.repeat(1 + (size % 4095)), special));
      else if (kind === 'character')
        items.push(character(at, size % 4096, 0xf_fff0 + (choice % 16), special));
      else if (kind === 'block') items.push(block(at, choice, size, special));
      else if (kind === 'fifo') items.push(fifo(at, special));
      else if (kind === 'hardlink' && files.length > 0)
        items.push(hardlink(at, files[choice % files.length]!));
      else if (kind === 'sparse')
        items.push(
          sparse(
            at,
            size + 10_000 * choice + 2,
            [
              [size, 'a'],
              [size + 10_000 * choice + 1, 'z'],
            ],
            '1.0',
            own,
          ),
        );
      else items.push(file(at, content, own));
    }
    return items;
  });

const runs = Number(process.env['EROFS_IMAGES'] ?? 25);

describe('EROFS', { skip: missing('root', 'fsck.erofs') }, () => {
  for (const [what, layers] of [
    ['layers that hide each other', randomLayers],
    ['whatever a file system can have', richLayer.map((layer) => [layer])],
  ] as const) {
    it(`has the tree of the image: ${what}`, async (t) => {
      const work = temporaryDirectory(t);
      if (!mountsErofs(t)) return;
      let number = 0;
      await fc.assert(
        fc.asyncProperty(layers, async (items) => {
          number += 1;
          const at = (name: string) => path.join(work, `${name}${number}`);
          mkdirSync(at('tree'));
          const archives = items.map((layer) => tar(...layer));
          try {
            build(at('tree'), archives);
          } catch (error) {
            assert.ok(error instanceof DlrootfsError);
            return fc.pre(false);
          }
          await writeImage(archives, at('a'));
          await writeImage(archives, at('b'));
          assertValid(at('a'));
          assert.ok(readFileSync(at('a')).equals(readFileSync(at('b'))), 'the same bytes again');
          mounted(at('a'), 'erofs', (root) => assert.equal(printTree(root), printTree(at('tree'))));
          for (const name of ['tree', 'a', 'b']) rmSync(at(name), { recursive: true });
        }),
        { numRuns: runs },
      );
    });
  }

  it('has a directory of 43,008 names, each of which is found, and names of 255 bytes', async (t) => {
    const image = path.join(temporaryDirectory(t), 'image');
    const names = Array.from({ length: 43_008 }, (_, index) => `wide/${index}`);
    const long = Array.from({ length: 200 }, (_, index) => `long/${String(index).padStart(255, 'l')}`);
    const items = [dir('wide'), dir('long'), ...[...names, ...long].map((name) => fifo(name))];
    await writeImage([archiveOf(items)], image);
    assertValid(image);
    const root = mountDisk(t, image, 'erofs');
    if (root === undefined) return;
    const found = ['wide', 'long'].flatMap((each) =>
      readdirSync(path.join(root, each)).map((name) => `${each}/${name}`),
    );
    assert.deepEqual(found.toSorted(), [...names, ...long].toSorted());
    for (const name of found) assert.ok(statSync(path.join(root, name)).isFIFO());
    assert.throws(() => statSync(path.join(root, 'wide/43008')), /ENOENT/);
  });

  it('has a file of 66,000 names', async (t) => {
    const image = path.join(temporaryDirectory(t), 'image');
    const names = Array.from({ length: 66_000 }, (_, index) => hardlink(`d/${index}`, 'd/first'));
    await writeImage([archiveOf([dir('d'), file('d/first', 'content'), ...names])], image);
    assertValid(image);
    const root = mountDisk(t, image, 'erofs');
    if (root === undefined) return;
    assert.equal(statSync(path.join(root, 'd/65999')).nlink, 66_001);
    assert.equal(readFileSync(path.join(root, 'd/65999'), 'utf8'), 'content');
  });

  it('stores an attribute of many files once', async (t) => {
    const xattrs = { 'security.label': 'l'.repeat(1000) };
    const many = Array.from({ length: 500 }, (_, index) => file(`${index}`, '', { xattrs }));
    const { image } = await compare(t, many);
    assert.ok(statSync(image).size < 100_000, String(statSync(image).size));
  });

  it('has only the blocks with data of a file with holes', async (t) => {
    const MiB = 2 ** 20;
    const parts = [
      [0, 'begin'],
      [30 * MiB, 'middle'],
      [60 * MiB - 3, 'end'],
    ] as const;
    const { image } = await compare(t, [
      sparse('holes', 60 * MiB, parts, '1.0'),
      sparse('hole', 5000, [], '1.0'),
    ]);
    assert.ok(statSync(image).size < MiB, String(statSync(image).size));
  });

  it('counts what it cannot have, and has the rest', async (t) => {
    const work = temporaryDirectory(t);
    const image = path.join(work, 'image');
    const archive = tar(
      file('a', 'x', {
        xattrs: { 'user.largest': Buffer.alloc(65_535), 'user.too-large': Buffer.alloc(65_536) },
      }),
      file('b', 'x', { xattrs: { 'other.a': 'x', 'system.posix_acl_access': 'no list', 'user.good': 'x' } }),
      file('c', 'x', {
        xattrs: Object.fromEntries(
          Array.from({ length: 6 }, (_, index) => [`user.${index}`, Buffer.alloc(60_000)]),
        ),
      }),
      character('device', 4096, 1),
      hardlink('device-too', 'device'),
      symlink('link', 'x', { xattrs: { 'user.a': 'x' } }),
    );
    const lost = await writeImage([archive], image);
    assertValid(image);
    assert.deepEqual([lost.xattrs, lost.devices], [1 + 2 + 2 + 1, 2]);
    const root = mountDisk(t, image, 'erofs');
    if (root === undefined) return;
    const tree = printTree(root);
    assert.match(tree, / b \{user\.good=78\}$/m);
    assert.equal(tree.match(/user\.\d=0{120000}/g)?.length, 4);
    assert.doesNotMatch(tree, /device/);
  });
});

function mountsErofs(t: TestContext): boolean {
  if (isRoot && readFileSync('/proc/filesystems', 'utf8').includes('\terofs\n')) return true;
  t.skip('needs a kernel with EROFS');
  return false;
}
