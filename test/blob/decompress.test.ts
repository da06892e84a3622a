import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test as always } from 'node:test';
import { constants, crc32, gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { MalformedDataError, readerOf } from '../../src/blob/decode/byte-reader.ts';
import { decode, recognise } from '../../src/blob/decode/decompress.ts';
import { nativeDecoders, type Region, StepDecoder } from '../../src/blob/decode/engine.ts';
import { systemCalls } from '../../src/sys/system-calls.ts';
import { compressionOf, promisedCompression } from '../../src/oci/compression.ts';

const native = nativeDecoders()!;

type Codec = 'gzip' | 'zstd' | 'bzip2' | 'xz' | 'none';

const missing = ['zstd', 'bzip2', 'xz'].filter((name) => spawnSync(name, ['--version']).error !== undefined);

/** A test that needs the compressors; without them it is skipped with a reason. */
function test(name: string, run: () => Promise<void> | void): void {
  void always(name, { skip: missing.length > 0 && `needs ${missing.join(', ')}` }, run);
}

/** Runs one of Debian's compressors. */
function program(name: string, args: readonly string[], input: Uint8Array): Buffer {
  return execFileSync(name, args, { input, maxBuffer: 1e9 });
}

function pack(codec: Codec, bytes: Uint8Array): Buffer {
  if (codec === 'none') return Buffer.from(bytes);
  if (codec === 'gzip') return gzipSync(bytes);
  if (codec === 'zstd') {
    return zstdCompressSync(bytes, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  }
  return program(codec, ['-c'], bytes);
}

/** Cuts bytes into pieces; their lengths repeat the list. */
function* cut(bytes: Uint8Array, lengths: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const length = lengths[turn % lengths.length]!;
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

/**
 * The decoders. `decoder` runs as in the decoder's thread; `C` and `Node` as in the main thread, with and
 * without native functions.
 */
type By = 'decoder' | 'C' | 'Node';

async function decompress(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  by: By,
): Promise<AsyncIterable<Uint8Array>> {
  const { compression, reader } = await recognise(readerOf(pieces));
  return decode(compression, reader, by === 'Node' ? null : native);
}

function region(length: number): Region {
  return native.locate(new Uint8Array(new SharedArrayBuffer(length)));
}

/** Decodes as the decoder's thread does. */
function unpackInC(codec: 'gzip' | 'zstd', pieces: Iterable<Uint8Array>, compareChecksums = true): Buffer {
  const engine = native[codec]();
  try {
    const decoder = new StepDecoder(engine, compareChecksums);
    const output = region(50_000);
    const out: Buffer[] = [];
    for (const piece of pieces) {
      const input = region(piece.length);
      input.bytes.set(piece);
      decoder.feed(input);
      while (!decoder.hungry) out.push(Buffer.from(output.bytes.subarray(0, decoder.step(output))));
    }
    decoder.end();
    return Buffer.concat(out);
  } finally {
    engine.close();
  }
}

async function unpack(blob: Uint8Array, lengths: readonly number[], by: By): Promise<Buffer> {
  const codec = compressionOf(blob);
  if (by === 'decoder' && (codec === 'gzip' || codec === 'zstd')) return unpackInC(codec, cut(blob, lengths));
  const chunks = await decompress(cut(blob, lengths), by);
  const out: Buffer[] = [];
  for await (const chunk of chunks) out.push(Buffer.from(chunk));
  return Buffer.concat(out);
}

const ways: readonly [string, Codec, By][] = [
  ["gzip in the decoder's thread", 'gzip', 'decoder'],
  ['gzip in C', 'gzip', 'C'],
  ['gzip by Node', 'gzip', 'Node'],
  ["zstd in the decoder's thread", 'zstd', 'decoder'],
  ['zstd in C', 'zstd', 'C'],
  ['zstd by Node', 'zstd', 'Node'],
  ['bzip2', 'bzip2', 'C'],
  ['xz', 'xz', 'C'],
];

test('the libraries of Node are called in C here', () => {
  assert.ok(nativeDecoders());
  assert.ok(systemCalls());
});

const text = Buffer.from('All the world is a stage, '.repeat(40));
const long = Buffer.from(Array.from({ length: 700_000 }, (_, index) => (index * index) % 251));

/** Offset of the content's checksum from the end of a member. */
for (const [codec, fromEnd] of [
  ['gzip', 8],
  ['zstd', 4],
] as const) {
  test(`${codec} in C: checksums are compared unless the digest of the content is known`, async () => {
    const member = pack(codec, text);
    member[member.length - fromEnd]! ^= 1;
    const blob = Buffer.concat([member, member]);
    const unpacked = (compareChecksums: boolean) => unpackInC(codec, [blob], compareChecksums);
    assert.ok(unpacked(false).equals(Buffer.concat([text, text])));
    assert.throws(() => unpacked(true), MalformedDataError);
    for (const by of ['C', 'Node'] as const) {
      await assert.rejects(unpack(blob, [blob.length], by), MalformedDataError);
    }

    // The decoder's thread, too, uses one engine for a blob of each kind.
    const engine = native[codec]();
    const [input, output] = [region(member.length), region(text.length + 1)];
    input.bytes.set(member);
    for (const compared of [false, true, false]) {
      const decoder = new StepDecoder(engine, compared);
      decoder.feed(input);
      const step = (): number => decoder.step(output);
      if (compared) assert.throws(step, MalformedDataError);
      else assert.equal(step(), text.length);
    }
    engine.close();
  });
}

for (const [name, codec, by] of ways) {
  test(`${name}: the content is decoded, in any pieces of input`, async () => {
    const packed = pack(codec, long);
    for (const lengths of [[1_000_000], [65_536], [1, 4096, 7]]) {
      assert.ok((await unpack(packed, lengths, by)).equals(long));
    }
    assert.equal((await unpack(pack(codec, new Uint8Array(0)), [1], by)).length, 0);
  });

  test(`${name}: random bytes, packed and cut at random, come out`, async () => {
    const pieces = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), pieces, async (bytes, lengths) => {
        assert.deepEqual([...(await unpack(pack(codec, bytes), lengths, by))], [...bytes]);
      }),
      { numRuns: codec === 'xz' || codec === 'bzip2' ? 15 : 60 },
    );
  });

  test(`${name}: several members are one stream`, async () => {
    const several = Buffer.concat([pack(codec, text), pack(codec, long), pack(codec, text)]);
    const whole = Buffer.concat([text, long, text]);
    const first = pack(codec, text).length;
    for (const lengths of [[several.length], [first, several.length], [first - 1, 2, 5000], [33]]) {
      assert.ok((await unpack(several, lengths, by)).equals(whole));
    }
  });

  test(`${name}: cut off anywhere, it is an error`, async () => {
    const packed = pack(codec, text);
    const magic = codec === 'gzip' ? 3 : codec === 'zstd' ? 4 : codec === 'xz' ? 6 : 10;
    const step = codec === 'xz' || codec === 'bzip2' ? 7 : 1;
    for (let length = magic; length < packed.length; length += step) {
      await assert.rejects(unpack(packed.subarray(0, length), [50], by), MalformedDataError, `at ${length}`);
    }
    for (const length of [1, 7, packed.length - 1]) {
      const second = Buffer.concat([packed, packed.subarray(0, length)]);
      await assert.rejects(unpack(second, [50], by), MalformedDataError, `second at ${length}`);
      await assert.rejects(unpack(second, [packed.length], by), MalformedDataError, `second at ${length}`);
    }
  });

  test(`${name}: a flipped byte is an error or changes nothing`, async () => {
    const packed = pack(codec, text);
    const step = codec === 'xz' || codec === 'bzip2' ? 5 : 1;
    for (let at = 10; at < packed.length; at += step) {
      const damaged = Buffer.from(packed);
      damaged[at]! ^= 1 << (at % 8);
      const result = await unpack(damaged, [64], by).catch((error: unknown) => error);
      if (Buffer.isBuffer(result)) assert.ok(result.equals(text), `silent at ${at}`);
      else assert.ok(result instanceof MalformedDataError, `at ${at}: ${String(result)}`);
    }
  });

  test(`${name}: other bytes after the end are an error`, async () => {
    const packed = pack(codec, text);
    for (const lengths of [[1000], [packed.length, 1], [7]]) {
      const blob = Buffer.concat([packed, Buffer.from('and more')]);
      await assert.rejects(unpack(blob, lengths, by), MalformedDataError);
    }
  });

  if (by === 'decoder') continue;

  test(`${name}: leaving early frees the decoder`, async () => {
    const packed = pack(codec, long);
    const chunks = await decompress(cut(packed, [1000]), by);
    for await (const chunk of chunks) {
      assert.ok(chunk.length > 0);
      break;
    }
    assert.ok((await unpack(packed, [4096], by)).equals(long));
  });

  test(`${name}: an error of the source is thrown as it is`, async () => {
    const packed = pack(codec, long);
    const broken = new Error('line cut');
    async function* source() {
      yield packed.subarray(0, 200);
      throw broken;
    }
    const chunks = await decompress(source(), by);
    await assert.rejects(async () => {
      for await (const chunk of chunks) assert.ok(chunk);
    }, broken);
  });
}

