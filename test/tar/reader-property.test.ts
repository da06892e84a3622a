import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError } from '../../src/errors.ts';
import type { EntryType } from '../../src/tar/entry.ts';
import {
  character,
  dir,
  fifo,
  file,
  gnuMagic,
  hardlink,
  header,
  longHeader,
  padded,
  paxHeader,
  sparse,
  symlink,
  tar,
  tarAs,
  ustarMagic,
  v7Magic,
  type Dialect,
  type Item,
  type Metadata,
} from '../support/archive.ts';
import { contentOf, readArchive, type ReadEntry } from '../support/read-archive.ts';
import { sparseFiles } from './sparse-files.ts';

interface Model {
  readonly type: EntryType;
  readonly path: Buffer;
  readonly target: Buffer;
  readonly content: Buffer;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: readonly [seconds: number, nanoseconds: number];
  readonly major: number;
  readonly minor: number;
  readonly xattrs: Readonly<Record<string, Uint8Array>>;
}

/** A name of any bytes but NUL. It does not end with a slash, which would make a file of v7 a directory. */
const name = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc
    .array(fc.oneof(fc.integer({ min: 1, max: 255 }), fc.constantFrom(0x2f, 0x61, 0x2e, 0xe9)), {
      minLength: 1,
      maxLength,
    })
    .map((bytes) => Buffer.from(bytes))
    .filter((bytes) => bytes.at(-1) !== 0x2f);

function models(dialect: Dialect): fc.Arbitrary<Model> {
  const rich = dialect === 'pax';
  const wide = dialect === 'pax' || dialect === 'gnu';
  const owner = wide ? fc.oneof(fc.nat(0xffff_ffff), fc.constant(0xffff_ffff)) : fc.nat(0o7777777);
  return fc.record({
    type: fc.constantFrom<EntryType>('file', 'file', 'directory', 'symlink', 'hardlink', 'character', 'fifo'),
    path: name(wide ? 300 : 100),
    target: name(wide ? 300 : 100),
    content: fc.uint8Array({ maxLength: 1500 }).map((bytes) => Buffer.from(bytes)),
    mode: fc.nat(0o7777),
    uid: owner,
    gid: owner,
    mtime: fc.tuple(
      wide ? fc.integer({ min: -(2 ** 33), max: 2 ** 35 }) : fc.nat(2 ** 31 - 1),
      rich ? fc.nat(999_999_999) : fc.constant(0),
    ),
    major: dialect === 'v7' ? fc.constant(0) : fc.nat(0o7777777),
    minor: dialect === 'v7' ? fc.constant(0) : fc.nat(0o7777777),
    xattrs: rich
      ? fc.dictionary(
          fc.constantFrom('user.a', 'user.b', 'security.capability'),
          fc.uint8Array({ minLength: 1, maxLength: 40 }),
        )
      : fc.constant({}),
  });
}

function itemOf(model: Model): Item {
  const { mode, uid, gid, mtime, xattrs } = model;
  const metadata: Metadata = { mode, uid, gid, mtime, xattrs };
  switch (model.type) {
    case 'file':
      return file(model.path, model.content, metadata);
    case 'directory':
      // A slash is appended, and must fit.
      return dir(model.path.subarray(0, 99), metadata);
    case 'symlink':
      return symlink(model.path, model.target, metadata);
    case 'hardlink':
      return hardlink(model.path, model.target, metadata);
    case 'fifo':
      return fifo(model.path, metadata);
    default:
      return character(model.path, model.major, model.minor, metadata);
  }
}

function expectedOf(model: Model): unknown {
  const isLink = model.type === 'symlink' || model.type === 'hardlink';
  const isDevice = model.type === 'character';
  const xattrs = Object.entries(model.xattrs).map(([key, value]) => [key, Buffer.from(value)]);
  let path = model.path.toString('latin1');
  if (model.type === 'directory') path = path.slice(0, 99).replace(/\/?$/, '/');
  return {
    type: model.type,
    path,
    linkPath: isLink ? model.target.toString('latin1') : '',
    mode: model.mode,
    uid: model.uid,
    gid: model.gid,
    size: model.type === 'file' ? model.content.length : 0,
    mtime: model.mtime,
    device: isDevice ? [model.major, model.minor] : [0, 0],
    xattrs,
    data: model.type === 'file' ? model.content : Buffer.alloc(0),
  };
}

function seen(entry: ReadEntry): unknown {
  const { type, path, linkPath, mode, uid, gid, size, data } = entry;
  return {
    type,
    path,
    linkPath,
    mode,
    uid,
    gid,
    size,
    data,
    mtime: [entry.mtimeSeconds, entry.mtimeNanoseconds],
    device: [entry.deviceMajor, entry.deviceMinor],
    xattrs: [...(entry.xattrs ?? [])].map(([key, value]) => [key, Buffer.from(value)]),
  };
}

