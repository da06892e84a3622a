import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import {
  type ByteReader,
  ENDS_EARLY,
  MalformedDataError,
  readerOf,
} from '../../src/blob/decode/byte-reader.ts';
import { decode } from '../../src/blob/decode/decompress.ts';
import { nativeDecoders, StepDecoder } from '../../src/blob/decode/engine.ts';
import type { Compression } from '../../src/oci/compression.ts';

const native = nativeDecoders()!;

/**
 * The decoders. `decoder` runs as in the decoder's thread; `C` and `Node` as in the main thread, with and
 * without native functions.
 */
const ways = ['decoder', 'C', 'Node'] as const;
type Way = (typeof ways)[number];

type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** Decodes step by step. */
async function* inSteps(compression: 'gzip' | 'zstd', pieces: Chunks) {
  const engine = native[compression]();
  try {
    const decoder = new StepDecoder(engine, true);
    const output = native.locate(Buffer.allocUnsafeSlow(100_000));
    for await (const piece of pieces) {
      if (piece.length === 0) continue;
      const input = Buffer.allocUnsafeSlow(piece.length);
      input.set(piece);
      decoder.feed(native.locate(input));
      while (!decoder.hungry) {
        const length = decoder.step(output);
        if (length > 0) yield output.bytes.subarray(0, length);
      }
    }
    decoder.end();
  } finally {
    engine.close();
  }
}

function chunksOf(way: Way, compression: Compression, pieces: Chunks): AsyncIterable<Uint8Array> {
  if (way === 'decoder' && (compression === 'gzip' || compression === 'zstd'))
    return inSteps(compression, pieces);
  return decode(compression, readerOf(pieces), way === 'Node' ? null : native);
}

async function unpack(way: Way, compression: Compression, pieces: Chunks): Promise<Buffer> {
  const out: Buffer[] = [];
  for await (const chunk of chunksOf(way, compression, pieces)) out.push(Buffer.from(chunk));
  return Buffer.concat(out);
}

function skippable(length: number, kind = 0): Buffer {
  const frame = Buffer.alloc(8 + length, 'table of contents ');
  frame.writeUInt32LE(0x184d2a50 + kind, 0);
  frame.writeUInt32LE(length, 4);
  return frame;
}

const text = Buffer.from('a file of a few bytes\n');
const program = (name: string, ...args: string[]): Buffer => execFileSync(name, args, { input: text });
const isMissing = (name: string) => spawnSync(name, ['--version']).error !== undefined && `needs ${name}`;

/** The repeated member, and the content of one. */
const members: readonly [string, Compression, () => Buffer, Buffer, string | false][] = [
  ['zstd frames', 'zstd', () => zstdCompressSync(text), text, false],
  [
    'zstd frames, each with a skippable one',
    'zstd',
    () => Buffer.concat([zstdCompressSync(text), skippable(3)]),
    text,
    false,
  ],
  ['empty zstd frames', 'zstd', () => zstdCompressSync(Buffer.alloc(0)), Buffer.alloc(0), false],
  ['skippable zstd frames', 'zstd', () => skippable(0), Buffer.alloc(0), false],
  ['gzip members', 'gzip', () => gzipSync(text), text, false],
  ['empty gzip members', 'gzip', () => gzipSync(Buffer.alloc(0)), Buffer.alloc(0), false],
  ['bzip2 streams', 'bzip2', () => program('bzip2'), text, isMissing('bzip2')],
  [
    'bzip2 streams of two block sizes',
    'bzip2',
    () => Buffer.concat([program('bzip2', '-1'), program('bzip2', '-9')]),
    Buffer.concat([text, text]),
    isMissing('bzip2'),
  ],
  ['xz streams', 'xz', () => program('xz'), text, isMissing('xz')],
];

const COUNT = 6000;
/** More bytes than any decoder reads in one step. */
const MOST_INPUT = 8 * 2 ** 20;

for (const [name, compression, make, meaning, skip] of members) {
  for (const way of compression === 'gzip' || compression === 'zstd' ? ways : (['C'] as const)) {
    void test(`${COUNT} ${name} (${way}) are read in a few large pieces`, { skip }, async () => {
      const member = make();
      const blob = Buffer.concat(Array.from({ length: COUNT }, () => member));
      assert.ok(blob.length < MOST_INPUT);
      const expected = Buffer.concat(Array.from({ length: COUNT }, () => meaning));
      if (way === 'decoder') {
        assert.ok((await unpack(way, compression, [blob])).equals(expected));
        return;
      }
      const source = readerOf([blob]);
      let reads = 0;
      const reader: ByteReader = {
        read: (into) => {
          reads += 1;
          return source.read(into);
        },
      };
      const out: Buffer[] = [];
      for await (const chunk of decode(compression, reader, way === 'Node' ? null : native))
        out.push(Buffer.from(chunk));
      assert.ok(Buffer.concat(out).equals(expected));
      assert.ok(reads <= 3 + blob.length / 65_536, `${reads} reads`);
      // Node's stream returns output after each frame.
      if (way === 'C')
        assert.ok(out.length <= 10 + expected.length / 65_536, `${out.length} pieces of output`);
    });
  }
}