for (const [name, by] of [
  ["in the decoder's thread", 'decoder'],
  ['in C', 'C'],
  ['by Node', 'Node'],
] as const) {
  test(`gzip ${name}: zeros after the end are padding, zeros and then more are not`, async () => {
    const packed = gzipSync(text);
    for (const lengths of [[100_000], [packed.length, 600], [9]]) {
      assert.ok((await unpack(Buffer.concat([packed, Buffer.alloc(1024)]), lengths, by)).equals(text));
      const hidden = Buffer.concat([packed, Buffer.alloc(1024), gzipSync(text)]);
      await assert.rejects(unpack(hidden, lengths, by), MalformedDataError);
    }
  });

  test(`gzip ${name}: optional header fields are read over, and their checksum is checked`, async () => {
    const bare = gzipSync(text).subarray(10);
    const header = Buffer.concat([
      Buffer.from([0x1f, 0x8b, 8, 0b1_1111, 0, 0, 0, 0, 2, 3]),
      Buffer.from([4, 0]),
      Buffer.from('abcd'),
      Buffer.from('layer.tar\0'),
      Buffer.from('a comment\0'),
    ]);
    // Bit 1 of the flags means that the header has a checksum.
    const checksum = Buffer.alloc(2);
    checksum.writeUInt16LE(crc32(header) & 0xffff);
    assert.ok((await unpack(Buffer.concat([header, checksum, bare]), [11], by)).equals(text));
    checksum[0]! ^= 1;
    await assert.rejects(unpack(Buffer.concat([header, checksum, bare]), [11], by), MalformedDataError);
  });

  test(`zstd ${name}: skippable frames are skipped at any place`, async () => {
    const skippable = Buffer.concat([
      Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0]),
      Buffer.from('extra'),
    ]);
    const frame = zstdCompressSync(text);
    const blob = Buffer.concat([skippable, frame, skippable, skippable, frame, skippable]);
    for (const lengths of [[10_000], [13], [1]]) {
      assert.ok((await unpack(blob, lengths, by)).equals(Buffer.concat([text, text])));
    }
    await assert.rejects(unpack(blob.subarray(0, -1), [50], by), MalformedDataError);
  });

  test(`zstd ${name}: a window of 128 MiB is taken, a longer one refused with its reason`, async () => {
    const zstd = (windowLog: number) => program('zstd', ['-c', `--long=${windowLog}`, '--no-check'], long);
    // A header without the size of the content has the size of the window.
    assert.equal(zstd(27)[4]! >> 5, 0);
    assert.ok((await unpack(zstd(27), [65_536], by)).equals(long));
    await assert.rejects(unpack(zstd(28), [65_536], by), /window of more than 128 MiB/);
  });
}

