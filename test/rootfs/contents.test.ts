import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ContentReader, ContentWriter } from '../../src/rootfs/contents.ts';
import { RingAborted, RingReader, createRing } from '../../src/sys/ring.ts';
import { dir, fifo, file, hardlink, sparse, symlink, tar, whiteout } from '../support/archive.ts';
import { chunks, openRootfs, temporaryDirectory } from './harness.ts';

/** Reads all contents until the end. A flush is returned as `flush`. */
function readAll(memory: SharedArrayBuffer): (Buffer | 'flush')[] {
  const reader = new ContentReader(new RingReader(memory));
  const found: (Buffer | 'flush')[] = [];
  for (let size = reader.next(); size !== undefined; size = reader.next()) {
    if (size === 'flush') {
      found.push(size);
      continue;
    }
    const content = Buffer.alloc(size + 2, 0xee);
    assert.ok(reader.fill(content, 1, size));
    assert.equal(reader.number, found.filter((each) => each !== 'flush').length);
    assert.deepEqual([content[0], content[size + 1]], [0xee, 0xee]);
    found.push(content.subarray(1, size + 1));
  }
  return found;
}

/** A thread that writes contents and posts `done`, or the error's code. */
const writerCode = `
  const { parentPort, workerData } = require('node:worker_threads');
  Promise.all([${JSON.stringify(new URL('../../src/rootfs/contents.ts', import.meta.url).href)},
    ${JSON.stringify(new URL('../../src/sys/ring.ts', import.meta.url).href)}].map((url) => import(url)))
    .then(([{ ContentWriter }, { RingWriter }]) => {
      const writer = new ContentWriter(workerData.memory);
      try {
        for (const bytes of workerData.contents) writer.write(bytes);
        writer.end();
        parentPort.postMessage('done');
      } catch (error) {
        parentPort.postMessage(error.code);
      }
    });
`;

function startWriter(memory: SharedArrayBuffer, contents: readonly Uint8Array[]): Worker {
  return new Worker(writerCode, { eval: true, workerData: { memory, contents } });
}

const heard = (thread: Worker): Promise<unknown> =>
  new Promise((resolve, reject) => {
    thread.once('message', resolve).once('error', reject);
  });

test('contents of any size come as they were written, more than the ring holds', async () => {
  const sizes = [0, 1, 8, 65_535, 65_536, 65_537, 262_136, 262_144, 300_000, 5_000_000, 0, 9_000_001, 7];
  const contents = sizes.map((size) => randomBytes(size));
  const memory = createRing();
  const thread = startWriter(memory, contents);
  const answer = heard(thread);
  const found = readAll(memory);
  assert.equal(await answer, 'done');
  assert.deepEqual(found, contents);
  await thread.terminate();
});

test('holes are zeros, and a flush stands where it was asked for', () => {
  const memory = createRing();
  const writer = new ContentWriter(memory);
  writer.begin(600_003);
  writer.add(Buffer.from('a'));
  writer.addHole(600_000);
  writer.add(Buffer.from('bc'));
  writer.flush();
  writer.write(Buffer.from('next'));
  writer.end();
  const holey = Buffer.concat([Buffer.from('a'), Buffer.alloc(600_000), Buffer.from('bc')]);
  assert.deepEqual(readAll(memory), [holey, 'flush', Buffer.from('next')]);
});

test('a blocked writer throws when its reader fails', async () => {
  const memory = createRing();
  const thread = startWriter(memory, [randomBytes(10_000_000)]);
  const answer = heard(thread);
  const reader = new RingReader(memory);
  reader.read(1);
  reader.fail();
  assert.equal(await answer, 'CONTENTS_REFUSED');
  await thread.terminate();
});

test('a reader throws when the writer aborts', () => {
  const memory = createRing();
  new ContentWriter(memory).abort();
  assert.throws(() => new ContentReader(new RingReader(memory)).next(), RingAborted);
});

for (const backend of ['libc', 'node'] as const) {
  test(`${backend}: there is a content for each file and symlink that a layer brings, in their order`, async (t) => {
    const memory = createRing();
    await using opened = await openRootfs(temporaryDirectory(t), {
      mode: 'stage',
      backend,
      contents: memory,
    });
    const { rootfs } = opened;
    const first = tar(
      dir('d'),
      file('d/a', 'one'),
      symlink('link', 'to/nowhere'),
      hardlink('second', 'd/a'),
      file('empty', ''),
      sparse(
        'holes',
        40_000,
        [
          [5000, 'data'],
          [39_000, 'more'],
        ],
        'gnu',
      ),
      fifo('pipe'),
      file('d/a', 'again'),
      file('.wh..wh.plnk/1', 'aside'),
      hardlink('linked', '.wh..wh.plnk/1'),
    );
    await rootfs.apply(chunks(first), { label: 'layer 0' });
    await rootfs.apply(chunks(tar(whiteout('d/a'), file('b', 'two'))), { label: 'layer 1' });
    await rootfs.writeLayerInfo('json', Buffer.from('{}'));
    await rootfs.close();
    const holey = Buffer.alloc(40_000);
    holey.write('data', 5000);
    holey.write('more', 39_000);
    const texts = readAll(memory).map((content) =>
      content === 'flush' || content.equals(holey) ? content : content.toString(),
    );
    assert.deepEqual(texts, [
      'one',
      'to/nowhere',
      '',
      holey,
      'again',
      'aside',
      'flush',
      'two',
      'flush',
      '{}',
      'flush',
    ]);
  });
}
