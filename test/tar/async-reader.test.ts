import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { AsyncTarReader } from '../../src/tar/reader.ts';
import { MalformedTarError } from '../../src/tar/entry.ts';
import { character, dir, file, hardlink, symlink, tar } from '../support/archive.ts';
import { readArchive, type ReadEntry } from '../support/read-archive.ts';
import { sparseFiles } from './sparse-files.ts';

/** Yields chunks that are valid only until the next one is requested, as decompressors do. */
async function* arriving(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += size) {
    if (at % 3 === 0) await Promise.resolve();
    const chunk = Uint8Array.from(bytes.subarray(at, at + size));
    yield chunk;
    chunk.fill(0xaa);
  }
}

async function readAsync(bytes: Uint8Array, size: number): Promise<ReadEntry[]> {
  const reader = new AsyncTarReader(arriving(bytes, size), 'layer test');
  const entries: ReadEntry[] = [];
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const pieces: Buffer[] = [];
    for (let piece = await reader.data(); piece !== undefined; piece = await reader.data())
      pieces.push(Buffer.from(piece));
    entries.push({ ...entry, data: Buffer.concat(pieces) });
  }
  return entries;
}

const archive = tar(
  dir('d', { mtime: [5, 6] }),
  file('d/f', 'content'.repeat(200), { xattrs: { 'user.a': 'b' } }),
  file('n'.repeat(300), 'x'),
  file('unread', 'y'.repeat(2000)),
  symlink('s', 'l'.repeat(120), { dialect: 'gnu' }),
  hardlink('h', 'd/f'),
  ...sparseFiles,
  character('c', 1, 3),
);

describe('an AsyncTarReader', () => {
  for (const size of [1, 100, 511, 512, 513, 1 << 20]) {
    it(`reads what TarReader reads, in chunks of ${size} bytes`, async () => {
      assert.deepEqual(await readAsync(archive, size), readArchive(archive));
    });
  }

  it('skips data that was not requested', async () => {
    const reader = new AsyncTarReader(arriving(archive, 700), 'layer test');
    const paths: string[] = [];
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      paths.push(entry.path);
      if (entry.path === 'unread') await reader.data();
    }
    assert.deepEqual(
      paths,
      readArchive(archive).map(({ path }) => path),
    );
    assert.equal(await reader.next(), undefined);
    assert.equal(await reader.data(), undefined);
  });

  it('leaves the bytes after the end mark in the iterator', async () => {
    const chunks = arriving(Buffer.concat([tar(file('f')), Buffer.from('garbage!'.repeat(64))]), 512);
    const reader = new AsyncTarReader(chunks, 'layer test');
    assert.equal((await reader.next())?.path, 'f');
    assert.equal(await reader.next(), undefined);
    assert.equal(Buffer.from((await chunks.next()).value!).toString('latin1', 0, 8), 'garbage!');
  });

  it('refuses what TarReader refuses, with the same words', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(archive.length),
        fc.nat(archive.length - 1),
        fc.nat(255),
        fc.constantFrom(100, 512, 5000),
        async (length, at, byte, size) => {
          const changed = Buffer.from(archive.subarray(0, length));
          if (at < length) changed[at] = byte;
          let expected: unknown;
          try {
            expected = readArchive(changed);
          } catch (error) {
            assert.ok(error instanceof MalformedTarError);
            await assert.rejects(readAsync(changed, size), { message: error.message });
            return;
          }
          assert.deepEqual(await readAsync(changed, size), expected);
        },
      ),
      { numRuns: 200 },
    );
  });
});
