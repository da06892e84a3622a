import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MalformedTarError } from '../../src/tar/entry.ts';
import { maxMetaSize, TarReader } from '../../src/tar/reader.ts';
import {
  character,
  file,
  gnuMagic,
  header,
  longHeader,
  paxHeader,
  raw,
  symlink,
  tar,
} from '../support/archive.ts';
import { chunked, readArchive } from '../support/read-archive.ts';

const long = 'l'.repeat(300);

describe('a TarReader refuses', () => {
  const good = file('before', 'content');
  const table: [title: string, archive: Buffer, message: RegExp][] = [
    [
      'a wrong checksum',
      tar(good, raw(header({ name: 'f', checksum: '000000\0 ' }))),
      /^layer test: header at byte 1024, after before: .*checksum/,
    ],
    ['garbage', Buffer.from('garbage '.repeat(64)), /^layer test: header at byte 0: .*checksum/],
    [
      'a gzip stream in place of an archive',
      Buffer.concat([Buffer.from([0x1f, 0x8b, 8]), Buffer.alloc(509, 7)]),
      /checksum/,
    ],
    ['one block of zeros, then a header', tar(good, raw(Buffer.alloc(512)), good), /half of an end mark/],
    [
      'an archive cut within a header',
      tar(good).subarray(0, 1024 + 100),
      /^layer test: header at byte 1024, after before: .*within a header/,
    ],
    ['an archive cut within data', tar(good).subarray(0, 515), /^layer test: before: .*within its data/],
    [
      'an archive cut within padding',
      tar(good).subarray(0, 600),
      /^layer test: before: .*within the padding/,
    ],
    [
      'an archive cut before the padding',
      tar(good).subarray(0, 519),
      /^layer test: before: .*within the padding/,
    ],
    ['an archive cut within a pax header', paxHeader([['path', long]]).subarray(0, 600), /within its data/],
    [
      'a pax header with nothing after it',
      paxHeader([['path', 'x']]),
      /after a meta header, without the entry/,
    ],
    ['a pax header before the end mark', tar(raw(paxHeader([['path', 'x']]))), /without the entry/],
    ['a long name before the end mark', tar(raw(longHeader('L', 'x'))), /without the entry/],
    ['a long link before the end mark', tar(raw(longHeader('K', 'x'))), /without the entry/],
    [
      'a pax header beyond the limit',
      tar(raw(header({ name: 'p', type: 'x', size: maxMetaSize + 1 }))),
      /^layer test: p: .*limit/,
    ],
    [
      'a long name beyond the limit',
      tar(raw(header({ name: 'p', type: 'L', size: 2 ** 40 }))),
      /^layer test: p: .*limit/,
    ],
    ['a negative size', tar(raw(header({ name: 'f', size: -1 }))), /^layer test: f: its size -1 is negative/],
    [
      'a negative size in a pax record',
      tar(raw(paxHeader([['size', '-512']])), file('f')),
      /^layer test: f: .*negative/,
    ],
    ['a negative size of a meta header', tar(raw(header({ name: 'p', type: 'x', size: -1 }))), /negative/],
    [
      'a size beyond 2^53',
      tar(
        raw(
          header({ name: 'f', size: Buffer.from([0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]) }),
        ),
      ),
      /^layer test: f: its size .*too large/,
    ],
    [
      'a size beyond 2^53 in a pax record',
      tar(raw(paxHeader([['size', '18446744073709551616']])), file('f')),
      /too large/,
    ],
    [
      'a size of 2^53 - 1 whose data does not come',
      tar(raw(header({ name: 'f', size: 2 ** 53 - 1 }))),
      /^layer test: f: .*within its data/,
    ],
    [
      'a size that is no number',
      tar(raw(header({ name: 'f', size: 'many' }))),
      /^layer test: f: its size "many/,
    ],
    [
      'an owner beyond 32 bits',
      tar(raw(header({ name: 'f', uid: 2 ** 32 }))),
      /^layer test: f: its uid 4294967296/,
    ],
    [
      'a group far below zero',
      tar(raw(paxHeader([['gid', '-2147483649']])), file('f')),
      /^layer test: f: its gid/,
    ],
    ['a device number beyond 32 bits', tar(character('c', 0, 2 ** 32)), /^layer test: c: its device number/],
    ['a negative device number', tar(character('c', -1, 0)), /^layer test: c: its device number/],
    ['a NUL in a pax path', tar(raw(paxHeader([['path', 'a\0b']])), file('f')), /path has a NUL/],
    [
      'a NUL in an attribute’s name from libarchive',
      tar(raw(paxHeader([['LIBARCHIVE.xattr.user.%00', 'eA']])), file('f')),
      /^layer test: f: .*NUL/,
    ],
    [
      'a symlink to nothing',
      tar(raw(header({ name: 's', type: '2' }))),
      /^layer test: s: it links to nothing/,
    ],
    [
      'a hard link to nothing',
      tar(raw(header({ name: 'h', type: '1' }))),
      /^layer test: h: it links to nothing/,
    ],
    [
      'a part of another volume (M)',
      tar(raw(header({ name: 'm', type: 'M', magic: gnuMagic }))),
      /^layer test: m: .*volume/,
    ],
    ['a global path', tar(raw(paxHeader([['path', 'x']], 'g')), file('f')), /for all entries/],
    ['a global link target', tar(raw(paxHeader([['linkpath', 'x']], 'g')), file('f')), /for all entries/],
    ['a global size', tar(raw(paxHeader([['size', '512']], 'g')), file('f')), /for all entries/],
    [
      'a global sparse map',
      tar(raw(paxHeader([['GNU.sparse.map', '0,1']], 'g')), file('f')),
      /for all entries/,
    ],
  ];
  for (const [title, archive, message] of table) {
    it(title, () => {
      for (const size of [1 << 20, 100]) {
        assert.throws(
          () => readArchive(archive, size),
          (error: Error) => {
            assert.ok(error instanceof MalformedTarError, error.stack);
            assert.match(error.message, message);
            return true;
          },
        );
      }
    });
  }

  it('an archive cut anywhere but at a block border before a header', () => {
    const items = [file('a', 'x'.repeat(700)), file(long, 'hi'), symlink('s', long)];
    const archive = tar(...items);
    const borders = new Set<number>([0, archive.length, archive.length - 512]);
    for (let at = 0, index = 0; index <= items.length; index += 1) {
      borders.add(at);
      at += items[index]?.encode('pax').length ?? 0;
    }
    for (let length = 0; length <= archive.length; length += length > archive.length - 1024 ? 127 : 1) {
      const afterEnd = length > archive.length - 512;
      let failed = false;
      try {
        readArchive(archive.subarray(0, length));
      } catch (error) {
        assert.ok(error instanceof MalformedTarError);
        failed = true;
      }
      assert.equal(failed, !borders.has(length), `${length} bytes${afterEnd ? ', in the end mark' : ''}`);
    }
  });

  it('to go on after an error', () => {
    const reader = new TarReader(chunked(tar(raw(header({ name: 'f', size: -1 })), file('g'))), 'layer test');
    assert.throws(() => reader.next(), MalformedTarError);
    assert.throws(() => reader.next(), MalformedTarError);
    assert.throws(() => reader.data(), MalformedTarError);
  });

  it('to print names raw', () => {
    assert.throws(
      () => readArchive(tar(raw(header({ name: 'a\x1b[31m\r\nevil\u202e', size: -1 })))),
      (error: Error) =>
        /a\\x1b\[31m\\x0d\\x0aevil\\u\{202e\}/.test(error.message) && !/[\p{Cc}\u202e]/u.test(error.message),
    );
  });

  it('nothing that the source throws: it passes on as it is', () => {
    const broken = new Error('the network is gone');
    const bytes = tar(file('f', 'x'.repeat(2000)));
    let calls = 0;
    const reader = new TarReader(
      {
        read: () => {
          calls += 1;
          if (calls > 1) throw broken;
          return bytes.subarray(0, 1000);
        },
      },
      'layer test',
    );
    assert.equal(reader.next()?.path, 'f');
    assert.equal(reader.data()?.length, 488);
    assert.throws(() => reader.data(), broken);
    assert.throws(() => reader.next(), broken);
  });
});
