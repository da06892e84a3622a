import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { exportArchive, IntegrityError, type PullEvent } from '../../src/index.ts';
import { noise, Setting } from '../faults/setting.ts';
import { dir, file, hardlink, sparse, symlink, tar, whiteout } from '../support/archive.ts';
import type { FakeImage } from '../support/fake-image.ts';
import { until } from '../support/until.ts';

// Layers of 4 MiB or more in all are decoded by a thread, while later ones still arrive.

const words = Buffer.from('the same words again and again\n'.repeat(100_000));
const tars = [
  tar(dir('etc'), file('etc/motd', 'old\n'), noise('base', 3 * 2 ** 20), file('etc/words', words)),
  tar(whiteout('etc/motd'), noise('usr/big', 5 * 2 ** 20), hardlink('usr/same', 'usr/big')),
  tar(
    dir('usr/share'),
    ...Array.from({ length: 300 }, (_, n) => file(`usr/share/f${n}`, `${n}\n`.repeat(n))),
    symlink('lib', 'usr/lib'),
    sparse('usr/hole', 3 * 2 ** 20, [[2 ** 20, Buffer.alloc(5120, 7)]], 'gnu'),
  ),
];
const image: FakeImage = { layers: tars.map((bytes) => ({ tar: bytes })) };

test('the same bytes from every compression: by the thread, and by the main thread', async () => {
  const written: Record<string, Buffer[]> = { tar: [], erofs: [] };
  for (const compression of ['gzip', 'zstd', 'none'] as const) {
    await using setting = await Setting.open({
      layers: tars.map((bytes) => ({ tar: bytes, compression })),
    });
    for (const format of ['tar', 'erofs']) {
      await setting.pullWell(['-o', `out.${format}`]);
      written[format]!.push(readFileSync(setting.scratch.join(`out.${format}`)));
    }
  }
  for (const [first, ...others] of Object.values(written))
    for (const other of others) assert.ok(other.equals(first!));
});

test('layers of several compressions in one image', async () => {
  const compressions = ['zstd', 'none', 'gzip'] as const;
  const read: Buffer[] = [];
  for (const layers of [
    tars.map((bytes) => ({ tar: bytes, compression: 'none' as const })),
    tars.map((bytes, n) => ({ tar: bytes, compression: compressions[n]! })),
  ]) {
    await using setting = await Setting.open({ layers });
    await setting.pullWell(['-o', 'out.erofs']);
    read.push(readFileSync(setting.scratch.join('out.erofs')));
  }
  assert.ok(read[0]!.equals(read[1]!));
});

test('-o reads a layer while a later one still arrives, and ends at once when it is aborted', async () => {
  await using setting = await Setting.open(image);
  setting.registry.fault({ path: new RegExp(setting.image.layers[2]!.digest), times: 99, stallAfter: 10 });
  const events: PullEvent[] = [];
  const aborter = new AbortController();
  const output = new PassThrough();
  const running = exportArchive(setting.reference, output, {
    cacheDirectory: setting.store,
    report: (event) => events.push(event),
    signal: aborter.signal,
  });
  const failed = assert.rejects(running, /enough seen/);
  const applied = () => events.filter(({ type }) => type === 'layer-applied').length;
  await until('two layers to be read', () => applied() === 2);
  assert.ok(!events.some((event) => event.type === 'layer-fetched' && event.index === 2));
  aborter.abort(new Error('enough seen'));
  await failed;
  assert.equal(output.readableLength, 0);
});

for (const [what, fault, exit] of [
  ['a wrong byte', { corruptAt: 2_000_000 }, 6],
  ['a connection that breaks', { cutAfter: 1000 }, 5],
] as const) {
  test(`${what} in a blob that is decoded as it arrives: one more request, then exit ${exit}`, async () => {
    await using setting = await Setting.open(image);
    const path = new RegExp(setting.image.layers[1]!.digest);
    setting.registry.fault({ path, ...fault });
    await setting.pullWell(['-o', 'out.erofs', '--no-cache']);
    const right = readFileSync(setting.scratch.join('out.erofs'));
    setting.registry.fault({ path, times: 99, ...fault });
    const { exitCode, stderr } = await setting.pull(['-o', 'out.erofs', '--no-cache', '--retry', '1']);
    assert.equal(exitCode, exit, stderr);
    assert.ok(readFileSync(setting.scratch.join('out.erofs')).equals(right));
    assert.deepEqual(setting.names, ['out.erofs']);
  });
}

test('a corrupt blob of the cache is found while it is read, and fetched again', async () => {
  await using setting = await Setting.open(image);
  await setting.pullWell(['-o', 'right.erofs']);
  const blob = setting.blob(setting.image.layers[1]!.digest);
  const bytes = readFileSync(blob);
  bytes[2_000_000]! ^= 1;
  writeFileSync(blob, bytes);
  const { stderr } = await setting.pullWell(['-o', 'out.erofs']);
  assert.match(stderr, /cached copy has digest .*; starting the pull again without it/);
  const read = (name: string) => readFileSync(setting.scratch.join(name));
  assert.ok(read('out.erofs').equals(read('right.erofs')));
});

test('a tar that ends within an entry: exit 6, and the stream gets nothing', async () => {
  const cut = tars[1]!.subarray(0, 4 * 2 ** 20);
  await using setting = await Setting.open({ layers: [{ tar: tars[0]! }, { tar: cut }] });
  const output = new PassThrough();
  await assert.rejects(
    exportArchive(setting.reference, output, { cacheDirectory: setting.store }),
    (error: unknown) => error instanceof IntegrityError && /the archive ends within/.test(error.message),
  );
  assert.equal(output.readableLength, 0);
});

for (const [signal, exitCode] of [
  ['SIGTERM', 143],
  ['SIGKILL', null],
] as const) {
  test(`${signal} while a layer is decoded as it arrives: no file, and the next run succeeds`, async () => {
    await using setting = await Setting.open(image);
    setting.registry.fault({ path: new RegExp(setting.image.layers[1]!.digest), rate: 2_000_000 });
    const run = setting.start(['-o', 'out.erofs', '-v']);
    const asked = () => setting.registry.log(new RegExp(setting.image.layers[1]!.digest)).length > 0;
    await until('a request for the second layer', asked);
    run.kill(signal);
    const result = await run.result;
    if (exitCode !== null) {
      assert.equal(result.exitCode, exitCode, result.stderr);
      assert.deepEqual(setting.names, []);
    }
    assert.ok(!setting.names.includes('out.erofs'));
    await setting.pullWell(['-o', 'out.erofs']);
    assert.deepEqual(setting.names, ['out.erofs']);
  });
}