/** Reads an archive; the property fails unless it ends with entries or a DlrootfsError. */
function readOrRefuse(bytes: Uint8Array, chunkSize: number): void {
  try {
    readArchive(bytes, chunkSize);
  } catch (error) {
    assert.ok(error instanceof DlrootfsError, error instanceof Error ? error.stack : String(error));
  }
}

function anyBytes(maxLength: number): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ maxLength }).map((value) => Buffer.from(value));
}

const chunkSize = fc.constantFrom(1, 3, 511, 512, 513, 1000, 4096, 1 << 20);

describe('a TarReader', () => {
  for (const dialect of ['v7', 'ustar', 'gnu', 'pax'] as const) {
    it(`reads back what was written, whatever it is, in chunks of any size (${dialect})`, () => {
      fc.assert(
        fc.property(fc.array(models(dialect), { maxLength: 5 }), chunkSize, (written, size) => {
          assert.deepEqual(
            readArchive(tarAs(dialect, ...written.map(itemOf)), size).map(seen),
            written.map(expectedOf),
          );
        }),
        { numRuns: 150 },
      );
    });
  }

  it('reads back sparse files of any shape in every format', () => {
    const shape = fc.tuple(
      fc.array(fc.tuple(fc.nat(5000), fc.uint8Array({ minLength: 1, maxLength: 600 })), { maxLength: 30 }),
      fc.nat(5000),
      fc.constantFrom('gnu', '0.0', '0.1', '1.0'),
    );
    fc.assert(
      fc.property(shape, chunkSize, ([parts, rest, format], size) => {
        let end = 0;
        const extents = parts.map(([gap, data]) => {
          const offset = end + gap;
          end = offset + data.length;
          return [offset, data] as const;
        });
        const content = Buffer.alloc(end + rest);
        for (const [offset, data] of extents) content.set(data, offset);
        const entries = readArchive(
          tar(sparse('s', content.length, extents, format), file('after', 'x')),
          size,
        );
        assert.ok(contentOf(entries[0]!).equals(content));
        assert.equal(entries[1]!.data.toString(), 'x');
      }),
      { numRuns: 150 },
    );
  });

  it('ends in entries or a DlrootfsError for any bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 3000 }), chunkSize, readOrRefuse), { numRuns: 300 });
  });

  it('ends in entries or a DlrootfsError for headers of any content with a good checksum', () => {
    const number = (length: number): fc.Arbitrary<number | Buffer> =>
      fc.oneof(fc.nat(3000), fc.integer(), anyBytes(length), fc.constantFrom(2 ** 40, 2 ** 53 - 1));
    const block = fc
      .record(
        {
          name: anyBytes(100),
          mode: number(8),
          uid: number(8),
          size: number(12),
          mtime: number(12),
          type: fc.constantFrom(...'0123456789xgXLKSDMVNAZ\0'.split('')),
          linkname: anyBytes(100),
          magic: fc.constantFrom(ustarMagic, gnuMagic, v7Magic, 'ustar\x0000tar'),
          major: number(8),
          prefix: anyBytes(155),
        },
        { requiredKeys: [] },
      )
      .map(header);
    const part = fc.oneof(
      { weight: 4, arbitrary: block },
      fc.uint8Array({ maxLength: 600 }).map((data) => padded(data)),
      fc.constantFrom(
        paxHeader([['size', '512']]),
        paxHeader([
          ['GNU.sparse.major', '1'],
          ['GNU.sparse.minor', '0'],
          ['GNU.sparse.realsize', '512'],
        ]),
        padded(Buffer.from('1\n0\n512\n')),
        paxHeader([['uid', '1']], 'g'),
        longHeader('L', 'x'),
      ),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), chunkSize, (parts, size) =>
        readOrRefuse(Buffer.concat(parts), size),
      ),
      { numRuns: 1500 },
    );
  });

  it('ends in entries or a DlrootfsError when one byte of a good archive is changed or it is cut', () => {
    const archive = tar(
      dir('d', { mtime: [5, 6] }),
      file('d/f', 'content', { xattrs: { 'user.a': 'b' } }),
      file('n'.repeat(300), 'x'),
      symlink('s', 'l'.repeat(120), { dialect: 'gnu' }),
      ...sparseFiles,
      character('c', 1, 3),
    );
    for (let at = 0; at < archive.length - 1024; at += 1) {
      const changed = Buffer.from(archive);
      changed[at] = changed[at]! ^ (1 << (at % 8));
      readOrRefuse(changed, 1 << 20);
    }
    fc.assert(
      fc.property(
        fc.nat(archive.length),
        fc.nat(archive.length - 1),
        fc.nat(255),
        chunkSize,
        (length, at, byte, size) => {
          const changed = Buffer.from(archive);
          changed[at] = byte;
          readOrRefuse(changed.subarray(0, length), size);
        },
      ),
      { numRuns: 500 },
    );
  });
});
