import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { ID_SIZE } from './trees.ts';
import { type Native, loadNative } from '../sys/native.ts';

/** Checksums of one object after the other, whose bytes pass through one buffer: `start` and `end` are offsets in it. */
export interface Checksums {
  /** Begins the SHA-1 of an object. @param head stands before the content: type and size */
  begin(head: string): void;
  /** Adds bytes to it. */
  add(start: number, end: number): void;
  /** The name of the object, valid until the next call. */
  end(): Buffer;
  /** Adler-32 of more bytes, after those of `sum`: 1 at the beginning (RFC 1950). */
  adler32(sum: number, start: number, end: number): number;
  /** CRC-32 of more bytes, after those of `sum`: 0 at the beginning. */
  crc32(sum: number, start: number, end: number): number;
}

/** By the functions of OpenSSL and zlib in Node, where they can be called: a `Hash` for each of 100,000 files costs 0.2 s. */
export function openChecksums(buffer: Buffer): Checksums {
  const native = loadNative();
  try {
    if (native) return nativeChecksums(native, buffer);
  } catch {
    // A Node with other libraries.
  }
  return portableChecksums(buffer);
}

/** By what Node has for JavaScript. */
export function portableChecksums(buffer: Buffer): Checksums {
  let hash = createHash('sha1');
  return {
    begin(head) {
      hash = createHash('sha1').update(head, 'latin1');
    },
    add: (start, end) => void hash.update(buffer.subarray(start, end)),
    end: () => hash.digest(),
    adler32: (sum, start, end) => adler32(buffer.subarray(start, end), sum),
    crc32: (sum, start, end) => crc32(buffer.subarray(start, end), sum),
  };
}

function adler32(bytes: Uint8Array, sum: number): number {
  let low = sum & 0xffff;
  let high = sum >>> 16;
  for (const byte of bytes) {
    low = (low + byte) % 65_521;
    high = (high + low) % 65_521;
  }
  return high * 2 ** 16 + low;
}

/** In bytes: a SHA_CTX has 96. */
const STATE_SIZE = 128;
/** In bytes: of a type and a size. */
const LONGEST_HEAD = 64;

/** @throws where the functions cannot be found */
function nativeChecksums({ koffi, library }: Native, buffer: Buffer): Checksums {
  const numberOf = (declaration: string) => library.func(declaration) as (...values: number[]) => number;
  const init = numberOf('int SHA1_Init(uintptr_t state)');
  const update = numberOf('int SHA1_Update(uintptr_t state, uintptr_t bytes, size_t length)');
  const final = numberOf('int SHA1_Final(uintptr_t digest, uintptr_t state)');
  const adler = numberOf('unsigned long adler32(unsigned long sum, uintptr_t bytes, unsigned int length)');
  const crc = numberOf('unsigned long crc32(unsigned long sum, uintptr_t bytes, unsigned int length)');
  const memory = Buffer.from(new ArrayBuffer(STATE_SIZE + ID_SIZE + LONGEST_HEAD));
  const state = Number(koffi.address(memory));
  const bytes = Number(koffi.address(buffer));
  const [nameAt, headAt] = [STATE_SIZE, STATE_SIZE + ID_SIZE];
  const name = memory.subarray(nameAt, headAt);
  return {
    begin(head) {
      init(state);
      update(state, state + headAt, memory.write(head, headAt, 'latin1'));
    },
    add: (start, end) => void update(state, bytes + start, end - start),
    end() {
      final(state + nameAt, state);
      return name;
    },
    adler32: (sum, start, end) => adler(sum, bytes + start, end - start),
    crc32: (sum, start, end) => crc(sum, bytes + start, end - start),
  };
}
