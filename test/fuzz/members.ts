import { constants, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib';
import type { FakeLayer } from '../support/fake-image.ts';
import { mutateBytes } from './mutate.ts';
import type { Random } from './random.ts';

/** Debian's commands make these, so they are made once for all cases. */
export const bzip2OfNothing = Buffer.from('425a683917724538509000000000', 'hex');
export const xzOfNothing = Buffer.from(
  'fd377a585a000004e6d6b4460000000000001cdf44211fb6f37d010000000004595a',
  'hex',
);

/** Size of a layer in bytes from which the decoder's thread reads it. */
const BIG = 4 * 2 ** 20;

/** Returns a skippable frame (RFC 8878, 3.1.2), sometimes with a wrong length. */
function skippable(random: Random): Buffer {
  const length = random.percent(5) ? BIG : random.pick([0, 1, random.below(40), random.below(5000)]);
  const frame = Buffer.alloc(8 + length, random.below(256));
  frame.writeUInt32LE(0x184d2a50 + random.below(16), 0);
  const claimed = random.percent(10) ? random.pick([length + 1, random.below(300), 2 ** 32 - 1]) : length;
  frame.writeUInt32LE(claimed, 4);
  return frame;
}

/** Returns a gzip member (RFC 1952) with any of its optional fields. */
function gzipMember(random: Random, content: Uint8Array): Buffer {
  const plain = gzipSync(content, { level: random.below(10) });
  if (random.percent(70)) return plain;
  const flags = random.below(random.percent(90) ? 32 : 256);
  const fields = [
    flags & 4 ? Buffer.concat([Buffer.from([3, 0]), random.bytes(3)]) : Buffer.alloc(0),
    flags & 8 ? Buffer.from('layer.tar\0') : Buffer.alloc(0),
    flags & 16 ? Buffer.from('comment\0') : Buffer.alloc(0),
    // The header's checksum, with a wrong value.
    flags & 2 ? random.bytes(2) : Buffer.alloc(0),
  ];
  const head = Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 2, 3]);
  return Buffer.concat([head, ...fields, deflateRawSync(content), plain.subarray(-8)]);
}

function zstdFrame(random: Random, content: Uint8Array): Buffer {
  const params = {
    [constants.ZSTD_c_compressionLevel]: random.pick([-5, 1, 3, 19]),
    [constants.ZSTD_c_checksumFlag]: random.below(2),
    [constants.ZSTD_c_contentSizeFlag]: random.below(2),
    [constants.ZSTD_c_windowLog]: random.pick([10, 17, 22]),
  };
  return zstdCompressSync(content, { params });
}

/** Splits the bytes into parts, some of them empty. */
function partsOf(random: Random, plain: Buffer): Buffer[] {
  const ends = random.list(0, random.pick([2, 10, 200]), () => random.below(plain.length + 1));
  const bounds = [0, ...ends.toSorted((a, b) => a - b), plain.length];
  return bounds.slice(1).map((end, index) => plain.subarray(bounds[index], end));
}

type Change = (random: Random, members: Buffer[], at: number) => void;

const changes: readonly Change[] = [
  (_, members, at) => void members.splice(at, 1),
  (_, members, at) => void members.splice(at, 0, members[at]!),
  (random, members, at) => {
    const other = random.below(members.length);
    [members[at], members[other]] = [members[other]!, members[at]!];
  },
  (random, members, at) => {
    members[at] = members[at]!.subarray(0, random.below(members[at]!.length + 1));
  },
  (random, members, at) => {
    members[at] = mutateBytes(random, members[at]!);
  },
  (random, members, at) => void members.splice(at, 0, Buffer.alloc(random.pick([1, 4, 512, 10_000]))),
  (random, members, at) => void members.splice(at, 0, random.pick([bzip2OfNothing, xzOfNothing])),
  (random, members, at) => {
    const empty = Array.from({ length: random.pick([1, 100, 20_000]) }, () => gzipSync(''));
    members.splice(at, 0, Buffer.concat(empty));
  },
  (random, members, at) => {
    const empty = Array.from({ length: random.pick([1, 100, 20_000]) }, () => zstdCompressSync(''));
    members.splice(at, 0, Buffer.concat(empty));
  },
];

/**
 * Returns a tar as many gzip members, or as zstd frames with skippable ones between them; mostly some are
 * changed.
 */
export function oddMembers(random: Random, plain: Buffer): FakeLayer {
  const isZstd = random.percent(60);
  const members = partsOf(random, plain).flatMap((part) => {
    // Sometimes a member is of the other compression, which no decoder may accept.
    const isOdd = random.percent(1);
    const member = isZstd === isOdd ? gzipMember(random, part) : zstdFrame(random, part);
    return isZstd && random.percent(30) ? [member, skippable(random)] : [member];
  });
  const count = random.percent(25) ? 0 : 1 + random.below(3);
  for (let n = 0; n < count && members.length > 0; n += 1) {
    random.pick(changes)(random, members, random.below(members.length));
  }
  return { tar: plain, compression: isZstd ? 'zstd' : 'gzip', blob: Buffer.concat(members) };
}
