import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MalformedTarError } from '../../src/tar/entry.ts';
import { maxExtents } from '../../src/tar/sparse.ts';
import {
  encodeNumber,
  endMark,
  file,
  gnuMagic,
  header,
  padded,
  paxHeader,
  raw,
  sparse,
  tar,
  type Bytes,
  type Extent,
} from '../support/archive.ts';
import { contentOf, readArchive, summary } from '../support/read-archive.ts';

function expanded(size: number, extents: readonly Extent[]): Buffer {
  const content = Buffer.alloc(size);
  for (const [offset, data] of extents) Buffer.from(data).copy(content, offset);
  return content;
}

const manyExtents: readonly Extent[] = Array.from({ length: 60 }, (_, index) => [
  index * 1024,
  `part ${index}`.padEnd(512),
]);

describe('sparse files', () => {
  const files: [title: string, size: number, extents: readonly Extent[]][] = [
    ['one extent in the middle', 10_000, [[4096, 'middle']]],
    ['data at the start and a hole at the end', 100_000, [[0, 'a'.repeat(512)]]],
    [
      'data at both ends',
      2048,
      [
        [0, 'x'.repeat(512)],
        [1536, 'y'.repeat(512)],
      ],
    ],
    [
      'four extents, what a header holds',
      8192,
      [
        [0, 'a'],
        [1024, 'b'],
        [2048, 'c'],
        [4096, 'd'],
      ],
    ],
    [
      'five extents, one in a block of its own',
      8192,
      [
        [0, 'a'],
        [1024, 'b'],
        [2048, 'c'],
        [4096, 'd'],
        [5000, 'e'],
      ],
    ],
    ['sixty extents', 61_440, manyExtents],
    [
      'extents of no length',
      500,
      [
        [0, ''],
        [100, 'x'],
        [101, ''],
        [500, ''],
      ],
    ],
    ['nothing but a hole', 1_000_000, []],
    [
      'extents side by side',
      100,
      [
        [0, 'a'],
        [1, 'b'],
        [2, 'c'],
      ],
    ],
    ['no bytes at all', 0, []],
  ];
  for (const format of ['gnu', '0.0', '0.1', '1.0'] as const) {
    for (const [title, size, extents] of files) {
      it(`${format}: ${title}`, () => {
        for (const chunkSize of [1 << 20, 512, 100]) {
          const entries = readArchive(tar(sparse('s', size, extents, format), file('after', 'x')), chunkSize);
          assert.deepEqual(entries.map(summary), [`-0644 0:0 ${size} s`, '-0644 0:0 1 after']);
          assert.ok(contentOf(entries[0]!).equals(expanded(size, extents)));
          assert.deepEqual(
            entries[0]!.sparse,
            extents
              .filter(([, data]) => data.length > 0)
              .map(([offset, data]) => ({ offset, length: data.length })),
          );
        }
      });
    }
  }

  it('keeps a size beyond 32 bits', () => {
    for (const format of ['gnu', '0.0', '0.1', '1.0'] as const) {
      const [entry] = readArchive(
        tar(sparse('big', 60_000_000_000, [[59_999_999_488, 'end'.padEnd(512)]], format)),
      );
      assert.equal(entry!.size, 60_000_000_000);
      assert.deepEqual(entry!.sparse, [{ offset: 59_999_999_488, length: 512 }]);
    }
  });

  it('takes format 0.0 without a count, and 0.1 by its version', () => {
    const [plain] = readArchive(
      tar(
        raw(
          paxHeader([
            ['GNU.sparse.size', '5'],
            ['GNU.sparse.offset', '4'],
            ['GNU.sparse.numbytes', '1'],
          ]),
        ),
        file('s', 'x'),
      ),
    );
    assert.deepEqual(plain!.sparse, [{ offset: 4, length: 1 }]);
    const [versioned] = readArchive(
      tar(
        raw(
          paxHeader([
            ['GNU.sparse.major', '0'],
            ['GNU.sparse.minor', '1'],
            ['GNU.sparse.size', '5'],
            ['GNU.sparse.numblocks', '1'],
            ['GNU.sparse.map', '4,1'],
            ['GNU.sparse.name', 'real'],
          ]),
        ),
        file('GNUSparseFile.1/s', 'x'),
      ),
    );
    assert.equal(versioned!.path, 'real');
  });
});

/** Returns a file of format 1.0 with any data. */
function version1(size: string, data: Bytes): Buffer {
  return tar(
    raw(
      paxHeader([
        ['GNU.sparse.major', '1'],
        ['GNU.sparse.minor', '0'],
        ['GNU.sparse.name', 'evil'],
        ['GNU.sparse.realsize', size],
      ]),
    ),
    file('s', data),
  );
}

function version01(size: string, blocks: string, map: string, data: string): Buffer {
  return tar(
    raw(
      paxHeader([
        ['GNU.sparse.size', size],
        ['GNU.sparse.numblocks', blocks],
        ['GNU.sparse.map', map],
      ]),
    ),
    file('evil', data),
  );
}

