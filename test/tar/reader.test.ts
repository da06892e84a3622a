import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ByteSource } from '../../src/tar/entry.ts';
import { TarReader } from '../../src/tar/reader.ts';
import {
  block,
  character,
  dir,
  endMark,
  fifo,
  file,
  gnuMagic,
  hardlink,
  header,
  opaque,
  padded,
  paxHeader,
  raw,
  symlink,
  tar,
  tarAs,
  whiteout,
  type Item,
} from '../support/archive.ts';
import { chunked, readArchive, summary } from '../support/read-archive.ts';

const long = 'l'.repeat(300);

function timeAfterReading(mtime: readonly [number, number]): [number, number] {
  const [entry] = readArchive(tar(dir('d', { mtime })));
  return [entry!.mtimeSeconds, entry!.mtimeNanoseconds];
}

function xattrs(...items: readonly Item[]): unknown[] {
  return readArchive(tar(...items)).map(
    ({ xattrs: map }) => map && [...map].map(([name, value]) => `${name}=${Buffer.from(value).toString()}`),
  );
}

const chunkSizes = [1 << 20, 512, 513, 100, 7, 1];

describe('a TarReader reads', () => {
  const everyDialect: [title: string, item: Item, line: string][] = [
    ['a file', file('etc/motd', 'hi', { mode: 0o4755, uid: 1, gid: 2 }), '-4755 1:2 2 etc/motd'],
    ['an empty file', file('empty'), '-0644 0:0 0 empty'],
    ['a file of exactly one block', file('f', 'x'.repeat(512)), '-0644 0:0 512 f'],
    ['a directory', dir('etc', { mode: 0o1777 }), 'd1777 0:0 etc/'],
    ['a symlink', symlink('lib', 'usr/lib'), 'l0777 0:0 lib -> usr/lib'],
    ['a hard link', hardlink('b', 'a'), 'h0644 0:0 b -> a'],
    ['a FIFO', fifo('run/pipe'), 'p0644 0:0 run/pipe'],
    ['a whiteout', whiteout('etc/old'), '-0644 0:0 0 etc/.wh.old'],
    ['an opaque marker', opaque('etc'), '-0644 0:0 0 etc/.wh..wh..opq'],
    ['bytes that are no UTF-8', file(Buffer.from([0xe9, 0x0a, 0xff])), '-0644 0:0 0 \xe9\n\xff'],
  ];
  for (const dialect of ['v7', 'ustar', 'gnu', 'pax'] as const) {
    for (const [title, item, line] of everyDialect) {
      it(`${title} (${dialect})`, () => {
        for (const size of chunkSizes) {
          assert.deepEqual(readArchive(tarAs(dialect, item, file('z', '!')), size).map(summary), [
            line,
            '-0644 0:0 1 z',
          ]);
        }
      });
    }
  }

  const some: [title: string, items: readonly Item[], lines: readonly string[]][] = [
    [
      'devices',
      [character('dev/null', 1, 3), block('dev/sda', 8, 0)],
      ['c0600 0:0 1,3 dev/null', 'b0600 0:0 8,0 dev/sda'],
    ],
    [
      'a directory whose type is NUL, as in v7',
      [raw(header({ name: 'd/', type: '\0', size: 5 }))],
      ['d0644 0:0 d/'],
    ],
    [
      'a file of type 0 with a slash at its end as a file',
      [raw(header({ name: 'd/', type: '0' }))],
      ['-0644 0:0 0 d/'],
    ],
    [
      'contiguous files (type 7)',
      [raw(header({ name: 'f', type: '7', size: 2 }), padded(Buffer.from('hi')))],
      ['-0644 0:0 2 f'],
    ],
    [
      'unknown types as files',
      [raw(header({ name: 'f', type: 'Z', size: 2 }), padded(Buffer.from('hi')))],
      ['-0644 0:0 2 f'],
    ],
    [
      'type 8 and bytes beyond ASCII as files',
      [
        raw(header({ name: 'f', type: '8' })),
        raw(header({ name: 'g', patches: [[156, Buffer.from([0xff])]] })),
      ],
      ['-0644 0:0 0 f', '-0644 0:0 0 g'],
    ],
    [
      'GNU’s directory with a list (D)',
      [
        raw(
          header({ name: 'd/', type: 'D', size: 14, magic: gnuMagic }),
          padded(Buffer.from('Yfoo\0Nbar\0\0aaa')),
        ),
      ],
      ['d0644 0:0 d/'],
    ],
    [
      'no volume label (V)',
      [raw(header({ name: 'backup', type: 'V', magic: gnuMagic })), file('f')],
      ['-0644 0:0 0 f'],
    ],
    [
      'no access list of Solaris (A)',
      [raw(header({ name: 'acl', type: 'A', size: 3 }), padded(Buffer.from('acl'))), file('f')],
      ['-0644 0:0 0 f'],
    ],
    [
      'Solaris’s pax headers (X)',
      [raw(paxHeader([['path', long]], 'X')), file('f')],
      [`-0644 0:0 0 ${long}`],
    ],
    [
      'links, directories, devices without data, whatever their size says',
      ['1', '2', '3', '4', '5', '6'].map((type) =>
        raw(header({ name: type, type, linkname: 'x', size: 1024 })),
      ),
      [
        'h0644 0:0 1 -> x',
        'l0644 0:0 2 -> x',
        'c0644 0:0 0,0 3',
        'b0644 0:0 0,0 4',
        'd0644 0:0 5',
        'p0644 0:0 6',
      ],
    ],
    [
      '… also when the size is a pax record',
      [raw(paxHeader([['size', '512']])), dir('d'), file('f')],
      ['d0755 0:0 d/', '-0644 0:0 0 f'],
    ],
    ['an empty name of a directory as the root', [raw(header({ name: '', type: '5' }))], ['d0644 0:0 ']],
    [
      'an empty name of anything else as it is',
      [raw(header({ name: '', size: 1 }), padded(Buffer.from('x'))), file('f')],
      ['-0644 0:0 1 ', '-0644 0:0 0 f'],
    ],
    [
      'names with . and .. as they are',
      [dir('./'), file('../../x'), file('/abs')],
      ['d0755 0:0 ./', '-0644 0:0 0 ../../x', '-0644 0:0 0 /abs'],
    ],
    ['mode bits of the file type in the mode field', [file('f', '', { mode: 0o100644 })], ['-0644 0:0 0 f']],
    [
      'owners up to 2^32 - 1, by pax',
      [file('f', '', { uid: 0xffff_ffff, gid: 0xffff_fffe })],
      ['-0644 4294967295:4294967294 0 f'],
    ],
    [
      'owners up to 2^32 - 1, in base 256',
      [file('f', '', { uid: 0xffff_ffff, gid: 0xffff_fffe, dialect: 'gnu' })],
      ['-0644 4294967295:4294967294 0 f'],
    ],
    [
      'owner -2 as the kernel does',
      [raw(header({ name: 'f', uid: -2, gid: -1 }))],
      ['-0644 4294967294:4294967295 0 f'],
    ],
    [
      'major numbers beyond seven octal digits',
      [character('c', 2 ** 24, 2 ** 31)],
      ['c0600 0:0 16777216,2147483648 c'],
    ],
    [
      'device numbers in pax records',
      [character('c', 0, 0, { pax: { 'SCHILY.devmajor': '259', 'SCHILY.devminor': '4294967295' } })],
      ['c0600 0:0 259,4294967295 c'],
    ],
  ];
  for (const [title, items, lines] of some) {
    it(title, () => assert.deepEqual(readArchive(tar(...items), 300).map(summary), lines));
  }

  it('long names and links in every dialect that has them', () => {
    const prefixed = `${'p'.repeat(155)}/${'n'.repeat(100)}`;
    assert.deepEqual(readArchive(tarAs('ustar', file(prefixed))).map(summary), [`-0644 0:0 0 ${prefixed}`]);
    for (const dialect of ['gnu', 'pax'] as const) {
      assert.deepEqual(readArchive(tarAs(dialect, file(long), symlink(`s${long}`, long))).map(summary), [
        `-0644 0:0 0 ${long}`,
        `l0777 0:0 s${long} -> ${long}`,
      ]);
    }
    const beyondPathMax = `${'d'.repeat(250)}/`.repeat(40);
    assert.equal(readArchive(tar(file(`${beyondPathMax}f`)))[0]!.path, `${beyondPathMax}f`);
  });

  it('times in seconds and nanoseconds, before 1970 too', () => {
    for (const time of [
      [0, 1],
      [1_700_000_000, 999_999_999],
      [-1, 0],
      [-2, 750_000_000],
      [-1, 999_999_999],
      [2 ** 40, 5],
    ] as const) {
      assert.deepEqual(timeAfterReading(time), time);
    }
    assert.equal(readArchive(tarAs('gnu', file('f', '', { mtime: -5 })))[0]!.mtimeSeconds, -5);
  });

  it('extended attributes in archive order, global ones too', () => {
    assert.deepEqual(
      xattrs(
        file('a', '', { xattrs: { 'user.b': '1', 'user.a': '2', 'user.empty': '' } }),
        raw(paxHeader([['SCHILY.xattr.user.all', 'g']], 'g')),
        file('b'),
        file('c', '', { xattrs: { 'user.all': '', 'user.c': '3' } }),
        file('d', '', { xattrs: { 'user.all': 'own' } }),
        raw(paxHeader([['SCHILY.xattr.user.all', '']], 'g')),
        file('e'),
      ),
      [['user.b=1', 'user.a=2', 'user.empty='], ['user.all=g'], ['user.c=3'], ['user.all=own'], undefined],
    );
  });

  it('global headers, which an entry’s own records beat and an empty value takes back', () => {
    const lines = readArchive(
      tar(
        raw(paxHeader([['comment', 'made by git archive']], 'g')),
        raw(
          paxHeader(
            [
              ['uid', '7'],
              ['gid', '8'],
              ['mtime', '5.5'],
            ],
            'g',
          ),
        ),
        file('a'),
        file('b', '', { pax: { uid: '9' } }),
        file('c', '', { pax: { uid: '' } }),
        raw(paxHeader([['gid', '']], 'g')),
        file('d'),
      ),
    );
    assert.deepEqual(lines.map(summary), [
      '-0644 7:8 0 a',
      '-0644 9:8 0 b',
      '-0644 0:8 0 c',
      '-0644 7:0 0 d',
    ]);
    assert.deepEqual(
      lines.map((entry) => entry.mtimeNanoseconds),
      Array.from({ length: 4 }, () => 500_000_000),
    );
  });

  it('an archive without its end mark, with half of it, and an empty one', () => {
    const archive = tar(file('f', 'x'));
    for (const length of [archive.length - 512, archive.length - 1024]) {
      assert.deepEqual(readArchive(archive.subarray(0, length)).map(summary), ['-0644 0:0 1 f']);
    }
    assert.deepEqual(readArchive(Buffer.alloc(0)), []);
    assert.deepEqual(readArchive(endMark), []);
    assert.deepEqual(readArchive(endMark.subarray(0, 512)), []);
  });

  it('nothing after the end mark, and leaves that to the caller', () => {
    const source = chunked(Buffer.concat([tar(file('f')), Buffer.from('garbage '.repeat(1000))]), 512);
    const reader = new TarReader(source, 'layer');
    assert.equal(reader.next()?.path, 'f');
    assert.equal(reader.next(), undefined);
    assert.equal(reader.next(), undefined);
    assert.equal(Buffer.from(source.read(8)!).toString(), 'garbage ');
  });

  it('data in views of the source’s chunks, and skips what nobody asked for', () => {
    const content = 'abc'.repeat(1000);
    const bytes = tar(file('a', content), file('b', content), file('c', content));
    const whole: ByteSource = chunked(bytes);
    const reader = new TarReader(whole, 'layer');
    assert.equal(reader.next()?.path, 'a');
    assert.equal(reader.data()?.length, 3000);
    assert.equal(reader.data(), undefined);
    assert.equal(reader.next()?.path, 'b');
    assert.equal(reader.next()?.path, 'c');
    assert.equal(Buffer.from(reader.data()!).toString(), content);
    assert.equal(reader.next(), undefined);
    assert.equal(reader.data(), undefined);
  });
});
