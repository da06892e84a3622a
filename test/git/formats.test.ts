import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { crc32, deflateSync, inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { GitError } from '../../src/errors.ts';
import { commitTime } from '../../src/git/commit-writer.ts';
import { FileTree } from '../../src/git/file-tree.ts';
import {
  openChecksums,
  portableChecksums,
  KnownObjects,
  composePackIndex,
} from '../../src/git/pack-format.ts';
import { type ObjectID, isHoldable } from '../../src/git/trees.ts';
import { PackWriter, contentIn } from '../../src/git/pack-writer.ts';
import { ChangeLog, readChanges, type TreeChange } from '../../src/rootfs/changes.ts';
import { ContentWriter } from '../../src/rootfs/contents.ts';
import { createRing } from '../../src/sys/ring.ts';
import { git, scratch } from './git.ts';

const byteString = (minLength: number): fc.Arbitrary<string> =>
  fc
    .uint8Array({ minLength, maxLength: 30 })
    .map((bytes) => Buffer.from(bytes.map((byte) => byte || 1)).toString('latin1'));

test('checksums are what zlib and SHA-1 say, in one piece and in several, natively and by Node', () => {
  const buffer = Buffer.alloc(100_000);
  const all = [openChecksums(buffer), portableChecksums(buffer)];
  const check = (length: number, cut: number): void => {
    const bytes = buffer.subarray(0, length);
    const adler32 = deflateSync(bytes).readUInt32BE(deflateSync(bytes).length - 4);
    const middle = Math.min(cut, length);
    for (const sums of all) {
      assert.equal(sums.adler32(1, 0, length), adler32);
      assert.equal(sums.adler32(sums.adler32(1, 0, middle), middle, length), adler32);
      assert.equal(sums.crc32(0, 0, length), crc32(bytes));
      assert.equal(sums.crc32(sums.crc32(0, 0, middle), middle, length), crc32(bytes));
      sums.begin(`blob ${length}\0`);
      sums.add(0, middle);
      sums.add(middle, length);
      const name = createHash('sha1').update(`blob ${length}\0`).update(bytes).digest();
      assert.ok(sums.end().equals(name));
    }
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 9000 }), fc.nat(9000), (bytes, cut) => {
      buffer.set(bytes);
      check(bytes.length, cut);
    }),
    { numRuns: 200 },
  );
  buffer.fill(255);
  check(buffer.length, 5553);
});

test('git accepts a pack', async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const packs = path.join(directory, '.git/objects/pack');
  const known = new KnownObjects();
  const pack = new PackWriter(packs, known, async () => undefined, 0);
  const contents = [0, 1, 15, 16, 2047, 2048, 65_535, 65_536, 300_000, 5_000_000].map((size) =>
    randomBytes(size),
  );
  const ids: ObjectID[] = [];
  for (const bytes of [...contents, ...contents])
    ids.push((await pack.add(bytes.length, contentIn(bytes))).toString('hex') as ObjectID);
  await assert.rejects(
    pack.add(6_000_000, () => {
      throw new Error('no more');
    }),
    /no more/,
  );
  const after = (await pack.add(5, contentIn(Buffer.from('after')))).toString('hex');
  await pack.close();
  assert.deepEqual(ids.slice(0, contents.length), ids.slice(contents.length));
  for (const [index, bytes] of contents.entries()) {
    assert.equal(ids[index], createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex'));
  }
  const index = readdirSync(packs).find((name) => name.endsWith('.idx'));
  const listing = git(directory, 'verify-pack', '-v', path.join(packs, index!));
  assert.equal(listing.split('\n').filter((line) => / blob /.test(line)).length, contents.length + 1);
  assert.equal(git(directory, 'cat-file', 'blob', after), 'after');
  const ours = readFileSync(path.join(packs, index!));
  const packFile = path.join(packs, index!.replace('.idx', '.pack'));
  git(directory, 'index-pack', '-o', path.join(directory, 'git.idx'), packFile);
  assert.ok(ours.equals(readFileSync(path.join(directory, 'git.idx'))));
});

test('a pack without blobs is none, and one that is given up leaves nothing', async (t) => {
  const directory = scratch(t);
  await new PackWriter(directory, new KnownObjects(), async () => undefined, 0).close();
  assert.deepEqual(readdirSync(directory), []);
  const pack = new PackWriter(directory, new KnownObjects(), async () => undefined, 0);
  await pack.add(1, contentIn(Buffer.from('x')));
  pack.discard();
  assert.deepEqual(readdirSync(directory), []);
});

