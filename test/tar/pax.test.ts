import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError } from '../../src/errors.ts';
import { bytePath, MalformedTarError } from '../../src/tar/entry.ts';
import { parsePax, type PaxRecords } from '../../src/tar/pax.ts';
import { paxRecord, type Bytes } from '../support/archive.ts';

function records(...pairs: readonly (readonly [key: string, value: Bytes])[]): PaxRecords {
  return parsePax(Buffer.concat(pairs.map(([key, value]) => paxRecord(key, value))));
}

describe('parsePax', () => {
  const values: [key: string, value: string, field: keyof PaxRecords, result: unknown][] = [
    ['path', 'a/b', 'path', 'a/b'],
    ['path', 'a\nb = c\n', 'path', 'a\nb = c\n'],
    ['path', 'caf\u00e9', 'path', 'caf\xc3\xa9'],
    ['linkpath', '../x', 'linkPath', '../x'],
    ['size', '9007199254740991', 'size', Number.MAX_SAFE_INTEGER],
    ['uid', '4294967295', 'uid', 4_294_967_295],
    ['gid', '0', 'gid', 0],
    ['mtime', '1700000000.123456789', 'mtime', { seconds: 1_700_000_000, nanoseconds: 123_456_789 }],
    ['mtime', '-1.5', 'mtime', { seconds: -2, nanoseconds: 500_000_000 }],
    ['SCHILY.devmajor', '259', 'deviceMajor', 259],
    ['SCHILY.devminor', '1048575', 'deviceMinor', 1_048_575],
    ['path', '', 'path', null],
    ['size', '', 'size', null],
    ['comment', 'anything', 'path', undefined],
    ['atime', 'not looked at', 'mtime', undefined],
    ['hdrcharset', 'BINARY', 'path', undefined],
  ];
  for (const [key, value, field, result] of values) {
    it(`takes ${key}=${JSON.stringify(value)}`, () => assert.deepEqual(records([key, value])[field], result));
  }

  it('takes any bytes in a path but NUL', () => {
    const bytes = Buffer.from(Array.from({ length: 255 }, (_, index) => index + 1));
    assert.equal(records(['path', bytes]).path, bytes.toString('latin1'));
  });

  it('lets the last record of a key count', () => {
    assert.equal(records(['path', 'a'], ['path', 'b']).path, 'b');
    assert.equal(records(['path', 'a'], ['path', '']).path, null);
  });

  it('takes extended attributes with any bytes', () => {
    const value = Buffer.from([1, 0, 0, 2, 0, 0x0a, 0x3d, 0xff]);
    const { xattrs } = records(
      ['SCHILY.xattr.security.capability', value],
      ['SCHILY.xattr.user.\xe9', 'x'],
      ['SCHILY.xattr.user.empty', ''],
    );
    assert.deepEqual(
      [...xattrs!].map(([name, bytes]) => [name, Buffer.from(bytes!)]),
      [
        ['security.capability', value],
        ['user.\xc3\xa9', Buffer.from('x')],
        ['user.empty', Buffer.alloc(0)],
      ],
    );
  });

  it('cuts an attribute’s name at the first equals sign, as all readers do', () => {
    const { xattrs } = records(['SCHILY.xattr.user.a', 'b=c']);
    assert.deepEqual(Buffer.from(xattrs!.get('user.a')!).toString(), 'b=c');
  });

  it('takes libarchive’s attributes: name percent-encoded, value base64 with or without padding', () => {
    const { xattrs } = records(
      ['LIBARCHIVE.xattr.user.a%3Db%25', 'AAEC/w'],
      ['LIBARCHIVE.xattr.user.c', 'eA=='],
    );
    assert.deepEqual(
      [...xattrs!].map(([name, bytes]) => [name, [...bytes!]]),
      [
        ['user.a=b%', [0, 1, 2, 255]],
        ['user.c', [0x78]],
      ],
    );
  });

  it('decodes escapes of GNU tar and bsdtar in names of attributes (xattr05 of GNU tar’s tests)', () => {
    const body = paxRecord('SCHILY.xattr.user.%3DNAME%253D%3D%20', 'value');
    const nameIn = (path: string): string[] => [...parsePax(body, bytePath(path)).xattrs!.keys()];
    for (const path of ['./PaxHeaders/f', 'PaxHeaders.4711/f', 'a/PaxHeader/f', 'PaxHeader/f'])
      assert.deepEqual(nameIn(path), ['user.=NAME%3D= '], path);
    for (const path of ['PaxHeaders.0/f', 'PaxHeaders.X/f', '././@PaxHeader', 'NoPaxHeaders/f', ''])
      assert.deepEqual(nameIn(path), ['user.%3DNAME%253D%3D%20'], path);
  });

  it('takes the context that tar --selinux writes, with the NUL that it has on disk', () => {
    const context = 'system_u:object_r:bin_t:s0';
    const key = 'RHT.security.selinux';
    assert.deepEqual(
      Buffer.from(records([key, context]).xattrs!.get('security.selinux')!).toString('latin1'),
      `${context}\0`,
    );
    assert.equal(records([key, context], [key, '']).xattrs!.get('security.selinux'), null);
  });

  it('takes an attribute back that the same header set', () => {
    assert.equal(
      records(['SCHILY.xattr.user.a', 'x'], ['SCHILY.xattr.user.a', '']).xattrs!.get('user.a'),
      null,
    );
  });

  it('collects GNU.sparse records of all formats', () => {
    assert.deepEqual(
      records(
        ['GNU.sparse.size', '100'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.offset', '0'],
        ['GNU.sparse.numbytes', '1'],
        ['GNU.sparse.offset', '50'],
        ['GNU.sparse.numbytes', '2'],
      ).sparse,
      { major: undefined, minor: undefined, name: undefined, size: 100, blocks: 2, map: [0, 1, 50, 2] },
    );
    assert.deepEqual(records(['GNU.sparse.name', 'f'], ['GNU.sparse.map', '0,1,50,2']).sparse, {
      major: undefined,
      minor: undefined,
      name: 'f',
      size: undefined,
      blocks: undefined,
      map: [0, 1, 50, 2],
    });
    assert.deepEqual(
      records(['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0'], ['GNU.sparse.realsize', '7']).sparse,
      { major: '1', minor: '0', name: undefined, size: 7, blocks: undefined, map: [] },
    );
  });

  const bad: [title: string, body: Bytes][] = [
    ['no length', 'path=x\n'],
    ['no blank', '9'],
    ['a length of 0', '0 path=x\n'],
    ['a negative length', '-9 path=x\n'],
    ['a length beyond the body', '99 path=x\n'],
    ['a length one too small', '9 path=xy\n'],
    ['a length that leaves only the number', '2 path=x\n'],
    ['a length of thirty digits', `${'0'.repeat(28)}10 path=x\n`],
    ['an absurd length', '99999999999999999999 path=x\n'],
    ['no newline', '9 path=x '],
    ['no equals sign', '7 path\n'],
    ['no key', '5 =x\n'],
    ['an equals sign only in the next record', '7 path\n9 path=x\n'],
    ['trailing NULs', '9 path=x\n\0\0\0'],
    ['a trailing newline', '9 path=x\n\n'],
    ['a NUL in a path', paxRecord('path', 'a\0b')],
    ['a NUL in a link path', paxRecord('linkpath', '\0')],
    ['a NUL in a sparse name', paxRecord('GNU.sparse.name', 'x\0')],
    ['a NUL in a key', paxRecord('SCHILY.xattr.us\0er', 'x')],
    ['a size that is no number', paxRecord('size', '0x10')],
    ['a size beyond 2^53', paxRecord('size', '9223372036854775807')],
    ['an owner that is a name', paxRecord('uid', 'root')],
    ['a time that is none', paxRecord('mtime', '999xxx.4')],
    ['an attribute without a name', paxRecord('SCHILY.xattr.', 'x')],
    ['base64 that is none', paxRecord('LIBARCHIVE.xattr.user.a', '***')],
    ['a sparse length first', paxRecord('GNU.sparse.numbytes', '1')],
    [
      'two sparse offsets in turn',
      Buffer.concat([paxRecord('GNU.sparse.offset', '1'), paxRecord('GNU.sparse.offset', '2')]),
    ],
    ['a hole in a sparse map', paxRecord('GNU.sparse.map', '1,,2')],
    ['a comma at the end of a sparse map', paxRecord('GNU.sparse.map', '1,2,')],
    ['a sparse record of no known kind', paxRecord('GNU.sparse.dumpdir', 'x')],
  ];
  for (const [title, body] of bad) {
    it(`refuses ${title}`, () => assert.throws(() => parsePax(Buffer.from(body)), MalformedTarError));
  }

  it('gives a value or a DlrootfsError for any bytes', () => {
    const part = fc.oneof(
      fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
      fc
        .tuple(
          fc.constantFrom(
            'path',
            'size',
            'mtime',
            'uid',
            'SCHILY.xattr.user.x',
            'GNU.sparse.map',
            'GNU.sparse.offset',
            '',
          ),
          fc.oneof(
            fc.uint8Array({ maxLength: 12 }),
            fc.constantFrom('', '1', '-1.5', '1,2', 'x').map((text) => Buffer.from(text)),
          ),
        )
        .map(([key, value]) => paxRecord(key, value)),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
        try {
          parsePax(Buffer.concat(parts));
        } catch (error) {
          assert.ok(error instanceof DlrootfsError, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });
});
