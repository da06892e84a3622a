import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { alignExtents, fillGaps, sparseMapBlocks } from '../../src/archive/sparse-map.ts';
import { sparse, tar } from '../support/archive.ts';
import { contentOf, readArchive } from '../support/read-archive.ts';
import { flattened, temporaryDirectory } from './harness.ts';

function text(blocks: Buffer): string {
  return blocks.toString('latin1').replace(/\0+$/, '');
}

const shapes = fc
  .tuple(
    fc.array(fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 1500 })), { maxLength: 12 }),
    fc.oneof(fc.constant(0), fc.nat(3000)),
  )
  .map(([parts, rest]) => {
    let end = 0;
    const extents = parts.map(([gap, length]) => {
      const offset = end + gap;
      end = offset + length;
      return { offset, length };
    });
    return { extents, size: end + rest };
  });

describe('alignExtents', () => {
  it('leaves extents that are aligned already', () => {
    const extents = [
      { offset: 0, length: 512 },
      { offset: 1024, length: 1024 },
      { offset: 4096, length: 10 },
    ];
    assert.deepEqual(alignExtents(extents, 4106), extents);
    assert.deepEqual(alignExtents([], 100), []);
  });

  it('moves ends to block borders, or the end of the file, and joins what meets', () => {
    const extents = [
      { offset: 10, length: 5 },
      { offset: 520, length: 1 },
      { offset: 2000, length: 100 },
    ];
    assert.deepEqual(alignExtents(extents, 2100), [
      { offset: 0, length: 1024 },
      { offset: 1536, length: 564 },
    ]);
  });

  it('covers all data with extents that GNU tar takes', () => {
    fc.assert(
      fc.property(shapes, ({ extents, size }) => {
        const aligned = alignExtents(extents, size);
        let end = -1;
        for (const { offset, length } of aligned) {
          assert.ok(offset % 512 === 0 && offset > end && length > 0);
          end = offset + length;
          assert.ok(end % 512 === 0 || end === size);
        }
        for (const { offset, length } of extents) {
          assert.ok(
            aligned.some((block) => block.offset <= offset && offset + length <= block.offset + block.length),
          );
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('fillGaps', () => {
  it('gives the aligned extents their data and zeros around it', async () => {
    await fc.assert(
      fc.asyncProperty(shapes, fc.integer({ min: 1, max: 2000 }), async ({ extents, size }, pieceSize) => {
        const content = Buffer.alloc(size);
        for (const [index, { offset, length }] of extents.entries())
          content.fill(index + 1, offset, offset + length);
        const stored = Buffer.concat(
          extents.map(({ offset, length }) => content.subarray(offset, offset + length)),
        );
        async function* pieces(): AsyncGenerator<Uint8Array> {
          for (let at = 0; at < stored.length; at += pieceSize) yield stored.subarray(at, at + pieceSize);
        }
        const aligned = alignExtents(extents, size);
        const filled: Buffer[] = [];
        for await (const piece of fillGaps(pieces(), extents, aligned)) filled.push(Buffer.from(piece));
        const expected = aligned.map(({ offset, length }) => content.subarray(offset, offset + length));
        assert.ok(Buffer.concat(filled).equals(Buffer.concat(expected)));
      }),
      { numRuns: 300 },
    );
  });
});

describe('sparseMapBlocks', () => {
  it('ends with the end of the file', () => {
    assert.equal(text(sparseMapBlocks([{ offset: 0, length: 5 }], 5)), '1\n0\n5\n');
    assert.equal(text(sparseMapBlocks([{ offset: 0, length: 5 }], 9)), '2\n0\n5\n9\n0\n');
    assert.equal(text(sparseMapBlocks([], 9)), '1\n9\n0\n');
    assert.equal(
      sparseMapBlocks(
        Array.from({ length: 100 }, (_, at) => ({ offset: at * 1024, length: 512 })),
        102_400,
      ).length,
      1024,
    );
  });
});

describe('sparse files in the flattened archive', () => {
  const files: [
    title: string,
    size: number,
    extents: readonly (readonly [offset: number, data: string])[],
  ][] = [
    [
      'aligned',
      1_000_000,
      [
        [0, 'a'.repeat(512)],
        [500_224, 'b'.repeat(1024)],
      ],
    ],
    [
      'not aligned',
      1_000_003,
      [
        [3, 'a'],
        [600, 'b'],
        [500_001, 'c'.repeat(700)],
        [1_000_000, 'end'],
      ],
    ],
    ['all hole', 1_000_000, []],
    ['data to the end', 5000, [[4096, 'x'.repeat(904)]]],
  ];
  for (const [title, size, extents] of files) {
    it(`are read alike by GNU tar and by our reader: ${title}`, async (t) => {
      const layer = tar(sparse('f', size, extents, '0.1'));
      const archive = await flattened([layer]);
      const content = contentOf(readArchive(layer)[0]!);
      const [entry] = readArchive(archive);
      assert.ok(contentOf(entry!).equals(content));
      assert.ok(archive.length < 20_000, 'the holes are not in the archive');

      const directory = temporaryDirectory(t);
      const name = path.join(directory, 'flat.tar');
      writeFileSync(name, archive);
      execFileSync('tar', ['-C', directory, '-xf', name]);
      assert.ok(readFileSync(path.join(directory, 'f')).equals(content));
      assert.ok(
        size < 10_000 || statSync(path.join(directory, 'f')).blocks < 200,
        'the holes are not on the disk',
      );
    });
  }
});