test('two contents of one name are an error, not one content', async (t) => {
  const directory = scratch(t);
  const known = new KnownObjects();
  const pack = new PackWriter(directory, known, async () => undefined, 0);
  known.add(createHash('sha1').update('blob 3\0abc').digest(), 12_345);
  await assert.rejects(
    pack.add(3, contentIn(Buffer.from('abc'))),
    (error: unknown) => error instanceof GitError && error.code === 'GIT_COLLISION',
  );
  pack.discard();
});

test('known objects are those of a Map, also when there are many', () => {
  const name = fc.nat(600).map((number) => createHash('sha1').update(String(number)).digest());
  fc.assert(
    fc.property(fc.array(fc.tuple(name, fc.nat(0xffff_ffff)), { maxLength: 4000 }), (list) => {
      const known = new KnownObjects();
      const expected = new Map<string, number>();
      for (const [bytes, checksum] of list) {
        const hex = bytes.toString('hex');
        assert.equal(known.add(bytes, checksum), expected.get(hex));
        if (!expected.has(hex)) expected.set(hex, checksum);
      }
    }),
    { numRuns: 10 },
  );
  const many = new KnownObjects();
  const names = Array.from({ length: 5000 }, (_, number) => createHash('sha1').update(`${number}`).digest());
  for (const [number, bytes] of names.entries()) assert.equal(many.add(bytes, number), undefined);
  for (const [number, bytes] of names.entries()) assert.equal(many.add(bytes, 0), number);
});

test('packs of the planned and of other numbers of objects, and one with a rollback', async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const packs = path.join(directory, '.git/objects/pack');
  const large = randomBytes(9_000_000);
  for (const [planned, again] of [
    [3, false],
    [4, false],
    [3, true],
  ] as const) {
    const pack = new PackWriter(packs, new KnownObjects(), async () => undefined, planned);
    for (const size of [10, 70_000]) pack.addAtOnce(size, contentIn(randomBytes(size)));
    assert.equal(pack.isFull, false);
    await pack.add(large.length, contentIn(large));
    if (again) await pack.add(large.length, contentIn(large));
    assert.equal(pack.isFull, planned === 3);
    await pack.close();
  }
  assert.equal(readdirSync(packs).filter((name) => name.endsWith('.pack')).length, 3);
  for (const name of readdirSync(packs).filter((file) => file.endsWith('.idx')))
    git(directory, 'verify-pack', path.join(packs, name));
  assert.equal(git(directory, 'fsck', '--strict', '--full').match(/^dangling blob/gm)?.length, 7);
});

test('offsets beyond 2 GiB stand in the second table of a pack index', () => {
  const names = Buffer.from(['f', '0', '8', '7'].map((digit) => digit.repeat(40)).join(''), 'hex');
  const places = [2 ** 31, 12, 2 ** 40 + 5, 2 ** 31 - 1];
  const index = composePackIndex(names, places, [1, 2, 3, 4], Buffer.alloc(20, 0xaa));
  const offsets = 8 + 1024 + 4 * 24;
  assert.deepEqual(
    [0, 1, 2, 3].map((rank) => index.readUInt32BE(offsets + 4 * rank)),
    [12, 2 ** 31 - 1, 2 ** 31 + 0, 2 ** 31 + 1],
  );
  assert.deepEqual(
    [0, 1].map((rank) => index.readBigUInt64BE(offsets + 16 + 8 * rank)),
    [2n ** 40n + 5n, 2n ** 31n],
  );
  assert.deepEqual(
    [0x00, 0x70, 0x77, 0x88, 0xff].map((byte) => index.readUInt32BE(8 + 4 * byte)),
    [1, 1, 2, 3, 4],
  );
  assert.deepEqual(
    [0, 1, 2, 3].map((rank) => [index[8 + 1024 + 20 * rank], index.readUInt32BE(8 + 1024 + 80 + 4 * rank)]),
    [
      [0x00, 2],
      [0x77, 4],
      [0x88, 3],
      [0xff, 1],
    ],
  );
});

test('what git stores is what zlib inflates', async (t) => {
  const directory = scratch(t);
  const pack = new PackWriter(directory, new KnownObjects(), async () => undefined, 0);
  const bytes = randomBytes(200_000);
  await pack.add(bytes.length, contentIn(bytes));
  await pack.close();
  const name = readdirSync(directory).find((file) => file.endsWith('.pack'));
  // Header of the pack, and four bytes of type and size.
  const stream = readFileSync(path.join(directory, name!)).subarray(12 + 3, -20);
  assert.ok(inflateSync(stream).equals(bytes));
});

