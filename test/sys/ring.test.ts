import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { RingAborted, RingReader, RingWriter, createRing } from '../../src/sys/ring.ts';

const ringUrl = new URL('../../src/sys/ring.ts', import.meta.url).href;

/**
 * A thread that reads the ring in pieces of random size, slowly or not, and posts the hash of each stream.
 */
const readerCode = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { createHash } = require('node:crypto');
  import(${JSON.stringify(ringUrl)}).then(({ RingReader }) => {
    const ring = new RingReader(workerData.memory);
    parentPort.on('message', ({ seed, pause, stopAfter }) => {
      ring.restart();
      const hash = createHash('sha256');
      let total = 0;
      let state = seed;
      try {
        for (;;) {
          state = (Math.imul(state, 1103515245) + 12345) >>> 0;
          const bytes = ring.read(1 + (state >>> 8) % (state & 1 ? 700 : 300000));
          if (bytes === undefined) break;
          hash.update(bytes);
          total += bytes.length;
          if (total > stopAfter) { ring.fail(); break; }
          if (pause && state % 16 === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pause);
        }
        parentPort.postMessage({ total, digest: hash.digest('hex') });
      } catch (error) {
        parentPort.postMessage({ total, error: error.constructor.name });
      }
    });
    parentPort.postMessage('ready');
  });
`;

interface Answer {
  readonly total: number;
  readonly digest?: string;
  readonly error?: string;
}

class Reader {
  readonly memory = createRing();
  readonly writer = new RingWriter(this.memory);
  readonly thread = new Worker(readerCode, { eval: true, workerData: { memory: this.memory } });

  message(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.thread.once('message', resolve);
      this.thread.once('error', reject);
    });
  }

  async start(seed: number, options: { pause?: number; stopAfter?: number } = {}): Promise<Answer> {
    const answer = this.message();
    this.thread.postMessage(
      { seed, pause: options.pause ?? 0, stopAfter: options.stopAfter ?? Infinity },
      [],
    );
    return (await answer) as Answer;
  }
}

async function withReader(use: (reader: Reader) => Promise<void>): Promise<void> {
  const reader = new Reader();
  await reader.message();
  try {
    await use(reader);
  } finally {
    await reader.thread.terminate();
  }
}

async function sha256(chunks: readonly Uint8Array[]): Promise<string> {
  const { createHash } = await import('node:crypto');
  const hash = createHash('sha256');
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest('hex');
}

/** Returns chunks of one byte to more than the ring holds. */
function randomChunks(seed: number, count: number): Uint8Array[] {
  let state = seed;
  const next = (): number => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0);
  return Array.from({ length: count }, () => {
    const kind = next() % 10;
    const size = kind === 0 ? 5_000_000 : kind < 5 ? 1 + (next() % 1000) : 1 + (next() % 200_000);
    return Buffer.alloc(size, next() & 0xff);
  });
}

test('streams of all kinds of chunks come out as they went in, one after the other', async () => {
  await withReader(async (reader) => {
    const { writer } = reader;
    for (const [seed, pause] of [
      [1, 0],
      [2, 1],
      [3, 0],
    ] as const) {
      const chunks = randomChunks(seed, 60);
      writer.reopen();
      const answer = reader.start(seed, { pause });
      for (const chunk of chunks) assert.equal(await writer.write(chunk), true);
      writer.end();
      const { total, digest } = await answer;
      assert.equal(
        total,
        chunks.reduce((sum, chunk) => sum + chunk.length, 0),
      );
      assert.equal(digest, await sha256(chunks));
    }
  });
});

test('a small piece is not kept back until more comes', async () => {
  await withReader(async (reader) => {
    reader.writer.reopen();
    const answer = reader.start(7, { stopAfter: 9 });
    await reader.writer.write(Buffer.alloc(10));
    assert.equal((await answer).total, 10);
  });
});

test('an empty stream ends', async () => {
  await withReader(async (reader) => {
    reader.writer.reopen();
    const answer = reader.start(1);
    reader.writer.end();
    assert.equal((await answer).total, 0);
  });
});

test('an abort wakes a waiting reader, and the ring serves the next stream', async () => {
  await withReader(async (reader) => {
    reader.writer.reopen();
    const answer = reader.start(1);
    await reader.writer.write(Buffer.alloc(100_000));
    await new Promise((resolve) => setTimeout(resolve, 50));
    reader.writer.abort();
    assert.equal((await answer).error, 'RingAborted');
    assert.equal(await reader.writer.write(Buffer.alloc(1)), false);

    reader.writer.reopen();
    const next = reader.start(1);
    await reader.writer.write(Buffer.alloc(100));
    reader.writer.end();
    assert.equal((await next).total, 100);
  });
});

test('a reader that fails wakes a writer that waits for room', async () => {
  await withReader(async (reader) => {
    reader.writer.reopen();
    const answer = reader.start(1, { stopAfter: 1_000_000 });
    let more = true;
    for (let count = 0; more && count < 100; count += 1)
      more = await reader.writer.write(Buffer.alloc(1_000_000));
    assert.equal(more, false);
    assert.ok((await answer).total > 1_000_000);
  });
});

test('the counters may wrap around', () => {
  const memory = createRing();
  new Int32Array(memory, 0, 2).fill(0x7fff_f000);
  const reader = new RingReader(memory);
  reader.restart();
  const writer = new RingWriter(memory);
  writer.reopen();
  let written = 0;
  let read = 0;
  for (let round = 0; round < 10; round += 1) {
    const chunk = Buffer.alloc(1000, round + 1);
    void writer.write(chunk);
    written += chunk.length;
    for (let rest = chunk.length; rest > 0;) {
      const bytes = reader.read(rest)!;
      assert.ok(bytes.every((byte) => byte === round + 1));
      read += bytes.length;
      rest -= bytes.length;
    }
  }
  assert.equal(read, written);
  writer.end();
  assert.equal(reader.read(1), undefined);
});

test('a reader in the same thread throws after the writer has aborted', () => {
  const memory = createRing();
  const writer = new RingWriter(memory);
  const reader = new RingReader(memory);
  void writer.write(Buffer.from('abc'));
  assert.deepEqual(Buffer.from(reader.read(2)!).toString(), 'ab');
  writer.abort();
  assert.throws(() => reader.read(2), RingAborted);
});
