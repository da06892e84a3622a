import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError } from '../../src/errors.ts';
import { type ArchiveIndex, indexArchive } from '../../src/layout/archive-files.ts';
import {
  gzip,
  dir,
  file,
  hardlink,
  header,
  paxHeader,
  raw,
  sparse,
  symlink,
  tar,
  tarAs,
} from '../support/archive.ts';
import { Scratch } from '../support/program.ts';

function indexOf(bytes: Uint8Array): ArchiveIndex {
  using scratch = new Scratch();
  writeFileSync(scratch.join('x.tar'), bytes);
  const descriptor = openSync(scratch.join('x.tar'), 'r');
  try {
    return indexArchive(descriptor, bytes.length, 'x.tar');
  } finally {
    closeSync(descriptor);
  }
}

const long = `${'d'.repeat(120)}/${'f'.repeat(120)}`;

for (const dialect of ['ustar', 'gnu', 'pax'] as const) {
  test(`members of a ${dialect} archive are found where they stand`, () => {
    const name = dialect === 'ustar' ? 'short' : long;
    const bytes = tarAs(
      dialect,
      dir('a'),
      file('./a/b', 'hello'),
      file(name, 'x'.repeat(1000)),
      file('/end', ''),
    );
    const index = indexOf(bytes);
    assert.deepEqual([...index.keys()], ['a/b', name, 'end']);
    for (const [member, content] of [
      ['a/b', 'hello'],
      [name, 'x'.repeat(1000)],
      ['end', ''],
    ] as const) {
      const stretch = index.get(member)!;
      assert.ok(typeof stretch !== 'string');
      assert.equal(bytes.toString('latin1', stretch.offset, stretch.offset + stretch.size), content);
    }
  });
}

test('links lead to members and never out of the archive', () => {
  const index = indexOf(
    tar(
      file('1/layer.tar', 'x'),
      symlink('2/layer.tar', '../1/layer.tar'),
      symlink('3', '/1/layer.tar'),
      symlink('4/x', '../../../etc/passwd'),
      hardlink('5', './1/layer.tar'),
    ),
  );
  assert.equal(index.get('2/layer.tar'), '1/layer.tar');
  assert.equal(index.get('3'), '1/layer.tar');
  assert.equal(index.get('4/x'), 'etc/passwd');
  assert.equal(index.get('5'), '1/layer.tar');
});

test('of members with one path the last counts', () => {
  const stretch = indexOf(tar(file('a', 'first'), file('a', 'second!'))).get('a');
  assert.ok(typeof stretch === 'object');
  assert.equal(stretch.size, 7);
});

test('members beyond eight gigabytes are found, by base 256 and by pax', () => {
  using scratch = new Scratch();
  const size = 9 * 1024 ** 3;
  const place = scratch.join('large.tar');
  const descriptor = openSync(place, 'w+');
  try {
    let offset = 0;
    for (const start of [
      header({ name: 'base256', size, type: '0', mode: 0o644, magic: 'ustar  \0' }),
      Buffer.concat([
        paxHeader([['size', String(size)]]),
        header({ name: 'pax', size: 0, type: '0', mode: 0o644 }),
      ]),
    ]) {
      writeSync(descriptor, start, 0, start.length, offset);
      offset += start.length + size;
    }
    const end = tar(file('last', 'here'));
    writeSync(descriptor, end, 0, end.length, offset);
    ftruncateSync(descriptor, offset + end.length);
    const index = indexArchive(descriptor, offset + end.length, 'large.tar');
    assert.deepEqual([...index.keys()], ['base256', 'pax', 'last']);
    const last = index.get('last');
    assert.ok(typeof last === 'object');
    const found = Buffer.alloc(last.size);
    readSync(descriptor, found, 0, found.length, last.offset);
    assert.equal(found.toString(), 'here');
  } finally {
    closeSync(descriptor);
  }
});

const broken: readonly (readonly [string, Uint8Array, RegExp])[] = [
  [
    'a member that is cut off',
    tar(file('a', 'x'.repeat(2000))).subarray(0, 1500),
    /cut off: it ends within a/,
  ],
  ['a header that is cut off', tar(file('a', 'x')).subarray(0, 300), /ends within a header/],
  ['something else', Buffer.alloc(2048, 'x'), /not a tar header/],
  [
    'a negative size',
    tar(raw(header({ name: 'a', type: '0', size: Buffer.from('ffffffffffffffffffffffff', 'hex') }))),
    /size/,
  ],
  ['a sparse member', tar(sparse('a', 100_000, [[0, 'x']], '1.0')), /sparse member/],
  [
    'half an end mark',
    Buffer.concat([tar(file('a', 'x')).subarray(0, 1024), Buffer.alloc(512), tar(file('b'))]),
    /a single block of zeros/,
  ],
  ['a meta header without its entry', paxHeader([['path', 'x']]), /ends before the entry/],
  [
    'a meta header that is too large',
    tar(raw(paxHeader([['comment', 'x'.repeat(2 ** 21)]])), file('a')),
    /a meta header of \d+ bytes, the limit is 1048576/,
  ],
  [
    'an archive that is compressed once more',
    Buffer.concat([gzip(tar(file('a'))), Buffer.alloc(1024)]),
    /not a tar header/,
  ],
  ['an old sparse member', tar(sparse('a', 100_000, [[0, 'x']], 'gnu')), /sparse member/],
];

for (const [name, bytes, message] of broken) {
  test(`${name} is an error`, () => assert.throws(() => indexOf(bytes), { exitCode: 6, message }));
}

test('an empty file has no members', () => assert.equal(indexOf(new Uint8Array()).size, 0));

test('any damage is an index or an IntegrityError', () => {
  const sound = tar(file('index.json', '{}'), symlink('a', 'b'), file('b', 'x'.repeat(600)));
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 3 }),
      fc.nat(sound.length),
      (changes, end) => {
        const bytes = Buffer.from(sound).subarray(0, end);
        for (const [place, byte] of changes) if (place < end) bytes[place] = byte;
        try {
          indexOf(bytes);
        } catch (error) {
          if (!(error instanceof DlrootfsError)) throw error;
        }
      },
    ),
    { numRuns: 200 },
  );
});
