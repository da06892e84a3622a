import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { accessListBytes, accessListText, modeWithList } from '../../src/tar/access-list.ts';
import { file, paxHeader, raw, tar } from '../support/archive.ts';
import { readArchive } from '../support/read-archive.ts';

/** A list with numeric ids, in the format of getfacl -n. */
const known = 'user::rw-,user:1:rwx,user:1234:rw-,group::r--,group:60:r--,mask::rwx,other::r--';

const reread = (text: string): string | undefined => accessListText(accessListBytes(text)!);
const mode = (text: string): string => modeWithList(0o6644, accessListBytes(text)!).toString(8);
const word = (permissions: number): string =>
  ['r', 'w', 'x'].map((right, index) => ((permissions >> (2 - index)) & 1 ? right : '-')).join('');
/** Returns the reader's result for pax records. */
const read = (...records: readonly (readonly [string, string | Uint8Array])[]): [string, string][] =>
  [...(readArchive(tar(raw(paxHeader(records)), file('f')))[0]!.xattrs ?? [])].map(([name, value]) => [
    name,
    Buffer.from(value).toString('latin1'),
  ]);

describe('an access list', () => {
  const texts: [writer: string, text: string][] = [
    ['numbers, as we write them', known],
    ['GNU tar --numeric-owner', `${known.replaceAll(',', '\n')}\n`],
    [
      'bsdtar',
      'user::rw-,group::r--,other::r--,user:daemon:rwx:1,user:1234:rw-,group:games:r--:60,mask::rwx',
    ],
    ['short words and Solaris', 'u::rw,u:1:rwx,u:1234:rw,g::r,g:60:r,m:rwx,o:r--'],
    [
      'comments, blanks and empty lines',
      `# file: x\n\n user::rw-\t#effective:r--\n${known.slice(10).replaceAll(',', '\n')}`,
    ],
    ['default: before each part', known.replaceAll(/(^|,)/g, '$1default:')],
  ];
  for (const [writer, text] of texts) {
    it(`is read as written by ${writer}`, () => assert.equal(accessListText(accessListBytes(text)!), known));
  }

  it('has the bytes that the kernel wants', () => {
    assert.equal(
      accessListBytes('user::rw-,user:5:r-x,group::---,mask::rwx,other::--x')!.toString('hex'),
      [
        '02000000',
        '01000600ffffffff',
        '0200050005000000',
        '04000000ffffffff',
        '10000700ffffffff',
        '20000100ffffffff',
      ].join(''),
    );
  });

  it('takes a number before a name, and no name alone', () => {
    assert.equal(reread('user:daemon:r--:99'), 'user:99:r--');
    assert.equal(accessListBytes('user:root:r--'), undefined);
  });

  for (const text of [
    '',
    '\n,\n',
    'user',
    'user:',
    'user::',
    'user::rwxr',
    'user::7',
    'nobody::rwx',
    'mask:5:rwx',
    'user:nobody-knows:rwx',
    'group:daemon:rwx',
    'user:4294967295:rwx',
    'user:99999999999:rwx',
    'user:-1:rwx',
    'user:1:rwx:1:1',
    `${known},x`,
  ]) {
    it(`is not ${JSON.stringify(text)}`, () => assert.equal(accessListBytes(text), undefined));
  }

  const rights = fc.integer({ min: 0, max: 7 });
  const id = fc.integer({ min: 0, max: 0xffff_fffe });
  const list = fc
    .record({
      own: fc.tuple(rights, rights, rights, rights),
      users: fc.uniqueArray(fc.tuple(id, rights), { selector: ([who]) => who, maxLength: 4 }),
      groups: fc.uniqueArray(fc.tuple(id, rights), { selector: ([who]) => who, maxLength: 4 }),
    })
    .map(({ own, users, groups }) => {
      const named = (tag: string, parts: readonly (readonly [number, number])[]): string[] =>
        parts.toSorted(([one], [other]) => one - other).map(([who, may]) => `${tag}:${who}:${word(may)}`);
      return [
        `user::${word(own[0])}`,
        ...named('user', users),
        `group::${word(own[1])}`,
        ...named('group', groups),
        `mask::${word(own[2])}`,
        `other::${word(own[3])}`,
      ];
    });

  it('comes out of its bytes as it went in, whatever the order of its parts', () => {
    fc.assert(
      fc.property(
        list.chain((parts) =>
          fc.tuple(fc.constant(parts), fc.shuffledSubarray(parts, { minLength: parts.length })),
        ),
        fc.constantFrom(',', '\n', ',\n'),
        ([parts, shuffled], separator) => {
          const bytes = accessListBytes(shuffled.join(separator))!;
          assert.equal(accessListText(bytes), parts.join(','));
          assert.equal(bytes.length, 4 + 8 * parts.length);
        },
      ),
    );
  });

  it('gives a value for any text and any bytes', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc
            .array(fc.constantFrom('user', ':', 'g', '1', 'rwx', ',', '\n', '#', 'x', '4294967296'))
            .map((all) => all.join('')),
        ),
        (text) => {
          const bytes = accessListBytes(text);
          if (bytes) assert.notEqual(accessListText(bytes), undefined);
        },
      ),
      { numRuns: 1000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        const text = accessListText(bytes);
        if (text !== undefined) assert.ok(accessListBytes(text));
        assert.ok(modeWithList(0o644, bytes) <= 0o7777);
      }),
      { numRuns: 1000 },
    );
  });

  it('says the mode: its mask stands for the group', () => {
    assert.equal(mode('user::rwx,user:1:rwx,group::r--,mask::rw-,other::--x'), '6761');
    assert.equal(mode('user::rw-,group::r-x,other::---'), '6650');
    assert.equal(modeWithList(0o6644, Buffer.from('no list')).toString(8), '6644');
  });
});

describe('the reader', () => {
  const numbers = 'user::rw-,user:5:r-x,group::---,mask::rwx,other::--x';
  const bytes = accessListBytes(numbers)!;
  const names = 'user::rw-,user:five:r-x,group::---,mask::rwx,other::--x';
  const latin1 = bytes.toString('latin1');

  it('makes attributes of lists with numbers', () => {
    assert.deepEqual(read(['SCHILY.acl.access', numbers], ['SCHILY.acl.default', numbers]), [
      ['system.posix_acl_access', latin1],
      ['system.posix_acl_default', latin1],
    ]);
  });

  it('keeps lists with names, which only the image knows', () => {
    assert.deepEqual(read(['SCHILY.acl.access', names]), [['SCHILY.acl.access', names]]);
  });

  it('takes the attribute where both are there, in any order', () => {
    const attribute = ['SCHILY.xattr.system.posix_acl_access', bytes] as const;
    for (const text of [names, numbers]) {
      for (const records of [
        [['SCHILY.acl.access', text] as const, attribute],
        [attribute, ['SCHILY.acl.access', text] as const],
      ]) {
        assert.deepEqual(read(...records), [['system.posix_acl_access', latin1]]);
      }
    }
  });

  it('lets an empty list take one back, also of a global header', () => {
    assert.deepEqual(read(['SCHILY.acl.access', numbers], ['SCHILY.acl.access', '']), []);
    assert.deepEqual(read(['SCHILY.acl.access', names], ['SCHILY.acl.access', '']), []);
    const archive = tar(
      raw(paxHeader([['SCHILY.acl.access', numbers]], 'g')),
      file('a'),
      raw(paxHeader([['SCHILY.acl.access', '']])),
      file('b'),
    );
    assert.deepEqual(
      readArchive(archive).map(({ xattrs }) => xattrs?.size ?? 0),
      [1, 0],
    );
  });
});
