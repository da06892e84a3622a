import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import diagnostics from 'node:diagnostics_channel';
import { on } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { readerOf } from '../../src/blob/decode/byte-reader.ts';
import { Decoder } from '../../src/blob/decode/decoder.ts';
import { type DiffID, digestOf } from '../../src/oci/digest.ts';
import { Rootfs, type RootfsOptions } from '../../src/rootfs/rootfs.ts';
import { createFileJobs, FileJobs, forsakeFileJobs } from '../../src/rootfs/file-jobs.ts';
import { createRingDigest } from '../../src/sys/ring-digest.ts';
import { createRing, RingReader, RingWriter } from '../../src/sys/ring.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { netRawCapability } from '../rootfs/access-list.ts';
import { build, chunks, decoding, isRoot, openBelow, source, temporaryDirectory } from '../rootfs/harness.ts';
import { runPull, writeLayers } from '../rootfs/run-pull.ts';
import { dir, file, hardlink, type Item, raw, sparse, symlink, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { HANG } from '../support/hang.ts';
import { noOtherUser } from '../support/other-user.ts';
import { isThorough } from '../support/runs.ts';
import { printTree, treeDiff } from '../support/tree.ts';

const label = 'layer 0123456789ab';

class Pair implements AsyncDisposable {
  readonly rootfs: Rootfs;
  readonly decoder: Decoder;

  private constructor(rootfs: Rootfs) {
    this.rootfs = rootfs;
    this.decoder = new Decoder(rootfs);
  }

  static async open(directory: string, options: Partial<RootfsOptions> = {}): Promise<Pair> {
    return new Pair(await Rootfs.open(directory, { mode: 'stage', backend: 'libc', ...options }));
  }

  async apply(layer: Uint8Array, signal?: AbortSignal): Promise<number> {
    return await this.applyBlob(gzipSync(layer, { level: 1 }), signal);
  }

  async applyBlob(blob: Uint8Array | AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<number> {
    return await this.rootfs.applyFrom(decoding(this.decoder, blob), { label, signal });
  }

  /** Returns the number of jobs that the decoder's thread has done: the second word of FileJobs. */
  get jobs(): number {
    return new Int32Array(this.rootfs.memory.jobs)[1]!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rootfs.discard();
    await this.decoder.discard();
  }
}

/** Returns bytes that are the same on every run, and hard to compress. */
function noise(seed: number, length: number): Buffer {
  const block = createHash('sha512').update(String(seed)).digest();
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 64) {
    block.writeUInt32LE(at, 0);
    block.copy(bytes, at);
  }
  return bytes;
}

/** Returns entries, enough for the decoder's thread to get ahead of the one that writes. */
function many(folder: string, count: number, size = 3000): Item[] {
  return [
    dir(folder),
    ...Array.from({ length: count }, (_, n) =>
      file(`${folder}/f${n}`, noise(n, n % 7 === 0 ? 0 : size + (n % 513)), {
        mode: [0o644, 0o755, 0o600, 0o4755, 0o666, 0o2711][n % 6]!,
        uid: n % 5 === 0 ? 1000 : 0,
        gid: n % 11 === 0 ? 50 : 0,
        mtime: [1_000_000_000 + n, (n * 7919) % 1_000_000_000],
      }),
    ),
  ];
}

const layers = [
  tar(
    ...many('usr', 1500),
    file('usr/big', noise(1, 9_000_000)),
    file('usr/late', 'x', { mtime: -5 }),
    file('usr/ping', 'elf', { xattrs: { 'security.capability': netRawCapability }, uid: 7 }),
    hardlink('usr/second', 'usr/f1'),
    sparse('usr/holes', 3_000_000, [[1_000_000, noise(2, 100_000)]], '1.0'),
    ...many('lib', 750),
    hardlink('lib/capable', 'lib/f749', { xattrs: { 'security.capability': netRawCapability } }),
    symlink('lib64', 'lib'),
  ),
  tar(
    ...many('usr', 1000, 4000),
    whiteout('usr/f1250'),
    file('usr/f1', 'replaced'),
    ...many('lib64', 250, 5000),
    dir('usr', { mode: 0o555, mtime: 5 }),
  ),
  tar(file('small', 'x')),
];

test('the tree is the one that a single thread writes, and the other thread has done a part', async (t) => {
  const [one, two] = [temporaryDirectory(t), temporaryDirectory(t)];
  const expected = build(one, layers, { mode: 'stage' });
  await using pair = await Pair.open(two);
  const entries: number[] = [];
  for (const layer of layers) entries.push(await pair.apply(layer));
  const { jobs } = pair;
  const counts = await pair.rootfs.close();
  assert.deepEqual(entries, expected.entries);
  assert.deepEqual(counts, expected.counts);
  assert.equal(treeDiff(printTree(one), printTree(two)), '');
  assert.ok(jobs > 100, `${jobs} jobs`);
  assert.deepEqual(openBelow(two), []);
});

test('layers from chunks and layers from the decoder alternate', async (t) => {
  const [one, two] = [temporaryDirectory(t), temporaryDirectory(t)];
  build(one, layers, { mode: 'stage' });
  await using pair = await Pair.open(two);
  await pair.apply(layers[0]!);
  await pair.rootfs.apply(chunks(layers[1]!), { label });
  await pair.apply(layers[2]!);
  await pair.rootfs.close();
  assert.equal(treeDiff(printTree(one), printTree(two)), '');
});

test('the digest of a tar in gzip or zstd, with one member or many', async (t) => {
  const layer = tar(...many('a', 300), file('b', noise(3, 3_000_000)));
  const digest = digestOf(layer);
  const [front, back] = [layer.subarray(0, 700_001), layer.subarray(700_001)];
  for (const [compression, blob] of [
    ['gzip', gzipSync(layer)],
    ['gzip', Buffer.concat([gzipSync(front), gzipSync(back), Buffer.alloc(3000)])],
    ['zstd', zstdCompressSync(layer)],
    ['zstd', Buffer.concat([zstdCompressSync(front), zstdCompressSync(back)])],
  ] as const) {
    await using pair = await Pair.open(temporaryDirectory(t));
    for (let round = 0; round < 2; round += 1) {
      let found;
      const fill = async (): Promise<void> => {
        found = await pair.decoder.decode(compression, readerOf(chunks(blob, 10_007)), undefined);
      };
      await pair.rootfs.applyFrom(fill, { label });
      assert.equal(found, digest);
    }
  }
});

test('the digest is of the algorithm that the image names', async (t) => {
  const layer = tar(file('a', noise(1, 300_000)));
  const expected = digestOf(layer, 'sha512') as string as DiffID;
  await using pair = await Pair.open(temporaryDirectory(t));
  let found;
  const fill = async (): Promise<void> => {
    found = await pair.decoder.decode('gzip', readerOf(chunks(gzipSync(layer))), expected);
  };
  assert.equal(await pair.rootfs.applyFrom(fill, { label }), 1);
  assert.equal(found, expected);
});

for (const [what, blob, message] of [
  ['cut', (whole: Buffer) => whole.subarray(0, whole.length / 2), 'ends too early'],
  [
    'followed by more',
    (whole: Buffer) => Buffer.concat([whole, Buffer.from('more')]),
    'is followed by extra bytes',
  ],
  ['changed', (whole: Buffer) => Buffer.from(whole).fill(0x55, whole.length - 8), 'is corrupt'],
  ['empty', () => Buffer.alloc(0), 'ends too early'],
] as const) {
  test(`compressed bytes that are ${what}: an error, no open file, and an empty directory`, async (t) => {
    const root = temporaryDirectory(t);
    await using pair = await Pair.open(root);
    const whole = gzipSync(tar(...many('a', 2000)));
    await assert.rejects(pair.applyBlob(blob(whole)), {
      name: 'MalformedDataError',
      message,
    });
    assert.deepEqual(openBelow(root), []);
    await pair.rootfs.discard();
    assert.deepEqual(readdirSync(root), []);
  });
}

test('an error of the blob is thrown as it is', async (t) => {
  const root = temporaryDirectory(t);
  await using pair = await Pair.open(root);
  const failure = new Error('the network is down');
  const blob = gzipSync(tar(...many('a', 2000)));
  const broken = (async function* (): AsyncGenerator<Uint8Array> {
    yield blob.subarray(0, blob.length / 2);
    throw failure;
  })();
  await assert.rejects(pair.applyBlob(broken), (error) => error === failure);
  assert.deepEqual(openBelow(root), []);
});

test('an impossible entry: the error of a single thread, and the blob is not read to its end', async (t) => {
  const root = temporaryDirectory(t);
  await using pair = await Pair.open(root);
  const layer = tar(...many('a', 2000), hardlink('b', 'nowhere'), ...many('c', 4000, 9000));
  const blob = gzipSync(layer, { level: 0 });
  let given = 0;
  const counted = (async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks(blob)) {
      given += chunk.length;
      yield chunk;
    }
  })();
  await assert.rejects(pair.applyBlob(counted), {
    name: 'IntegrityError',
    message: /^layer 0123456789ab: b: cannot link to nowhere/,
  });
  assert.ok(given < blob.length, 'it was read to its end');
  assert.deepEqual(openBelow(root), []);
});