test('xz: zeros between and after streams come in fours', async () => {
  const packed = pack('xz', text);
  for (const lengths of [[100_000], [packed.length + 4], [5]]) {
    const good = Buffer.concat([packed, Buffer.alloc(4), packed, Buffer.alloc(8)]);
    assert.ok((await unpack(good, lengths, 'C')).equals(Buffer.concat([text, text])));
    await assert.rejects(unpack(Buffer.concat([packed, Buffer.alloc(3)]), lengths, 'C'), MalformedDataError);
  }
});

const xzOptions: readonly [string[], 'read' | 'refused'][] = [
  [['-9e'], 'read'],
  [['--check=crc32'], 'read'],
  [['--check=none'], 'read'],
  [['-T2', '--block-size=100000'], 'read'],
  [['--check=sha256'], 'refused'],
  [['--x86', '--lzma2'], 'refused'],
];
for (const [options, outcome] of xzOptions) {
  test(`xz ${options.join(' ')} is ${outcome}`, async () => {
    const unpacking = unpack(program('xz', ['-c', ...options], long), [65_536], 'C');
    if (outcome === 'read') assert.ok((await unpacking).equals(long));
    else await assert.rejects(unpacking, /a filter or a check that is not supported/);
  });
}

test('bzip2: a block that grows 50 times is returned in pieces', async () => {
  const zeros = Buffer.alloc(60_000_000);
  const chunks = await decompress([pack('bzip2', zeros)], 'C');
  let length = 0;
  for await (const chunk of chunks) {
    assert.ok(chunk.length <= 256 * 1024);
    length += chunk.length;
  }
  assert.equal(length, zeros.length);
});

