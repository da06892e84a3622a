import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { composeLine, parseLine, type TreeChange } from '../../src/tar/mtree.ts';
import { blank } from '../support/blank.ts';

const byteString = (minLength: number): fc.Arbitrary<string> =>
  fc
    .uint8Array({ minLength, maxLength: 30 })
    .map((bytes) => Buffer.from(bytes.map((byte) => byte || 1)).toString('latin1'));

const path_ = byteString(1).map((text) => text.replaceAll(/^\/+|\/+$/g, 'x'));
const written: fc.Arbitrary<TreeChange> = fc.record({
  type: fc.constantFrom('file', 'directory', 'character', 'block', 'fifo', 'symlink'),
  path: fc.oneof(path_, fc.constant('')),
  linkPath: fc.constant(''),
  mode: fc.nat(0o7777),
  uid: fc.nat(0xffff_ffff),
  gid: fc.nat(0xffff_ffff),
  size: fc.constant(0),
  mtimeSeconds: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  mtimeNanoseconds: fc.nat(999_999_999),
  deviceMajor: fc.constant(0),
  deviceMinor: fc.constant(0),
  xattrs: fc.oneof(
    fc.constant(undefined),
    fc
      .array(fc.tuple(byteString(1), fc.uint8Array({ maxLength: 20 })), { minLength: 1, maxLength: 3 })
      .map((pairs) => new Map(pairs.map(([name, value]) => [name, Buffer.from(value)]))),
  ),
  contents: fc.oneof(fc.constant(undefined), fc.constant('files/7')),
  own: fc.constantFrom(undefined, true),
});
const change: fc.Arbitrary<TreeChange> = fc.oneof(
  path_.map((name): TreeChange => ({ type: 'removed', path: name })),
  fc
    .tuple(written, byteString(1), fc.nat(2 ** 50), fc.nat(0xfffff))
    .map(([base, link, size, device]): TreeChange => {
      if (base.type === 'symlink') return { ...base, linkPath: link };
      if (base.type === 'file') return { ...base, size };
      if (base.type === 'character' || base.type === 'block') {
        return { ...base, deviceMajor: device & 0xfff, deviceMinor: device };
      }
      return base;
    }),
);

test('a change as a line, and back; a line is plain ASCII', () => {
  fc.assert(
    fc.property(change, (one) => {
      const line = composeLine(one);
      assert.match(line, /^[ -~]+\n$/);
      assert.ok(!line.startsWith('#'));
      assert.deepEqual(parseLine(line.slice(0, -1)), { ...one });
    }),
    { numRuns: 500 },
  );
  const rows: [line: string, expected: string][] = [
    ['hard link', './a\\040b type=hardlink link=./c\\012d\n'],
    ['removed', './a type=removed\n'],
    ['root', '. type=dir uid=0 gid=0 mode=755 time=-1.000000005 xattr.user.x=AP8=\n'],
  ];
  const plain = { ...blank, mode: 0 };
  assert.equal(composeLine({ ...plain, type: 'hardlink', path: 'a b', linkPath: 'c\nd' }), rows[0]![1]);
  assert.equal(composeLine({ type: 'removed', path: 'a' }), rows[1]![1]);
  const root = {
    ...plain,
    type: 'directory',
    path: '',
    mode: 0o755,
    mtimeSeconds: -1,
    mtimeNanoseconds: 5,
  } as const;
  assert.equal(composeLine({ ...root, xattrs: new Map([['user.x', Buffer.from([0, 255])]]) }), rows[2]![1]);
  // What somebody else wrote: no value, a keyword that is not known, one that comes twice.
  const odd = parseLine('./a type=file xattr.user.x uid link size=1 size=2 colour=red xattr.y=AA==');
  assert.deepEqual(odd, {
    ...plain,
    type: 'file',
    path: 'a',
    size: 2,
    xattrs: new Map([['y', Buffer.from([0])]]),
    contents: undefined,
    own: undefined,
  });
  assert.throws(() => parseLine('./a type=socket'), { code: 'BAD_RECORD' });
});

/** What takes milliseconds in proportion to the length takes minutes in proportion to its square. */
test('a line of millions of words without a dot or an equals sign is read once', { timeout: 10_000 }, () => {
  const words = 400_000;
  const text = `./a type=file${' time=5'.repeat(words)}${' xattr.user'.repeat(words)}\n./b type=file`;
  const parsed = parseLine(text, 0, text.indexOf('\n'));
  assert.equal(parsed.type === 'file' && parsed.mtimeSeconds, 5);
  assert.equal(parsed.type === 'file' && parsed.mtimeNanoseconds, 0);
});
