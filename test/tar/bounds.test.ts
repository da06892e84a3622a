import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { accessListBytes } from '../../src/tar/access-list.ts';
import { MalformedTarError } from '../../src/tar/entry.ts';
import { addGlobals, combinePax, parsePax, xattrsOf } from '../../src/tar/pax.ts';
import {
  file,
  gzip,
  header,
  longHeader,
  padded,
  paxHeader,
  paxRecord,
  raw,
  tar,
  type Item,
} from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { resultWithPeak } from '../support/peak-memory.ts';
import { Scratch, startProgram } from '../support/program.ts';
import { readArchive } from '../support/read-archive.ts';

const MiB = 2 ** 20;
const xattr = (name: string, value = ''): [string, string] => [`SCHILY.xattr.${name}`, value];
const global = (...records: [string, string][]): Item => raw(paxHeader(records, 'g'));

const many = (count: number, value = ''): [string, string][] =>
  Array.from({ length: count }, (_, index) => xattr(`user.${index}`, value));

const xattrBody = (count: number) => Buffer.concat(many(count).map(([key, value]) => paxRecord(key, value)));

const nameOf = (name: string) => [...parsePax(paxRecord(`LIBARCHIVE.xattr.${name}`, 'eA')).xattrs!.keys()][0];

const list = (count: number) => Array.from({ length: count }, (_, id) => `user:${id}:r--`).join(',');

const over = (before: ReadonlyMap<string, string>, records: readonly { name: string; value: string }[]) => {
  // The records of one header, and then their effect on those in force.
  const said = new Map<string, string | null>();
  for (const { name, value } of records) {
    const earlier = said.get(name);
    said.set(name, value === '' && earlier !== undefined && earlier !== '' ? null : value);
  }
  const after = new Map(before);
  for (const [name, value] of said) {
    if (value === null || (value === '' && (after.get(name) ?? '') !== '')) after.delete(name);
    else after.set(name, value);
  }
  return after;
};

const filled = (make: (index: number) => Buffer): Buffer => {
  const parts: Buffer[] = [];
  for (let size = 0, index = 0; ; index += 1) {
    const part = make(index);
    if (size + part.length > MiB) return Buffer.concat(parts);
    parts.push(part);
    size += part.length;
  }
};

const meta = (type: 'g' | 'x', body: Buffer): Item =>
  raw(header({ name: 'PaxHeaders.0/entry', type, size: body.length }), padded(body));

const repeat = (count: number, ...items: Item[]): Item => {
  const bytes = Buffer.concat(items.map((item) => item.encode('pax')));
  return { encode: () => Buffer.concat(Array.from({ length: count }, () => bytes)) };
};

describe('bounds of extended attributes', () => {
  test('16 global attributes are taken, in one header or in many; 17 are refused', () => {
    for (const archive of [
      tar(global(...many(16)), file('f')),
      tar(...many(16).map((each) => global(each)), file('f')),
    ])
      assert.equal(readArchive(archive)[0]!.xattrs!.size, 16);
    assert.throws(() => readArchive(tar(global(...many(17)), file('f'))), {
      name: 'MalformedTarError',
      message: /its global pax headers set more than 16 extended attributes/,
    });
    assert.throws(
      () => readArchive(tar(...many(17).map((each) => global(each)), file('f'))),
      MalformedTarError,
    );
  });

  test('one that is taken back makes room', () => {
    const items = Array.from({ length: 100 }, (_, index) => [
      global(xattr(`user.${index}`, 'x')),
      file(`f${index}`),
      global(xattr(`user.${index}`)),
    ]).flat();
    assert.deepEqual(
      readArchive(tar(...items)).map(({ xattrs }) => [...xattrs!.keys()].length),
      Array.from({ length: 100 }, () => 1),
    );
  });

  test('4 KiB of global names and values are taken, no more', () => {
    assert.equal(readArchive(tar(global(xattr('user.a', 'x'.repeat(4090))), file('f')))[0]!.xattrs!.size, 1);
    assert.throws(() => readArchive(tar(global(xattr('user.a', 'x'.repeat(4091))), file('f'))), {
      message: /of 4097 bytes, the limit is 4096/,
    });
  });

  test('an entry keeps what was in force when it was read', () => {
    const [first, second] = readArchive(
      tar(global(xattr('user.a', '1')), file('a'), global(xattr('user.a', '2')), file('b')),
    );
    assert.equal(Buffer.from(first!.xattrs!.get('user.a')!).toString(), '1');
    assert.equal(Buffer.from(second!.xattrs!.get('user.a')!).toString(), '2');
  });

  test('an entry has as many as Linux can list', () => {
    assert.equal(parsePax(xattrBody(9362)).xattrs!.size, 9362);
    assert.throws(() => parsePax(xattrBody(9363)), /its pax header set more than 9362 extended attributes/);
  });

  test('a name longer than Linux takes is not decoded', () => {
    assert.equal(nameOf('%41'.repeat(255)), 'A'.repeat(255));
    assert.equal(nameOf('%41'.repeat(256)), '%41'.repeat(256));
  });

  test('an access list has as many parts as fit into an attribute', () => {
    assert.equal(accessListBytes(list(8191))?.length, 65_532);
    assert.equal(accessListBytes(list(8192)), undefined);
    assert.equal(accessListBytes(`${'#,'.repeat(8191)}${list(1)}`), undefined);
  });
});