test('what git can hold', () => {
  const rows: [path: string, file: boolean, symlink: boolean][] = [
    ['a/b', true, true],
    ['.gitignore', true, true],
    ['.git', false, false],
    ['a/.git', false, false],
    ['a/.git/b', false, false],
    ['a/.GiT/b', false, false],
    ['.gitmodules', true, false],
    ['a/.GITMODULES', true, false],
    ['.gitmodules/a', true, true],
    ['a/.git.b', true, true],
    ['a/x.git/b', true, true],
    ['.git ', true, true],
    ['git~1', true, true],
  ];
  for (const [name, file, symlink] of rows) {
    assert.equal(isHoldable(name, 'file'), file, name);
    assert.equal(isHoldable(name, 'symlink'), symlink, name);
  }
});

test("a commit's date", () => {
  const rows: [created: string, seconds: number][] = [
    ['1970-01-01T00:00:00Z', 0],
    ['2024-02-29T12:00:00.123456789Z', 1_709_208_000],
    ['2024-02-29T12:00:00+02:00', 1_709_200_800],
    ['0001-01-01T00:00:00Z', 0],
  ];
  for (const [created, seconds] of rows) assert.equal(commitTime(created), seconds);
});

test('a tree of files: what one change does to another', () => {
  const tree = new FileTree();
  const change = (kind: TreeChange['kind'], at: string, more: Partial<TreeChange> = {}) =>
    tree.apply({ kind, path: at, target: '', number: 0, ...more });
  const list = (): string[] =>
    [...tree].map(([name, node]) => `${name} ${typeof node === 'number' ? node : '/'}`);
  change('directory', 'd');
  change('file', 'd/a', { number: 0 });
  change('hardlink', 'b', { target: 'd/a' });
  assert.deepEqual(list(), ['b 0', 'd /', 'd/a 0']);
  change('directory', 'd');
  change('executable', 'd/a', { number: 1 });
  change('symlink', 'd.x', { number: 2 });
  assert.deepEqual(list(), ['b 0', 'd.x 2', 'd /', 'd/a 1']);
  assert.deepEqual(
    [0, 1, 2].map((number) => tree.records.mode(number)),
    ['100644', '100755', '120000'],
  );
  change('special', 'd');
  change('hardlink', 'e', { target: 'd' });
  assert.deepEqual(list(), ['b 0', 'd -1', 'd.x 2', 'e -1']);
  change('removed', 'nothing/there');
  change('removed', 'd');
  assert.throws(() => change('file', 'd/x', { number: 3 }), RangeError);
  assert.throws(() => change('hardlink', 'y', { target: 'z' }), RangeError);
  assert.throws(() => change('file', 'x', { number: 4 }), /content 4 instead of 3/);
  assert.throws(() => change('file', 'x', { number: 2 }), /content 2 instead of 3/);
});

test('changes are read as they were written, many at a time', () => {
  const name = byteString(1);
  const kind = fc.constantFrom('file', 'symlink', 'hardlink', 'directory', 'fifo', 'removed' as const);
  fc.assert(
    fc.property(fc.array(fc.tuple(kind, name, name, fc.nat(0o7777)), { maxLength: 40 }), (list) => {
      const parts: Uint8Array[] = [];
      const changes = new ChangeLog(new ContentWriter(createRing()), (records) => parts.push(records));
      let count = 0;
      const next = () => (count += 1) - 1;
      const expected = list.map(([type, at, target, mode]) => {
        if (type === 'file' || type === 'symlink') changes.contents.write(Buffer.alloc(0));
        if (type === 'removed') changes.removed(at);
        else changes.written(at, { type, mode }, target);
        const plain = { kind: type, path: at, target: '', number: 0 };
        if (type === 'hardlink') return { ...plain, target };
        if (type === 'fifo') return { ...plain, kind: 'special' };
        if (type === 'symlink') return { ...plain, number: next() };
        if (type !== 'file') return plain;
        return { ...plain, kind: (mode & 0o100) === 0 ? type : 'executable', number: next() };
      });
      changes.flush();
      assert.deepEqual(
        parts.flatMap((records) => [...readChanges(records)]),
        expected,
      );
    }),
  );
});
