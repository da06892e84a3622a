import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { crc32, deflateSync, inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { GitError } from '../../src/errors.ts';
import { findGit } from '../../src/git/git-program.ts';
import { commitTime, parseBranchName } from '../../src/git/refs.ts';
import {
  openChecksums,
  portableChecksums,
  KnownObjects,
  composePackIndex,
} from '../../src/git/pack-format.ts';
import { type ObjectID, isHoldable, unquotePath } from '../../src/git/trees.ts';
import { PackWriter, contentIn } from '../../src/git/pack-writer.ts';
import { RootfsState } from '../../src/git/rootfs-state.ts';
import { environment, git, scratch } from './git.ts';
import { blank } from '../support/blank.ts';

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

test('a pack is what git takes for one', async (t) => {
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

test('a pack of as many objects as planned, of others, and one from which something written was taken back', async (t) => {
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

test('paths in answers', async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const blob = execute(directory, ['hash-object', '-w', '--stdin'], Buffer.alloc(0)).trim();
  fc.assert(
    fc.property(
      byteString(1).map((name) => name.replaceAll('/', '_')),
      (name) => {
        const safe = !/^(|\.|\.\.|\.git)$/i.test(name);
        if (!safe) return;
        const entry = Buffer.from(`100644 blob ${blob}\t${name}\0`, 'latin1');
        const tree = execute(directory, ['mktree', '-z'], entry).trim();
        const answer = git(directory, '-c', 'core.quotePath=true', 'ls-tree', '--name-only', tree);
        assert.equal(unquotePath(answer.slice(0, -1)), name);
      },
    ),
    { numRuns: 25 },
  );
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

test("a branch's name", () => {
  const id = '0123456789abcdef'.repeat(4);
  assert.deepEqual(parseBranchName(`layer12_${id}`), { number: 12, id });
  for (const name of [
    `layer_${id}`,
    `layer01_${id}`,
    `layer1_${id}0`,
    `layer1_${id.toUpperCase()}`,
    `xlayer1_${id}`,
  ]) {
    assert.equal(parseBranchName(name), undefined);
  }
});

test("a commit's date", () => {
  const rows: [created: string, seconds: number][] = [
    ['1970-01-01T00:00:00Z', 0],
    ['2024-02-29T12:00:00.123456789Z', 1_709_208_000],
    ['2024-02-29T12:00:00+02:00', 1_709_200_800],
    ['0001-01-01T00:00:00Z', 0],
  ];
  for (const [created, seconds] of rows) assert.equal(commitTime({ id: '', created }), seconds);
});

test('a state: what one change does to another', () => {
  const state = new RootfsState();
  const put = (type: 'file' | 'directory', name: string) => state.apply({ ...blank, type, path: name });
  const list = (): string[] => [...state].map(([name]) => name);
  put('directory', 'd');
  put('file', 'd/a');
  state.apply({
    ...blank,
    type: 'hardlink',
    path: 'b',
    linkPath: 'd/a',
    xattrs: new Map([['user.x', Buffer.from('1')]]),
  });
  assert.equal(state.find('b')?.number, state.find('d/a')?.number);
  assert.ok(state.find('b'));
  assert.ok(state.find('d/a')?.xattrs?.has('user.x'));
  assert.equal(state.find('d/a')?.linked, true);
  assert.equal(put('directory', 'd')?.number, state.find('d')?.number);
  assert.deepEqual(list(), ['b', 'd', 'd/a']);
  const before = state.find('d');
  assert.equal(put('file', 'd')?.number, state.find('d')?.number);
  assert.equal(before?.children?.size, 1);
  assert.deepEqual(list(), ['b', 'd']);
  assert.equal(state.apply({ type: 'removed', path: 'nothing/there' }), undefined);
  assert.throws(() => put('file', 'd/x'), RangeError);
  assert.throws(() => state.apply({ ...blank, type: 'hardlink', path: 'y', linkPath: 'z' }), RangeError);
});

test('git is looked for, and asked how old it is', async (t) => {
  const rows: [what: string, script: string | undefined, expected: RegExp | string][] = [
    ['new enough', 'echo git version 2.32.0', '2.32.0'],
    ["a vendor's", 'echo "git version 2.39.5 (Apple Git-154)"', '2.39.5'],
    ["next century's", 'echo git version 10.0.1.windows.1', '10.0.1.windows.1'],
    ['too old', 'echo git version 2.31.9', /is version 2\.31, and -g needs 2\.32 or newer$/],
    ['ancient', 'echo git version 1.9.1', /is version 1\.9, and -g needs 2\.32 or newer$/],
    [
      'something else',
      'printf "I am\\033[31m not git\\n"',
      /says it is I am\\x1b\[31m not git, which is no version of git$/,
    ],
    ['broken', 'echo cannot load library >&2; exit 127', /does not run: cannot load library$/],
    ['missing', undefined, /^git was not found, and -g needs it$/],
  ];
  for (const [what, script, expected] of rows) {
    await t.test(what, async (row) => {
      const directory = scratch(row);
      if (script !== undefined) {
        writeFileSync(path.join(directory, 'git'), `#!/bin/sh\n${script}\n`);
        chmodSync(path.join(directory, 'git'), 0o755);
      }
      const found = findGit({ PATH: `relative:${directory}::.` });
      if (typeof expected === 'string') {
        assert.deepEqual(await found, { binary: path.join(directory, 'git'), version: expected });
        return;
      }
      await assert.rejects(
        found,
        (error: unknown) =>
          error instanceof GitError &&
          error.exitCode === 7 &&
          expected.test(error.message) &&
          (what === 'broken' || error.hint !== undefined),
      );
    });
  }
});

test('a directory, a broken link or a file that cannot be run is not git', async (t) => {
  const directory = scratch(t);
  for (const name of ['one', 'two', 'three', 'four']) mkdirSync(path.join(directory, name));
  mkdirSync(path.join(directory, 'one/git'));
  symlinkSync('/nowhere', path.join(directory, 'two/git'));
  writeFileSync(path.join(directory, 'three/git'), '');
  symlinkSync((await findGit(environment)).binary, path.join(directory, 'four/git'));
  const PATH = ['one', 'two', 'three', 'four'].map((name) => path.join(directory, name)).join(':');
  assert.equal((await findGit({ PATH })).binary, path.join(directory, 'four/git'));
});

function execute(directory: string, command: string[], input: Buffer): string {
  return execFileSync('git', ['-C', directory, ...command], {
    input,
    encoding: 'latin1',
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}
