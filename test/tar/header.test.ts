import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Header as OracleHeader } from 'tar';
import { MalformedTarError } from '../../src/tar/entry.ts';
import { checksumMatches, parseHeader, sumWords, type TarHeader } from '../../src/tar/header.ts';
import {
  checksumField,
  gnuMagic,
  header,
  ustarMagic,
  v7Magic,
  type HeaderFields,
} from '../support/archive.ts';

function octal(value: number): string {
  return value.toString(8);
}

function fields(given: HeaderFields): TarHeader {
  return parseHeader(header(given), 0);
}

function sumOf(block: Buffer): number {
  const copy = Uint8Array.from(block);
  return sumWords(new Int32Array(copy.buffer), 0);
}

describe('sumWords', () => {
  it('adds all bytes, also when they are all 255', () => {
    assert.equal(sumOf(Buffer.alloc(512)), 0);
    assert.equal(sumOf(Buffer.alloc(512, 1)), 512);
    assert.equal(sumOf(Buffer.alloc(512, 0xff)), 512 * 255);
    assert.equal(sumOf(Buffer.from(Array.from({ length: 512 }, (_, index) => index & 0xff))), 2 * 255 * 128);
  });
});

describe('checksumMatches', () => {
  const unsigned = header({ name: 'caf\xe9', uname: 'r\xf6\xf6t' });
  const total = Number.parseInt(checksumField(unsigned), 8);
  const high = [...unsigned].filter((byte, index) => byte >= 0x80 && (index < 148 || index >= 156)).length;
  const signed = total - 256 * high;
  const good: [title: string, checksum: string][] = [
    ['six digits, NUL, space', `${octal(total).padStart(6, '0')}\0 `],
    ['seven digits, NUL', `${octal(total).padStart(7, '0')}\0`],
    ['eight digits', octal(total).padStart(8, '0')],
    ['padded with spaces before', `${octal(total).padStart(6, ' ')}\0 `],
    ['padded with NULs after', octal(total).padEnd(8, '\0')],
    ['padded with spaces after', octal(total).padEnd(8, ' ')],
    ['a sum of signed bytes, as Sun’s tar made it', `${octal(signed).padStart(6, '0')}\0 `],
  ];
  for (const [title, checksum] of good) {
    it(`takes ${title}`, () => {
      const block = Buffer.from(unsigned);
      block.write(checksum, 148, 8, 'latin1');
      assert.ok(checksumMatches(block, 0, sumOf(block)));
    });
  }
  const bad: [title: string, checksum: string][] = [
    ['one too many', `${octal(total + 1).padStart(6, '0')}\0 `],
    ['one less', `${octal(total - 1).padStart(6, '0')}\0 `],
    ['an empty field', '\0'.repeat(8)],
    ['no number', 'checksum'],
  ];
  for (const [title, checksum] of bad) {
    it(`refuses ${title}`, () => {
      const block = Buffer.from(unsigned);
      block.write(checksum, 148, 8, 'latin1');
      assert.ok(!checksumMatches(block, 0, sumOf(block)));
    });
  }
  it('refuses every block with one byte changed', () => {
    for (let index = 0; index < 512; index += 1) {
      const block = Buffer.from(unsigned);
      block[index] = (block[index]! + 1) & 0xff;
      // Bytes after the digits of the checksum field do not count.
      if (index < 154 || index >= 156) assert.ok(!checksumMatches(block, 0, sumOf(block)), `byte ${index}`);
    }
  });
});