function oldFormat(realSize: Buffer, size: number, magic: string, map: readonly Buffer[], more = 0): Buffer {
  return Buffer.concat([
    header({
      name: 'evil',
      type: 'S',
      size,
      magic,
      patches: [
        [386, Buffer.concat(map)],
        [482, Buffer.from([more])],
        [483, realSize],
      ],
    }),
  ]);
}

const number = (value: number): Buffer => encodeNumber(value, 12);

function lines(...numbers: readonly number[]): Buffer {
  return padded(Buffer.from(`${numbers.join('\n')}\n`));
}

describe('sparse maps that make no sense', () => {
  const table: [title: string, archive: Buffer, message: RegExp][] = [
    ['extents that overlap', version01('10', '2', '0,3,2,3', 'abcdef'), /overlap/],
    ['extents that go backwards', version01('10', '2', '5,1,0,1', 'ab'), /backwards/],
    ['an extent beyond the size', version01('10', '1', '8,3', 'abc'), /outside the file/],
    ['a negative offset', version01('10', '1', '-1,1', 'a'), /outside the file/],
    ['a negative length', version01('10', '1', '1,-1', ''), /outside the file/],
    ['a length near 2^53', version01('10', '1', '1,9007199254740991', 'a'), /outside the file/],
    ['a negative size', version01('-1', '0', '', ''), /negative/],
    ['a map of another length than its count', version01('10', '2', '0,1', 'a'), /does not match its count/],
    ['half an extent', version01('10', '1', '0,1,2', 'a'), /does not match its count/],
    ['less data than the map', version01('10', '1', '0,3', 'ab'), /3 bytes of data, but 2 are stored/],
    ['more data than the map', version01('10', '1', '0,1', 'ab'), /1 bytes of data, but 2 are stored/],
    ['no size', tar(raw(paxHeader([['GNU.sparse.map', '0,1']])), file('evil', 'a')), /without a size/],
    [
      'a version that does not exist',
      tar(
        raw(
          paxHeader([
            ['GNU.sparse.major', '2'],
            ['GNU.sparse.minor', '0'],
            ['GNU.sparse.size', '1'],
          ]),
        ),
        file('evil'),
      ),
      /unknown version/,
    ],
    [
      'a sparse directory',
      tar(raw(paxHeader([['GNU.sparse.size', '1']]), header({ name: 'evil/', type: '5' }))),
      /not a file/,
    ],
    ['1.0: no data', version1('10', ''), /ends within its sparse map/],
    ['1.0: a map that never ends', version1('10', Buffer.from(`900\n${'0\n'.repeat(254)}`)), /ends within/],
    ['1.0: a map without a newline', version1('10', Buffer.alloc(1024, '1')), /not a list of numbers/],
    ['1.0: letters', version1('10', padded(Buffer.from('1\nfive\n1\n'))), /not a list of numbers/],
    ['1.0: a negative count', version1('10', lines(-1)), /more than/],
    ['1.0: a count that would eat the memory', version1('10', lines(maxExtents + 1)), /more than/],
    [
      '1.0: data that the map does not cover',
      version1('10', Buffer.concat([lines(0), Buffer.from('abc')])),
      /but 3 are stored/,
    ],
    [
      'type S without GNU’s magic',
      tar(raw(oldFormat(number(1), 1, 'ustar\x0000', [number(0), number(1)]), padded(Buffer.from('x')))),
      /not GNU/,
    ],
    [
      'type S with a size that is no number',
      tar(raw(oldFormat(Buffer.from('twelve bytes'), 0, gnuMagic, []))),
      /sparse size/,
    ],
    [
      'type S with a length that is no number',
      tar(
        raw(
          oldFormat(number(5), 1, gnuMagic, [number(0), Buffer.from('zzzzzzzzzzz\0')]),
          padded(Buffer.from('x')),
        ),
      ),
      /sparse length/,
    ],
    [
      'type S that promises a block which does not come',
      oldFormat(number(5), 0, gnuMagic, [number(0), number(1)], 1),
      /within its sparse map/,
    ],
    [
      'type S that promises blocks for ever',
      Buffer.concat([
        oldFormat(number(5), 0, gnuMagic, [], 1),
        ...Array.from({ length: 100 }, () =>
          Buffer.concat([Buffer.alloc(504), Buffer.from([1]), Buffer.alloc(7)]),
        ),
      ]),
      /within its sparse map/,
    ],
  ];
  for (const [title, archive, message] of table) {
    it(title, () => {
      assert.throws(
        () => readArchive(archive),
        (error: Error) => {
          assert.ok(error instanceof MalformedTarError, error.stack);
          assert.match(error.message, message);
          assert.match(error.message, /^layer test: evil/);
          return true;
        },
      );
    });
  }

  it('an end mark is not taken for a block of the map', () => {
    const archive = Buffer.concat([oldFormat(number(5), 0, gnuMagic, [], 1), endMark, endMark]);
    assert.deepEqual(readArchive(archive).map(summary), ['-0644 0:0 5 evil']);
  });
});
