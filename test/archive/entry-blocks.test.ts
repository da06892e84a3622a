import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { entryBlocks, linkBlocks, type ArchiveEntry } from '../../src/archive/entry-blocks.ts';
import { paddingOf } from '../../src/tar/header.ts';
import type { BytePath } from '../../src/tar/entry.ts';
import { blank } from '../support/blank.ts';
import { readArchive, summary, type ReadEntry } from '../support/read-archive.ts';

function entry(path: string, given: Partial<ArchiveEntry>): ArchiveEntry {
  return { type: 'file', ...blank, linkPath: '' as BytePath, ...given, path: path as BytePath };
}

/** Returns the entry that our reader finds in the blocks, with zeros for data. */
function readBack(path: string, given: Partial<ArchiveEntry>): ReadEntry {
  const { blocks, dataSize } = entryBlocks(entry(path, given), undefined);
  return readArchive(Buffer.concat([blocks, Buffer.alloc(dataSize + paddingOf(dataSize))]))[0]!;
}

describe('entryBlocks', () => {
  const paths: [title: string, path: string, pax: boolean][] = [
    ['a short one', 'etc/motd', false],
    ['100 bytes', 'n'.repeat(100), false],
    ['101 bytes without a slash', 'n'.repeat(101), true],
    ['255 bytes that can be cut', `${'p'.repeat(155)}/${'n'.repeat(100)}`, false],
    ['256 bytes that can be cut', `${'p'.repeat(156)}/${'n'.repeat(99)}`, true],
    ['a name of 101 bytes', `p/${'n'.repeat(101)}`, true],
    ['cut at the last slash that fits', `${'p/'.repeat(70)}${'n'.repeat(60)}`, false],
    ['Latin-1', 'caf\xe9', false],
    ['long Latin-1', `${'l'.repeat(200)}\xe9`, true],
    ['long UTF-8', `${'l'.repeat(200)}\xc3\xa9`, true],
    ['long enough for any PATH_MAX', 'd/'.repeat(3000) + 'f', true],
    ['newlines and quotes', 'a\nb"c\'d', false],
  ];
  for (const [title, path, pax] of paths) {
    it(`keeps a path: ${title}`, () => {
      assert.equal(readBack(path, {}).path, path);
      assert.equal(entryBlocks(entry(path, {}), undefined).blocks.length > 512, pax);
      assert.equal(readBack(path, { type: 'directory' }).path, `${path}/`);
      const link = readBack('link', { type: 'symlink', linkPath: path as BytePath });
      assert.equal(link.linkPath, path);
    });
  }

  it('marks a record as not UTF-8 only if it is not', () => {
    const { blocks } = entryBlocks(entry(`${'l'.repeat(200)}\xe9`, {}), undefined);
    assert.ok(blocks.includes('21 hdrcharset=BINARY\n'));
    assert.ok(!entryBlocks(entry(`${'l'.repeat(200)}\xc3\xa9`, {}), undefined).blocks.includes('hdrcharset'));
  });

  it('puts numbers that ustar cannot hold into pax records', () => {
    const read = readBack('f', { uid: 0xffff_ffff, gid: 0o10000000, mtimeSeconds: 8 ** 11, mode: 0o7777 });
    assert.equal(summary(read), '-7777 4294967295:2097152 0 f');
    assert.equal(read.mtimeSeconds, 8 ** 11);
    assert.equal(
      entryBlocks(entry('f', { uid: 0o7777777, mtimeSeconds: 8 ** 11 - 1 }), undefined).blocks.length,
      512,
    );
    const { blocks, dataSize } = entryBlocks(entry('f', { size: 8 ** 11 }), undefined);
    assert.equal(dataSize, 8 ** 11);
    assert.ok(blocks.includes('19 size=8589934592\n'));
  });

  it('puts an attribute whose name has an equals sign into libarchive’s record', () => {
    const xattrs = new Map([
      ['user.a=%b', Buffer.from([0, 1, 255])],
      ['user.c', Buffer.from([10, 0])],
    ]);
    const read = readBack('f', { xattrs }).xattrs!;
    assert.deepEqual(
      [...read].map(([name, value]) => [name, [...value]]),
      [
        ['user.a=%b', [0, 1, 255]],
        ['user.c', [10, 0]],
      ],
    );
  });

  it('writes every kind of file', () => {
    const kinds: [type: ArchiveEntry['type'], line: string][] = [
      ['file', '-0644 0:0 0 x'],
      ['directory', 'd0644 0:0 x/'],
      ['symlink', 'l0644 0:0 x -> t'],
      ['character', 'c0644 0:0 5,1048575 x'],
      ['block', 'b0644 0:0 5,1048575 x'],
      ['fifo', 'p0644 0:0 x'],
    ];
    for (const [type, line] of kinds) {
      const isDevice = type === 'character' || type === 'block';
      const linkPath = (type === 'symlink' ? 't' : '') as BytePath;
      const device = isDevice ? { deviceMajor: 5, deviceMinor: 1_048_575 } : {};
      assert.equal(summary(readBack('x', { type, linkPath, ...device })), line);
    }
    assert.equal(summary(readBack('', { type: 'directory' })), 'd0644 0:0 ./');
    assert.equal(summary(readArchive(linkBlocks(entry('b', { size: 5 }), 'a'))[0]!), 'h0644 0:0 b -> a');
  });

  it('is read back as it was given', () => {
    const name = fc.array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 300 }).map((bytes) => {
      const text = Buffer.from(bytes).toString('latin1').replaceAll('/', 'x');
      return text.replaceAll('\n', '/x');
    });
    fc.assert(
      fc.property(
        fc.record({
          path: name,
          linkPath: name,
          type: fc.constantFrom<ArchiveEntry['type']>('file', 'symlink', 'fifo'),
          mode: fc.nat(0o7777),
          uid: fc.nat(0xffff_ffff),
          gid: fc.nat(0xffff_ffff),
          mtimeSeconds: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
          mtimeNanoseconds: fc.nat(999_999_999),
        }),
        ({ path, linkPath, ...given }) => {
          const wanted = { ...given, linkPath: (given.type === 'symlink' ? linkPath : '') as BytePath };
          const read = readBack(path, wanted);
          assert.equal(read.path, path);
          for (const [key, value] of Object.entries(wanted))
            assert.equal(read[key as keyof ReadEntry], value, key);
        },
      ),
      { numRuns: 500 },
    );
  });
});