describe('parseHeader', () => {
  it('reads every field', () => {
    assert.deepEqual(
      fields({
        name: 'dev/tty',
        mode: 0o4755,
        uid: 1000,
        gid: 0xffff_ffff,
        size: 8 ** 11,
        mtime: -1,
        type: '3',
        linkname: 'x',
        major: 5,
        minor: 0o7777777,
      }),
      {
        type: 0x33,
        path: 'dev/tty',
        linkPath: 'x',
        mode: 0o4755,
        uid: 1000,
        gid: 0xffff_ffff,
        size: 8 ** 11,
        mtime: -1,
        deviceMajor: 5,
        deviceMinor: 0o7777777,
      },
    );
  });

  const name100 = 'n'.repeat(100);
  const paths: [title: string, given: HeaderFields, path: string][] = [
    ['a name of 100 bytes', { name: name100 }, name100],
    ['ustar’s prefix', { name: 'b', prefix: 'a' }, 'a/b'],
    ['a prefix of 155 bytes', { name: name100, prefix: 'p'.repeat(155) }, `${'p'.repeat(155)}/${name100}`],
    ['no prefix in v7', { name: 'b', prefix: 'a', magic: v7Magic }, 'b'],
    ['no prefix with an unknown magic', { name: 'b', prefix: 'a', magic: 'ustar00\0' }, 'b'],
    ['any version of ustar', { name: 'b', prefix: 'a', magic: 'ustar\x00zz' }, 'a/b'],
    [
      'star’s shorter prefix',
      { name: 'b', prefix: `${'p'.repeat(131)}7`, patches: [[508, 'tar\0']] },
      `${'p'.repeat(131)}/b`,
    ],
    [
      'GNU’s times, where ustar has the prefix',
      { name: 'b', prefix: '07777777777\x0007777777777\0', magic: gnuMagic },
      'b',
    ],
    ['GNU’s access time alone', { name: 'b', prefix: '07777777777\0', magic: gnuMagic }, 'b'],
    [
      'the prefix that Go before 1.8 wrote into GNU headers',
      { name: 'b', prefix: 'usr/share', magic: gnuMagic },
      'usr/share/b',
    ],
    ['… but not one that is no ASCII', { name: 'b', prefix: 'usr/sh\xc3\xa4re', magic: gnuMagic }, 'b'],
    ['bytes as they are', { name: Buffer.from([0xff, 0x0a, 0xe9]) }, '\xff\n\xe9'],
    ['a name up to its NUL', { name: 'a\0b' }, 'a'],
    ['no name', { name: '' }, ''],
  ];
  for (const [title, given, path] of paths) {
    it(`takes ${title}`, () => assert.equal(fields(given).path, path));
  }

  for (const name of ['mode', 'uid', 'gid', 'size', 'mtime'] as const) {
    it(`refuses a ${name} that is no number`, () => {
      assert.throws(
        () => fields({ [name]: '\x1bwater' }),
        (error: Error) => {
          assert.ok(error instanceof MalformedTarError);
          assert.match(error.message, new RegExp(`its ${name} "\\\\x1bwater`));
          return true;
        },
      );
    });
  }

  it('looks at device numbers of devices only', () => {
    assert.equal(fields({ type: '0', major: 'garbage!' }).deviceMajor, 0);
    assert.throws(() => fields({ type: '4', major: 'garbage!' }), MalformedTarError);
    assert.equal(fields({ type: '3', major: 5, magic: v7Magic }).deviceMajor, 0);
  });

  it('agrees with the tar package on numbers and type', () => {
    const cases: HeaderFields[] = [
      { name: 'a/b', mode: 0o1777, uid: 1, gid: 2, size: 3, mtime: 4, type: '0' },
      {
        name: 'a',
        mode: 0o755,
        uid: 2 ** 31,
        gid: 2 ** 32 - 1,
        size: 0,
        mtime: 2 ** 33,
        type: '5',
        magic: gnuMagic,
      },
      { name: 'c', type: '3', major: 10, minor: 229, magic: ustarMagic },
    ];
    for (const given of cases) {
      const block = header(given);
      const oracle = new OracleHeader(block);
      const own = parseHeader(block, 0);
      assert.ok(oracle.cksumValid);
      assert.deepEqual(
        [own.path, own.mode, own.uid, own.gid, own.size, own.mtime, String.fromCharCode(own.type)],
        [
          oracle.path,
          oracle.mode,
          oracle.uid,
          oracle.gid,
          oracle.size,
          oracle.mtime!.getTime() / 1000,
          oracle.typeKey,
        ],
      );
    }
  });

  it('reads what the tar package writes', () => {
    const oracle = new OracleHeader({
      path: `${'d'.repeat(60)}/${'f'.repeat(60)}`,
      mode: 0o640,
      uid: 65534,
      gid: 2 ** 31,
      size: 8 ** 11 + 1,
      mtime: new Date(1_234_567_000),
      type: 'File',
    });
    oracle.encode();
    const own = parseHeader(oracle.block!, 0);
    assert.ok(checksumMatches(oracle.block!, 0, sumOf(oracle.block!)));
    assert.deepEqual(
      [own.path, own.mode, own.uid, own.gid, own.size, own.mtime],
      [oracle.path, 0o640, 65534, 2 ** 31, 8 ** 11 + 1, 1_234_567],
    );
  });
});
