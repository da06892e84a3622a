import { createCipheriv } from 'node:crypto';

const MiB = 1 << 20;

/** Endless bytes that look random and are the same on every run. */
export type Noise = (length: number) => Buffer<ArrayBuffer>;

export function noise(seed: number): Noise {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16));
  return (length) => Buffer.from(cipher.update(Buffer.alloc(length)));
}

/** Returns float32 numbers in [-1, 1), like a file of model weights: gzip saves about a tenth. */
export function weights(random: Noise, length: number): Buffer<ArrayBuffer> {
  const exponents = [0x3c, 0x3d, 0x3d, 0x3e, 0xbc, 0xbd, 0xbd, 0xbe];
  const bytes = random(length);
  for (let at = 3; at < length; at += 4) bytes[at] = exponents[bytes[at]! & 7]!;
  return bytes;
}

/** Returns lines of made-up words, in which some words are frequent. */
export function text(random: Noise, length: number): Buffer<ArrayBuffer> {
  const letters = 'etaoinshrdlucmfwypvbgk';
  const shape = random(8000 * 12);
  const words = Array.from({ length: 8000 }, (_, n) => {
    const at = n * 12;
    const size = 2 + (shape[at]! % 9);
    return Array.from(shape.subarray(at + 1, at + 1 + size), (byte) => letters[byte % letters.length]).join(
      '',
    );
  });
  const lines: string[] = [];
  for (let size = 0; size < length;) {
    const picks = random(4 * 2000);
    const line: string[] = [];
    for (let at = 0; at < picks.length; at += 4) {
      const fraction = picks.readUInt32LE(at) / 2 ** 32;
      line.push(words[Math.floor(words.length ** fraction) - 1]!);
    }
    lines.push(`${line.join(' ')}\n`);
    size += lines.at(-1)!.length;
  }
  return Buffer.from(lines.join('')).subarray(0, length);
}

/** Returns rows of small integers: most bytes are zero. */
export function table(random: Noise, length: number): Buffer<ArrayBuffer> {
  const rows = Buffer.alloc(4096 * 32);
  const values = random(4096 * 4);
  for (let row = 0; row < 4096; row += 1) {
    rows.writeUInt32LE(row, row * 32);
    rows.writeUInt32LE(row * 4096, row * 32 + 8);
    rows.writeUInt32LE(values[row * 4]! & 63, row * 32 + 16);
    rows.writeUInt32LE(values.readUInt32LE(row * 4) & 0xfffff, row * 32 + 24);
  }
  return Buffer.alloc(length, rows);
}

/** Returns half weights, a quarter text and a quarter tables, in pieces of 8 MiB. */
export function* mixture(random: Noise, sharedText: Uint8Array, sizeMiB: number): Generator<Uint8Array> {
  for (let piece = 0; piece < sizeMiB / 8; piece += 1) {
    yield weights(random, 4 * MiB);
    const cut = random(4).readUInt32LE() % (sharedText.length - 2 * MiB);
    yield sharedText.subarray(cut, cut + 2 * MiB);
    yield table(random, 2 * MiB);
  }
}