test('a signal ends it at every stage, and discarding leaves nothing', async (t) => {
  const layer = tar(...many('a', 3000));
  for (let round = 0; round < 6; round += 1) {
    const root = temporaryDirectory(t);
    await using pair = await Pair.open(root);
    const controller = new AbortController();
    const reason = new Error('enough');
    setTimeout(() => controller.abort(reason), round * 24);
    const outcome = await pair.apply(layer, controller.signal).catch((error: unknown) => error);
    assert.ok(outcome === reason || outcome === 3001, String(outcome));
    assert.deepEqual(openBelow(root), []);
    await pair.rootfs.discard();
    assert.deepEqual(readdirSync(root), []);
  }
});

test('discarding while a layer is applied', async (t) => {
  for (const milliseconds of [0, 20, 60]) {
    const root = temporaryDirectory(t);
    await using pair = await Pair.open(root);
    const applied = pair.apply(tar(...many('a', 4000)));
    applied.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    await pair.rootfs.discard();
    await pair.decoder.discard();
    await applied.catch(() => undefined);
    assert.deepEqual(openBelow(root), []);
    assert.deepEqual(readdirSync(root), []);
  }
});

/** Number of chunks after which both threads are busy. */
const AT_WORK = 80;

/** Returns the threads that `start` starts. They end with the test, also if it hangs. */
async function threadsOf(t: TestContext, start: () => unknown): Promise<readonly Worker[]> {
  const started: Worker[] = [];
  const note = (message: unknown): void => void started.push((message as { worker: Worker }).worker);
  diagnostics.subscribe('worker_threads', note);
  await start();
  diagnostics.unsubscribe('worker_threads', note);
  t.after(() => Promise.all(started.map((thread) => thread.terminate())));
  return started;
}