test('globals and own records, in any order, are as POSIX says: the last word counts, an empty one takes back', () => {
  const record = fc.record({
    name: fc.constantFrom('user.a', 'user.b', 'user.c'),
    value: fc.constantFrom('', 'x', 'y'),
  });
  const step = fc.record({ isGlobal: fc.boolean(), records: fc.array(record, { maxLength: 4 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      let globals = parsePax(Buffer.alloc(0));
      let model: ReadonlyMap<string, string> = new Map();
      for (const { isGlobal, records } of steps) {
        const parsed = parsePax(
          Buffer.concat(records.map(({ name, value }) => paxRecord(...xattr(name, value)))),
        );
        const expected = over(model, records);
        if (isGlobal) globals = addGlobals(globals, parsed);
        if (isGlobal) model = expected;
        const { xattrs } = combinePax(globals, isGlobal ? undefined : parsed);
        const entry = (xattrs && xattrsOf(xattrs)) ?? new Map<string, Uint8Array>();
        assert.deepEqual(
          new Map([...entry].map(([name, value]) => [name, Buffer.from(value).toString()])),
          expected,
        );
      }
    }),
    { numRuns: 2000 },
  );
});

/**
 * Headers that could cause more work or memory than their bytes, as many as fit into a blob of about 1 MiB.
 */
describe('hostile headers cost no more than their bytes', () => {
  /** Returns `make(0)`, `make(1)`, …, as many as fit into a meta header. */
  const names = filled((index) => paxRecord(`SCHILY.xattr.user.${index.toString(36)}`, ''));
  const lastMap = Buffer.from(`${MiB}\n${'0\n0\n'.repeat(MiB)}`);
  interface Row {
    readonly name: string;
    readonly archive: () => Buffer;
    readonly exitCode: 0 | 6;
  }
  const rows: readonly Row[] = [
    {
      name: 'global attributes, other names in each of 8 headers',
      archive: () =>
        tar(
          ...Array.from({ length: 8 }, (_, number) =>
            meta(
              'g',
              filled((index) => paxRecord(`SCHILY.xattr.user.${number}.${index.toString(36)}`, '')),
            ),
          ),
          file('f'),
        ),
      exitCode: 6,
    },
    {
      name: 'global attributes, then many entries',
      archive: () => tar(meta('g', names), repeat(50_000, file('f'))),
      exitCode: 6,
    },
    {
      name: 'the most global attributes, then many headers',
      archive: () =>
        tar(
          global(...Array.from({ length: 16 }, (_, index) => xattr(`user.${index}`))),
          repeat(50_000, global(['comment', 'x'])),
          file('f'),
        ),
      exitCode: 0,
    },
    {
      name: 'attributes of an entry',
      archive: () => tar(repeat(12, meta('x', names), file('f'))),
      exitCode: 6,
    },
    {
      name: 'access lists with millions of parts',
      archive: () =>
        tar(repeat(64, meta('x', paxRecord('SCHILY.acl.access', 'u:1:r,'.repeat(170_000))), file('f'))),
      exitCode: 0,
    },
    {
      name: 'access lists of comments',
      archive: () =>
        tar(repeat(64, meta('x', paxRecord('SCHILY.acl.default', '#,'.repeat(500_000))), file('f'))),
      exitCode: 0,
    },
    {
      name: 'names that are decoded',
      archive: () =>
        tar(repeat(64, meta('x', paxRecord(`LIBARCHIVE.xattr.${'%41'.repeat(300_000)}`, 'eA')), file('f'))),
      exitCode: 0,
    },
    {
      name: 'sparse maps in records',
      archive: () =>
        tar(
          repeat(
            32,
            meta(
              'x',
              Buffer.concat([
                paxRecord('GNU.sparse.size', '0'),
                paxRecord('GNU.sparse.map', `${'0,'.repeat(500_001)}0`),
              ]),
            ),
            file('f'),
          ),
        ),
      exitCode: 0,
    },
    {
      name: 'sparse maps in the data',
      archive: () =>
        tar(
          repeat(
            16,
            meta(
              'x',
              Buffer.concat([
                paxRecord('GNU.sparse.major', '1'),
                paxRecord('GNU.sparse.minor', '0'),
                paxRecord('GNU.sparse.realsize', '0'),
              ]),
            ),
            file('f', padded(lastMap)),
          ),
        ),
      exitCode: 0,
    },
    {
      name: 'long names that are replaced',
      archive: () =>
        tar(
          repeat(200, raw(longHeader('L', 'a/'.repeat(MiB / 2 - 1)))),
          raw(longHeader('L', 'g')),
          file('f'),
        ),
      exitCode: 0,
    },
    {
      name: 'link targets of a MiB',
      archive: () => tar(repeat(100, raw(longHeader('K', 'a'.repeat(MiB - 1))), file('f'))),
      exitCode: 0,
    },
  ];
  for (const { name, archive, exitCode } of rows) {
    test(name, async () => {
      const blob = gzip(archive());
      await using registry = await FakeRegistry.start();
      using scratch = new Scratch();
      registry.push('img', '1', { layers: [blob] });
      const running = startProgram([registry.reference('img', '1'), '-d', 'out', '--no-cache'], {
        cwd: scratch.path,
      });
      const { peak, ...result } = await resultWithPeak(running);
      assert.equal(result.exitCode, exitCode, result.stderr);
      assert.ok(blob.length < 1.5 * MiB, `${blob.length}`);
      assert.ok(peak > 0 && peak < 200 * 1024, `${peak} KiB`);
    });
  }
});