interface Part {
  readonly packed: Buffer;
  readonly content: Uint8Array;
}

const content = fc.oneof(
  { weight: 4, arbitrary: fc.uint8Array({ maxLength: 300 }) },
  fc.nat(700_000).map((length) => Buffer.alloc(length, 'repeated ')),
);

const parts: Readonly<Record<'gzip' | 'zstd', fc.Arbitrary<Part>>> = {
  gzip: fc.record({ bytes: content, level: fc.nat(9) }).map(({ bytes, level }) => ({
    packed: gzipSync(bytes, { level }),
    content: bytes,
  })),
  zstd: fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ bytes: content, checksum: fc.nat(1), sized: fc.nat(1) }).map((each) => ({
        packed: zstdCompressSync(each.bytes, {
          params: {
            [constants.ZSTD_c_checksumFlag]: each.checksum,
            [constants.ZSTD_c_contentSizeFlag]: each.sized,
          },
        }),
        content: each.bytes,
      })),
    },
    fc
      .record({ length: fc.oneof(fc.nat(20), fc.nat(300_000)), kind: fc.nat(15) })
      .map(({ length, kind }) => ({ packed: skippable(length, kind), content: new Uint8Array(0) })),
  ),
};

/** Cuts bytes into pieces; their lengths repeat the list. */
function* cut(bytes: Uint8Array, lengths: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const length = lengths[turn % lengths.length]!;
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

const lengths = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 300_000 })), {
  minLength: 1,
  maxLength: 6,
});

for (const compression of ['gzip', 'zstd'] as const) {
  const list = fc.array(parts[compression], { minLength: 1, maxLength: 12 });
  const sourceOf = (blob: Uint8Array, sizes: readonly number[]) =>
    // A large blob in pieces of only a few bytes would be slow.
    [...cut(blob, blob.length > 20_000 ? [...sizes, 50_000] : sizes)];

  void test(`${compression}: any sequence of members, cut anywhere, is its contents`, async () => {
    await fc.assert(
      fc.asyncProperty(list, lengths, async (sequence, sizes) => {
        const pieces = sourceOf(Buffer.concat(sequence.map(({ packed }) => packed)), sizes);
        const expected = Buffer.concat(sequence.map((part) => part.content));
        for (const way of ways) assert.ok((await unpack(way, compression, pieces)).equals(expected), way);
      }),
      { numRuns: 60 },
    );
  });

  void test(`${compression}: a sequence that ends within a member ends too early`, async () => {
    await fc.assert(
      fc.asyncProperty(
        list,
        lengths,
        fc.double({ min: 0, max: 1, noNaN: true }),
        async (sequence, sizes, where) => {
          const blob = Buffer.concat(sequence.map(({ packed }) => packed));
          const end = Math.max(1, Math.floor(where * blob.length));
          const whole: Part[] = [];
          let start = 0;
          for (const part of sequence) {
            if (start + part.packed.length > end) break;
            start += part.packed.length;
            whole.push(part);
          }
          const pieces = sourceOf(blob.subarray(0, end), sizes);
          for (const way of ways) {
            const result = unpack(way, compression, pieces);
            if (start === end) {
              assert.ok((await result).equals(Buffer.concat(whole.map((part) => part.content))), way);
            } else {
              await assert.rejects(result, new MalformedDataError(ENDS_EARLY), `${way} at ${end}`);
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  void test(`${compression}: other bytes after any sequence are malformed`, async () => {
    const garbage = fc.uint8Array({ minLength: 4, maxLength: 40 }).map((bytes) => {
      // This byte is neither the first one of a magic number nor padding.
      bytes[0] = 0x41;
      return bytes;
    });
    await fc.assert(
      fc.asyncProperty(list, lengths, garbage, async (sequence, sizes, rest) => {
        const blob = Buffer.concat([...sequence.map(({ packed }) => packed), rest]);
        for (const way of ways)
          await assert.rejects(unpack(way, compression, sourceOf(blob, sizes)), MalformedDataError, way);
      }),
      { numRuns: 40 },
    );
  });
}

/** A skippable frame of 4 GiB - 1 byte, the longest possible, between two others. */
async function* longestSkippable(): AsyncGenerator<Uint8Array> {
  const head = skippable(0);
  head.writeUInt32LE(2 ** 32 - 1, 4);
  yield zstdCompressSync(text);
  yield head;
  const piece = new Uint8Array(2 ** 20);
  for (let left = 2 ** 32 - 1; left > 0; left -= piece.length) {
    yield left < piece.length ? piece.subarray(0, left) : piece;
  }
  yield zstdCompressSync(text);
}

for (const way of ways) {
  void test(`zstd (${way}): a skippable frame of 4 GiB - 1 is read over, and not held`, async () => {
    let most = 0;
    async function* measured() {
      for await (const piece of longestSkippable()) {
        most = Math.max(most, process.memoryUsage().arrayBuffers);
        yield piece;
      }
    }
    const before = process.memoryUsage().arrayBuffers;
    const unpacked = await unpack(way, 'zstd', measured());
    assert.ok(unpacked.equals(Buffer.concat([text, text])));
    if (way !== 'decoder') assert.ok(most - before < 64 * 2 ** 20, `${most - before} bytes`);
  });
}