for (const [index, who, message] of [
  [0, 'the thread that writes files', /writes the files/],
  [1, 'the decoder', /decodes layers/],
] as const) {
  test(`the death of ${who} is an error, not a wait`, { timeout: HANG }, async (t) => {
    let opened: Pair | undefined;
    const started = await threadsOf(t, async () => (opened = await Pair.open(temporaryDirectory(t))));
    await using pair = opened!;
    await pair.apply(tar(file('x', 'x')));
    const endless = (async function* (): AsyncGenerator<Uint8Array> {
      for (let n = 0; ; n += 1) {
        // Timers run only between chunks that wait, as those of a socket do.
        await setImmediate();
        if (n === AT_WORK) void started[index]!.terminate();
        yield gzipSync(file(`f${n}`, noise(n, 100_000)).encode('ustar'));
      }
    })();
    const applied = pair.applyBlob(endless);
    await assert.rejects(applied, { name: 'DestinationError', code: 'THREAD_DIED', message });
    await assert.rejects(pair.apply(tar(file('x', 'x'))), { code: 'THREAD_DIED', message });
  });
}

test('nobody waits for jobs that a decoder had when it died', async (t) => {
  const memory = { ring: createRing(), jobs: createFileJobs(), digest: createRingDigest() };
  const forsake = () => forsakeFileJobs(memory.jobs);
  const [thread] = await threadsOf(t, () => new Decoder({ memory, forsake }));
  t.mock.method(Atomics, 'wait', () => assert.fail('it would wait for ever'));
  const jobs = new FileJobs(memory.jobs, new RingReader(memory.ring));
  const layer = tar(file('x', ''));
  const entry = new TarReader(source(layer), label).next()!;
  jobs.complete(-1, undefined, 0, entry, entry.path);
  assert.throws(() => jobs.drain(), /it would wait for ever/);
  await thread!.terminate();
  jobs.drain();
  // The queue has room for fewer jobs.
  for (let count = 0; count < 1000; count += 1) jobs.complete(-1, undefined, 0, entry, entry.path);
});

/** A thread that hands over a job and waits until all jobs are done. */
const waitingCode = `
  const { parentPort, workerData } = require('node:worker_threads');
  const load = (name) => import(new URL(name, workerData.base));
  Promise.all([load('rootfs/file-jobs.ts'), load('sys/ring.ts')]).then(([{ FileJobs }, { RingReader }]) => {
    const jobs = new FileJobs(workerData.memory.jobs, new RingReader(workerData.memory.ring));
    jobs.complete(-1, undefined, 0, {}, '');
    parentPort.postMessage('waits');
    jobs.drain();
    parentPort.postMessage('done');
  });
`;