test('an empty blob and one shorter than any magic are plain', async () => {
  assert.equal((await unpack(new Uint8Array(0), [1], 'C')).length, 0);
  assert.equal((await unpack(Buffer.from('ab'), [1], 'C')).toString(), 'ab');
});

const magics: readonly [string, string, Codec][] = [
  ['1f8b0800', 'gzip', 'gzip'],
  ['1f8b', 'half a gzip magic', 'none'],
  ['28b52ffd00', 'zstd', 'zstd'],
  ['502a4d18', 'a skippable frame', 'zstd'],
  ['5f2a4d18', 'the last skippable magic', 'zstd'],
  ['602a4d18', 'no skippable magic', 'none'],
  ['fd377a585a0000', 'xz', 'xz'],
  ['425a6839314159265359', 'bzip2', 'bzip2'],
  ['425a6831177245385090', 'empty bzip2', 'bzip2'],
  ['425a683900000000000000', 'a plain tar whose first name is BZh9', 'none'],
  ['', 'nothing', 'none'],
];
for (const [hex, name, expected] of magics) {
  test(`${name} is taken for ${expected}`, () => {
    assert.equal(compressionOf(Buffer.from(hex, 'hex')), expected);
  });
}

const mediaTypes: readonly [string, Codec | undefined][] = [
  ['application/vnd.oci.image.layer.v1.tar', 'none'],
  ['application/vnd.oci.image.layer.v1.tar+gzip', 'gzip'],
  ['application/vnd.oci.image.layer.v1.tar+zstd', 'zstd'],
  ['application/vnd.oci.image.layer.nondistributable.v1.tar+gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'gzip'],
  ['application/octet-stream', undefined],
  ['', undefined],
];
for (const [mediaType, expected] of mediaTypes) {
  test(`the media type "${mediaType}" promises ${expected}`, () => {
    assert.equal(promisedCompression(mediaType), expected);
  });
}
