import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { BlobBuffer } from '../../src/blob/buffer.ts';
import { noise, Workshop } from './support/workshop.ts';

const source = noise(6_000_000);

/** Chunks of up to 300,000 bytes, pauses of up to 2 ms for writer and reader, and reads of each size. */
const run = fc.record({
  held: fc.boolean(),
  steps: fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 300_000 }), pause: fc.nat(2) }), {
    maxLength: 20,
  }),
  reads: fc.array(fc.record({ bytes: fc.integer({ min: 20_000, max: 600_000 }), pause: fc.nat(2) }), {
    minLength: 1,
    maxLength: 10,
  }),
});

async function pause(ticks: number): Promise<void> {
  for (let left = ticks; left > 0; left -= 1) await new Promise((resolve) => setTimeout(resolve, 1));
}

test('the reader gets all bytes in order, at any pace of both sides', async () => {
  await using shop = await Workshop.open();
  await fc.assert(
    fc.asyncProperty(run, async ({ held, steps, reads }) => {
      const arrival = new BlobBuffer({
        file: { open: () => shop.namelessFile(), where: '' },
        held,
      });
      const total = steps.reduce((sum, step) => sum + step.bytes, 0);
      const write = async () => {
        let at = 0;
        for (const step of steps) {
          await pause(step.pause);
          await arrival.append(source.subarray(at, (at += step.bytes)));
        }
        arrival.finish();
      };
      const read = async () => {
        const reader = arrival.reader();
        const parts: Buffer[] = [];
        for (let turn = 0; ; turn += 1) {
          const { bytes, pause: ticks } = reads[turn % reads.length]!;
          await pause(ticks);
          const buffer = Buffer.alloc(bytes);
          const count = await reader.read(buffer);
          if (count === 0) return Buffer.concat(parts);
          parts.push(buffer.subarray(0, count));
        }
      };
      const [, first] = await Promise.all([write(), read()]);
      assert.ok(first.equals(source.subarray(0, total)));
      assert.ok((await read()).equals(first));
      await arrival.close();
    }),
    { numRuns: 60 },
  );
});

async function noFile(): Promise<never> {
  throw new Error('no file is needed');
}

test('a failure reaches a reader that waits, and every later one', async () => {
  const arrival = new BlobBuffer({
    file: { open: noFile, where: '' },
    held: false,
  });
  const cause = new Error('cable cut');
  const waiting = arrival.reader().read(Buffer.alloc(10));
  arrival.fail(cause);
  await assert.rejects(waiting, cause);
  await assert.rejects(arrival.reader().read(Buffer.alloc(10)), cause);
  await assert.rejects(arrival.append(Buffer.alloc(1)), cause);
});

test('a file that cannot be written is replaced by a copy, while it is written and read', async () => {
  await using shop = await Workshop.open();
  const readOnly = path.join(shop.directory, 'read-only');
  const kept = source.subarray(0, 1_500_000);
  writeFileSync(readOnly, kept);
  const first = await open(readOnly);
  const errors: unknown[] = [];
  const arrival = new BlobBuffer({
    file: { open: async () => first, where: 'FULL' },
    instead: (error) => {
      errors.push(error);
      return { open: () => shop.namelessFile(), where: 'OTHER' };
    },
    held: false,
  });
  await arrival.openFile();
  arrival.advance(kept.length);
  const reader = arrival.reader();
  const read: Buffer[] = [];
  const reading = (async () => {
    for (;;) {
      const buffer = Buffer.alloc(70_000);
      const count = await reader.read(buffer);
      if (count === 0) return;
      read.push(buffer.subarray(0, count));
    }
  })();
  // Connections that receive pieces of one blob write in any order.
  const parts = [5, 1, 3, 2, 4, 0].map((n) => kept.length + n * 500_000);
  await Promise.all(parts.map((at) => arrival.writeAt(source.subarray(at, at + 500_000), at)));
  arrival.advance(kept.length + 3_000_000);
  arrival.finish();
  await reading;
  assert.ok(Buffer.concat(read).equals(source.subarray(0, 4_500_000)));
  assert.match(String(errors), /cannot keep blobs in FULL: bad file descriptor \(EBADF\)$/);
  assert.deepEqual(readFileSync(readOnly), kept);
  await arrival.close();
  await first.close();
});

test('if the second file cannot be written either, its directory is named', async () => {
  await using shop = await Workshop.open();
  const readOnly = path.join(shop.directory, 'read-only');
  writeFileSync(readOnly, '');
  const handles = await Promise.all([open(readOnly), open(readOnly)]);
  const file = (where: string, at = 0) => ({ open: async () => handles[at]!, where });
  const arrival = new BlobBuffer({
    file: file('FULL'),
    instead: () => file('OTHER', 1),
    held: false,
  });
  const failure = { message: 'cannot keep blobs in OTHER: bad file descriptor (EBADF)' };
  await assert.rejects(arrival.writeAt(source.subarray(0, 10), 0), failure);
  await assert.rejects(
    arrival
      .leaveFile(new Error('the note cannot be written'))
      .then(() => arrival.writeAt(source.subarray(0, 10), 0)),
    failure,
  );
  for (const handle of handles) await handle.close();
});