test('a thread that waits for jobs is woken when the decoder dies', { timeout: HANG }, async (t) => {
  const memory = { ring: createRing(), jobs: createFileJobs(), digest: createRingDigest() };
  const forsake = () => forsakeFileJobs(memory.jobs);
  const [thread] = await threadsOf(t, () => new Decoder({ memory, forsake }));
  // After the end of the tar the ring does not wake its reader.
  const writer = new RingWriter(memory.ring);
  writer.reopen();
  writer.end();
  const base = new URL('../../src/', import.meta.url).href;
  const waiting = new Worker(waitingCode, { eval: true, workerData: { memory, base } });
  t.after(() => waiting.terminate());
  const messages = on(waiting, 'message', { close: ['exit'] });
  assert.deepEqual((await messages.next()).value, ['waits']);
  await thread!.terminate();
  assert.deepEqual((await messages.next()).value, ['done']);
});

test(
  'the disk is full at any entry: the error names the first that failed, those before it are whole, no file stays open',
  { skip: missing('root') },
  async (t) => {
    const items = Array.from({ length: 400 }, (_, n) =>
      file(`f${n}`, noise(n, 9000 + n), { mtime: 1000 + n, uid: n % 3 }),
    );
    const layer = tar(...items, dir('last'), file('last/x', noise(1, 2_000_000)));
    let byTheOther = 0;
    for (let fits = 10; fits <= 400; fits += isThorough ? 10 : 35) {
      const root = join(temporaryDirectory(t), 'disk');
      mkdirSync(root);
      const argv = ['-t', 'tmpfs', '-o', `size=${fits * 12}k,mode=700`, 'tmpfs', root];
      if (spawnSync('mount', argv, { stdio: 'ignore' }).status !== 0) return t.skip('needs to mount');
      try {
        await using pair = await Pair.open(root);
        const failure = await pair.apply(layer).catch((error: unknown) => error as Error);
        assert.ok(failure instanceof Error, String(failure));
        const said =
          /^the disk of .* is full: layer 0123456789ab: (?:f(\d+)|last\/x): cannot write: no space left on device \(ENOSPC\)$/.exec(
            failure.message.replace(/cannot (?:write \d+ bytes|create \S+):/, 'cannot write:'),
          );
        assert.ok(said, failure.message);
        const first = Number(said[1] ?? 400);
        for (let n = 0; n < first; n += 1) {
          const { size, mtimeMs, uid } = statSync(join(root, `f${n}`));
          assert.deepEqual([size, mtimeMs, uid], [9000 + n, (1000 + n) * 1000, n % 3], `f${n} of ${first}`);
        }
        assert.deepEqual(openBelow(root), []);
        byTheOther += pair.jobs;
        await pair.rootfs.discard();
        assert.deepEqual(readdirSync(root), []);
      } finally {
        execFileSync('umount', ['-l', root]);
      }
    }
    assert.ok(byTheOther > 1000, `${byTheOther} jobs`);
    return undefined;
  },
);

test(
  'as a plain user: the counts of lost metadata are those of a single thread',
  { skip: isRoot ? noOtherUser : false },
  async (t) => {
    const nobody = isRoot ? { uid: 65_534, gid: 65_534 } : {};
    const places = [temporaryDirectory(t), temporaryDirectory(t)];
    const outcomes = [];
    for (const [index, place] of places.entries()) {
      if (isRoot) execFileSync('chown', ['65534:65534', place]);
      const paths = writeLayers(place, layers);
      const request = { directory: join(place, 'rootfs'), layers: paths, backend: 'libc' } as const;
      outcomes.push(await runPull({ ...request, decoder: index === 1 }, nobody));
    }
    assert.equal(outcomes[1]!.error, undefined);
    assert.deepEqual(outcomes[1], outcomes[0]);
    assert.ok(outcomes[1]!.counts!.setuid > 100);
    const [one, two] = places.map((place) => printTree(join(place, 'rootfs'), { without: ['json'] }));
    assert.equal(treeDiff(one!, two!), '');
  },
);

test('a layer that is malformed behind thousands of files', async (t) => {
  const root = temporaryDirectory(t);
  await using pair = await Pair.open(root);
  const layer = tar(...many('a', 3000), raw(Buffer.alloc(512, 'x')), file('b', 'x'));
  await assert.rejects(pair.apply(layer), { code: 'MALFORMED_TAR', exitCode: 6 });
  assert.deepEqual(openBelow(root), []);
  assert.ok(readFileSync(join(root, 'a/f2999')).length > 0);
});
