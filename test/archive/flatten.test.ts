import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { DestinationError, IntegrityError, UsageError } from '../../src/errors.ts';
import { compressionFor } from '../../src/archive/flatten.ts';
import { nothingLost } from '../../src/rootfs/not-restored.ts';
import {
  dir,
  file,
  hardlink,
  opaque,
  raw,
  symlink,
  tar,
  tarAs,
  whiteout,
  type Item,
} from '../support/archive.ts';
import { readArchive, summary } from '../support/read-archive.ts';
import { Collector, flatten, flattened, layersOf, spool } from './harness.ts';

/** Returns the flattened entries, one per line, with the content of files. */
async function lines(...layers: readonly (readonly Item[])[]): Promise<string[]> {
  const archive = await flattened(layers.map((items) => tar(...items)));
  return readArchive(archive).map((entry) => {
    const content = entry.type === 'file' ? ` "${entry.data.toString('latin1')}"` : '';
    return `${summary(entry).replace(/ 0:0/, '')}${content}`;
  });
}

describe('the flattened archive', () => {
  const table: [title: string, layers: readonly (readonly Item[])[], expected: readonly string[]][] = [
    [
      'has directories before what is in them, names by their bytes',
      [[file('b/z', '1'), file('b-a', '2'), file('b/a', '3'), dir('b'), file('B', '4'), file('\u00e9', '5')]],
      [
        '-0644 1 B "4"',
        'd0755 b/',
        '-0644 1 b/a "3"',
        '-0644 1 b/z "1"',
        '-0644 1 b-a "2"',
        '-0644 1 \xc3\xa9 "5"',
      ],
    ],
    [
      'keeps the old content under a name whose hard-linked sibling was rewritten (go-containerregistry#2002)',
      [[file('a', 'old'), hardlink('b', 'a')], [file('a', 'new')]],
      ['-0644 3 a "new"', '-0644 3 b "old"'],
    ],
    [
      'keeps the content of a hard link whose first name was removed',
      [[file('a', 'text'), hardlink('b', 'a'), hardlink('c', 'b')], [whiteout('a')]],
      ['-0644 4 b "text"', 'h0644 c -> b'],
    ],
    [
      'gives the content to the first name in its own order',
      [[file('z', 'text'), hardlink('a', 'z')]],
      ['-0644 4 a "text"', 'h0644 z -> a'],
    ],
    [
      'links across layers',
      [[file('a', 'text')], [hardlink('d/b', 'a')], [whiteout('a')]],
      ['d0755 d/', '-0644 4 d/b "text"'],
    ],
    [
      'hides what is below an opaque directory, wherever the marker stands (go-containerregistry#1897, #2029)',
      [
        [file('d/old', '1'), file('d/s/old', '2')],
        [file('d/new', '3'), opaque('d')],
      ],
      ['d0755 d/', '-0644 1 d/new "3"'],
    ],
    [
      'takes entries for the root as they come (go-containerregistry#2399)',
      [[dir('./', { mode: 0o700 }), file('./a', '1')], [dir('.', { mode: 0o711 })]],
      ['d0711 ./', '-0644 1 a "1"'],
    ],
    ['leaves the root out where no entry made it', [[file('a', '1')]], ['-0644 1 a "1"']],
    ['is empty for no layers', [], []],
    [
      'replaces every kind by every other',
      [
        [dir('a'), file('a/x', '1'), file('b', '2'), symlink('c', 'b')],
        [file('a', '3'), symlink('b', 'a'), dir('c')],
      ],
      ['-0644 1 a "3"', 'l0777 b -> a', 'd0755 c/'],
    ],
    [
      'follows symlinks to directories, inside the root',
      [
        [symlink('lib', '/usr/lib'), symlink('up', '../../../usr')],
        [file('lib/x', '1'), file('up/y', '2')],
      ],
      [
        'l0777 lib -> /usr/lib',
        'l0777 up -> ../../../usr',
        'd0755 usr/',
        'd0755 usr/lib/',
        '-0644 1 usr/lib/x "1"',
        '-0644 1 usr/y "2"',
      ],
    ],
    [
      'has no whiteouts and none of aufs’s files, but the files that hard links have there',
      [
        [
          file('.wh..wh.aufs'),
          dir('.wh..wh.plnk'),
          file('.wh..wh.plnk/12.34', 'shared'),
          hardlink('one', '.wh..wh.plnk/12.34'),
          hardlink('two', '.wh..wh.plnk/12.34'),
          whiteout('gone'),
        ],
      ],
      ['-0644 6 one "shared"', 'h0644 two -> one'],
    ],
    [
      'adds a hard link’s attributes and nothing else of it',
      [[file('a', '1', { mode: 0o755 }), hardlink('b', 'a', { mode: 0o600, uid: 5 })]],
      ['-0755 1 a "1"', 'h0755 b -> a'],
    ],
    ['keeps names as bytes', [[file(Buffer.from([0xff, 0x0a, 0x01]), '1')]], ['-0644 1 \xff\n\x01 "1"']],
    [
      'leaves out entries for the root that are no directory',
      [[symlink('.', 'etc'), file('a', '1')]],
      ['-0644 1 a "1"'],
    ],
  ];
  for (const [title, layers, expected] of table) {
    it(title, async () => assert.deepEqual(await lines(...layers), expected));
  }

  it('adds the attributes of a hard link to one of aufs’s files too', async () => {
    const archive = await flattened([
      tar(
        file('.wh..wh.plnk/1', 'x', { xattrs: { 'user.a': 'b' } }),
        hardlink('one', '.wh..wh.plnk/1', { xattrs: { 'user.c': 'd' } }),
      ),
    ]);
    assert.deepEqual([...readArchive(archive)[0]!.xattrs!.keys()], ['user.a', 'user.c']);
  });

  it('keeps names in an access list that the image has no user for, also if etc is a dangling link', async () => {
    const list = 'user::rw-,user:alice:r--,group::r--,mask::r--,other::---';
    for (const etc of [symlink('etc', 'etc'), file('etc', ''), file('etc/passwd', 'bob:x:1:\n')]) {
      const archive = await flattened([tar(etc, file('f', '', { pax: { 'SCHILY.acl.access': list } }))]);
      const { xattrs } = readArchive(archive).find(({ path }) => path === 'f')!;
      assert.deepEqual(xattrs, new Map([['SCHILY.acl.access', new Uint8Array(Buffer.from(list))]]));
    }
  });

  it('gives an access list in numbers to its file, whatever becomes of the name', async () => {
    const list = { pax: { 'SCHILY.acl.access': 'user::rw-,user:7:r--,group::r--,mask::r--,other::---' } };
    const rows: [items: Item[], names: string[]][] = [
      [[file('f', '', list)], ['f']],
      [[file('f', '', list), hardlink('f', 'f')], ['f']],
      [[file('f', '', list), hardlink('g', 'f'), file('f')], ['g']],
      [[file('f', '', list), file('f/x')], []],
      [[file('f', '', list), symlink('f', 'x')], []],
    ];
    for (const [items, names] of rows) {
      const entries = readArchive(await flattened([tar(...items)]));
      const withList = entries.filter(({ xattrs }) => xattrs?.has('system.posix_acl_access') === true);
      assert.deepEqual(
        withList.map(({ path }) => path),
        names,
      );
      assert.ok(!entries.some(({ xattrs }) => xattrs?.has('SCHILY.acl.access') === true));
    }
  });

  it('keeps the mode of a symlink entry, which no file system stores', async () => {
    assert.deepEqual(await lines([symlink('a', 'b', { mode: 0o600 })]), ['l0600 a -> b']);
  });

  it('is the same whatever order and dialect the layers have', async () => {
    const items = [
      dir('d'),
      file('d/a', 'x'.repeat(3000)),
      file('d/b', 'y'),
      symlink('l', 'd'),
      file('e', 'z'.repeat(600)),
    ];
    const expected = await flattened([tar(...items)]);
    assert.ok(expected.equals(await flattened([tar(...items.toReversed(), dir('d'))])));
    assert.ok(expected.equals(await flattened([tarAs('gnu', ...items)], { chunkSize: 7 })));
    assert.ok(expected.equals(await flattened(items.map((item) => tar(item)))));
  });

  it('needs a temporary file only if layers are not in the order of names', async () => {
    const before = spool.files;
    await flattened([tar(file('a', '1'), file('c', '3')), tar(file('b', '2'))]);
    assert.equal(spool.files, before);
    const archive = await flattened([tar(file('c', 'x'.repeat(600_000)), file('b', '2'), file('a', '1'))]);
    assert.equal(spool.files, before + 1);
    assert.deepEqual(
      readArchive(archive).map(({ data }) => data.length),
      [1, 1, 600_000],
    );
  });

  it('is compressed to the same bytes every time, without a time or a name in it', async () => {
    const layers = [tar(dir('d'), file('d/f', 'text '.repeat(100_000)))];
    const plain = await flattened(layers);
    const gzip = await flattened(layers, { compression: 'gzip' });
    const zstd = await flattened(layers, { compression: 'zstd' });
    assert.ok(gunzipSync(gzip).equals(plain));
    assert.ok(zstdDecompressSync(zstd).equals(plain));
    assert.deepEqual([...gzip.subarray(0, 8)], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    assert.ok(gzip.equals(await flattened(layers, { compression: 'gzip' })));
    assert.ok(zstd.equals(await flattened(layers, { compression: 'zstd' })));
  });

  it('reports the bytes that it read and wrote', async () => {
    const archives = [tar(file('a', '1'), file('b', '2')), tar(whiteout('a'), symlink('.', 'x'))];
    const output = new Collector();
    const counts = await flatten(layersOf(archives), output);
    assert.deepEqual(counts, { layerEntries: [2, 2], notRestored: { ...nothingLost(), ignored: 1 } });
    assert.equal(readArchive(output.bytes).length, 1);
    assert.equal(output.bytes.length % 512, 0);
    assert.ok(!output.writableEnded, 'it stays open');
  });

  it('keeps its bytes: a change of format is a decision', async () => {
    const archive = await flattened([
      tar(
        dir('./', { mode: 0o755, mtime: 0 }),
        file('f', 'text', { uid: 4_000_000_000, mtime: [-2, 5], xattrs: { 'user.a': 'b' } }),
        symlink('l', 'x'.repeat(120)),
        hardlink('z', 'f'),
      ),
    ]);
    assert.equal(
      createHash('sha256').update(archive).digest('hex'),
      'aadc620ee3d6533b022b955fc06b3b724d2901a331797dcb7ed108934af8de5c',
    );
  });
});

describe('flatten refuses', () => {
  const bad: [title: string, layers: readonly (readonly Item[])[], message: RegExp][] = [
    [
      'a link to what does not exist',
      [[], [hardlink('a', 'b')]],
      /^layer 1: a: cannot link to b: .*\(ENOENT\)$/,
    ],
    [
      'a link to a directory',
      [[dir('d'), hardlink('a', 'd')]],
      /^layer 0: a: cannot link to d: .*\(EISDIR\)$/,
    ],
    ['a link to the root', [[hardlink('a', '/')]], /^layer 0: a: cannot link to \/: .*\(ENOENT\)$/],
    [
      'a link into what it replaces',
      [[file('a/b', '1'), hardlink('a', 'a/b')]],
      /cannot link to a\/b: .*\(ENOENT\)$/,
    ],
    [
      'a file as a parent behind a symlink',
      [[file('a'), symlink('l', 'a'), file('l/b')]],
      /^layer 0: l\/b: cannot use a as a directory: .*\(ENOTDIR\)$/,
    ],
    [
      'a loop of symlinks as a parent',
      [[symlink('a', 'b'), symlink('b', 'a'), file('a/x')]],
      /^layer 0: a\/x: cannot follow the symlinks of a: .*\(ELOOP\)$/,
    ],
    ['a path without end', [[file('a/'.repeat(9000))]], /too long/],
    ['a whiteout of nothing', [[file('etc/.wh.')]], /^layer 0: etc\/\.wh\.: /],
    ['a damaged archive', [[raw('garbage '.repeat(64))]], /^layer 0: header at byte 0: /],
    [
      'escape sequences, unprinted',
      [[hardlink('\u001b[2J', '\u001b[3J')]],
      /^layer 0: \\x1b\[2J: cannot link to \\x1b\[3J/,
    ],
  ];
  for (const [title, layers, message] of bad) {
    it(title, async () => {
      const output = new Collector();
      const archives = layers.map((items) => tar(...items));
      await assert.rejects(flatten(layersOf(archives), output), (error: Error) => {
        assert.ok(error instanceof IntegrityError, error.stack);
        assert.match(error.message, message);
        return true;
      });
      assert.equal(output.bytes.length, 0, 'nothing was written');
    });
  }

  it('to write anything before the last byte of the last layer is verified', async () => {
    const [first, second] = layersOf([tar(file('a', '1')), tar(file('b', '2'))]);
    const wrong = new IntegrityError('layer 1: its digest is another one');
    const output = new Collector();
    async function* open() {
      yield* second!.open();
      throw wrong;
    }
    const failing = { name: 'layer 1', open, reopen: open };
    await assert.rejects(flatten([first!, failing], output, { compression: 'gzip' }), wrong);
    assert.equal(output.bytes.length, 0);
  });

  it('a layer whose bytes differ at the second reading', async () => {
    for (const second of [tar(file('a', 'longer than before')), tar()]) {
      const contents = [tar(file('a', 'text')), second];
      const layer = {
        name: 'layer 0',
        async *open() {
          yield contents.shift()!;
        },
      };
      await assert.rejects(
        flatten([layer], new Collector()),
        (error: Error) =>
          error instanceof IntegrityError && error.message.startsWith('layer 0: it has other entries'),
      );
    }
  });

  it('to report an error of the output as one of the image', async () => {
    const broken = new Writable({
      write: (_chunk, _encoding, done) => done(new Error('ENOSPC: no space left on device')),
    });
    await assert.rejects(
      flatten(layersOf([tar(file('a', '1'))]), broken),
      (error: Error) =>
        error instanceof DestinationError && /cannot write the archive: ENOSPC/.test(error.message),
    );
  });

  it('to continue after an abort', async () => {
    const abort = new AbortController();
    const stopped = new Error('stopped');
    const output = new Writable({
      write() {
        abort.abort(stopped);
      },
    });
    await assert.rejects(
      flatten(layersOf([tar(file('a', 'x'.repeat(1_000_000)))]), output, {
        signal: abort.signal,
      }),
      stopped,
    );
  });

  it('to leave a layer open', async () => {
    let open = 0;
    const archive = tar(file('b', 'x'.repeat(10_000)), file('a', 'y'), file('c', 'z'.repeat(10_000)));
    async function* opened() {
      open += 1;
      try {
        for (let at = 0; at < archive.length; at += 512) yield archive.subarray(at, at + 512);
      } finally {
        open -= 1;
      }
    }
    const layer = { name: 'layer 0', open: opened };
    await flatten([layer], new Collector());
    assert.equal(open, 0);
    const broken = new Writable({ write: (_chunk, _encoding, done) => done(new Error('broken')) });
    await assert.rejects(flatten([layer], broken), { message: 'cannot write the archive: broken' });
    await new Promise(setImmediate);
    assert.equal(open, 0);
  });
});

describe('compressionFor', () => {
  const table: [name: string, compression: string][] = [
    ['-', 'none'],
    ['rootfs.tar', 'none'],
    ['a/b.c/rootfs.TAR', 'none'],
    ['rootfs.tar.gz', 'gzip'],
    ['rootfs.tgz', 'gzip'],
    ['rootfs.tar.zst', 'zstd'],
    ['rootfs.tzst', 'zstd'],
  ];
  for (const [name, compression] of table) {
    it(`${name} is ${compression}`, () => assert.equal(compressionFor(name), compression));
  }
  for (const name of ['rootfs', 'rootfs.zip', 'rootfs.tar.xz', '.gz', '']) {
    it(`refuses ${JSON.stringify(name)}`, () => assert.throws(() => compressionFor(name), UsageError));
  }
});
