import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { getuid } from 'node:process';
import { describe, it, test, type TestContext } from 'node:test';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { claim } from '../../src/blob/claim.ts';
import { filesToEvict, isAbandoned, type StoredFile, StoreFiles } from '../../src/blob/store-files.ts';
import { pruneStore, storeSize } from '../../src/blob/store.ts';
import { CorruptBlobError } from '../../src/blob/transfer.ts';
import { lockFile } from '../../src/sys/system-calls.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Layer } from '../../src/oci/image.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { until } from '../support/until.ts';
import { layersOf } from './support/http-layer.ts';
import { noise, Workshop } from './support/workshop.ts';

const root = getuid?.() === 0;
const run = promisify(execFile);
const program = new URL('support/pull-process.ts', import.meta.url).pathname;
const never = new AbortController().signal;

async function oneBlob(
  bytes: Uint8Array,
  options = {},
): Promise<{ registry: FakeRegistry; layer: Layer; url: string }> {
  const registry = await FakeRegistry.start(options);
  const image = registry.push('lib/x', 'latest', { layers: [{ tar: bytes, compression: 'none' }] });
  const [layer] = layersOf(registry, 'lib/x', image);
  return { registry, layer: layer!, url: `${registry.url}/v2/lib/x/blobs/${layer!.digest}` };
}

function blobPath(shop: Workshop, digest: string): string {
  return path.join(shop.cache, 'blobs', 'sha256', digest.slice(7));
}

function partialPath(shop: Workshop, digest: string): string {
  return path.join(shop.cache, 'partial', digest.replace(':', '-'));
}

test('a second pull reads the store, and only our user can read the store', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(500_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  assert.deepEqual(await shop.pull([layer]), [bytes]);
  assert.deepEqual(await shop.pull([layer]), [bytes]);
  assert.equal(registry.requests.length, 1);
  const starts = shop.events.filter((event) => event.type === 'layer-start').map((event) => event.cached);
  assert.deepEqual(starts, [false, true]);
  for (const name of readdirSync(shop.cache, { recursive: true, encoding: 'utf8' })) {
    const stats = lstatSync(path.join(shop.cache, name));
    assert.equal(stats.mode & 0o777, stats.isDirectory() ? 0o700 : 0o600, name);
  }
});

test('a blob that another run completes while this run looks for it stays in the store', async () => {
  await using shop = await Workshop.open();
  const store = await shop.store();
  for (let turn = 0; turn < 200; turn += 1) {
    const bytes = noise(64);
    const blob = blobPath(shop, digestOf(bytes));
    writeFileSync(`${blob}.new`, bytes, { mode: 0o600 });
    const looking = store.openBlob(digestOf(bytes));
    for (let ticks = turn % 40; ticks > 0; ticks -= 1) await setImmediate();
    renameSync(`${blob}.new`, blob);
    await (await looking)?.close();
    assert.equal(existsSync(blob), true, `gone after ${turn % 40} ticks`);
  }
  await store.close();
});

test('manifests and configs are kept by digest, and checked when they are read', async () => {
  await using shop = await Workshop.open();
  const store = await shop.store();
  const bytes = Buffer.from('{"schemaVersion":2}');
  const digest = digestOf(bytes);
  assert.equal(await store.get(digest), undefined);
  await store.put(digest, bytes);
  assert.deepEqual(await store.get(digest), bytes);
  assert.equal(await store.has(digest), true);
  writeFileSync(blobPath(shop, digest), '{"schemaVersion":3}');
  assert.equal(await store.get(digest), undefined);
  assert.equal(existsSync(blobPath(shop, digest)), false);
  await store.close();
});

/**
 * Damage to a complete blob, and the time when it is found: before or after its first bytes were returned.
 */
const damages: readonly [string, 'at once' | 'while reading', (blob: string) => void][] = [
  ['cut off', 'at once', (blob) => truncateSync(blob, 1000)],
  ['empty', 'at once', (blob) => truncateSync(blob, 0)],
  ['too long', 'at once', (blob) => writeFileSync(blob, 'more', { flag: 'a' })],
  [
    'a link to a file outside',
    'at once',
    (blob) => {
      renameSync(blob, `${blob}.outside`);
      symlinkSync(`${blob}.outside`, blob);
    },
  ],
  ['a second name of a file outside', 'at once', (blob) => linkSync(blob, `${blob}.outside`)],
  [
    'a directory',
    'at once',
    (blob) => {
      unlinkSync(blob);
      mkdirSync(blob);
    },
  ],
  [
    'a FIFO',
    'at once',
    (blob) => {
      unlinkSync(blob);
      execFileSync('mkfifo', ['-m', '600', blob]);
    },
  ],
  [
    'flipped in one byte',
    'while reading',
    (blob) => {
      const bytes = readFileSync(blob);
      bytes[250_000]! ^= 1;
      writeFileSync(blob, bytes);
    },
  ],
];
for (const [name, when, damage] of damages) {
  test(`a blob in the store that is ${name}, is noticed ${when} and fetched anew`, async () => {
    await using shop = await Workshop.open();
    const bytes = noise(500_000);
    const { registry, layer } = await oneBlob(bytes);
    await using _ = registry;
    await shop.pull([layer]);
    damage(blobPath(shop, layer.digest!));
    const outside = `${blobPath(shop, layer.digest!)}.outside`;
    const store = await shop.store();
    if (when === 'while reading') await assert.rejects(shop.pull([layer], { store }), CorruptBlobError);
    assert.deepEqual(await shop.pull([layer], { store }), [bytes]);
    assert.equal(registry.requests.length, 2);
    if (existsSync(outside)) assert.deepEqual(readFileSync(outside), bytes);
    await store.close();
  });
}

test('a damaged blob is fetched again unnoticed if layers are held', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(500_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  await shop.pull([layer]);
  damages.at(-1)![2](blobPath(shop, layer.digest!));
  assert.deepEqual(await shop.pull([layer], { hold: true }), [bytes]);
  assert.match(shop.notices.join(), /cached copy is corrupt; downloading it again/);
});

test('another user’s blob is not trusted', async (t) => {
  if (!root) return t.skip('needs root');
  await using shop = await Workshop.open();
  const bytes = noise(50_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  await shop.pull([layer]);
  chownSync(blobPath(shop, layer.digest!), 12345, 12345);
  assert.deepEqual(await shop.pull([layer]), [bytes]);
  assert.equal(registry.requests.length, 2);
  assert.equal(statSync(blobPath(shop, layer.digest!)).uid, 0);
  return undefined;
});

const tag = `Signature: 8a477f597d28d172789f06886806bc55
# This file is a cache directory tag created by dlrootfs.
`;

/** Unusable directories of the store, and the words of the error. */
const unusable: readonly [string, RegExp, (cache: string) => void][] = [
  ['a file', /continuing without the cache: .*EEXIST|not a directory/, (cache) => writeFileSync(cache, '')],
  [
    'under a file',
    /continuing without the cache: .*ENOTDIR/,
    (cache) => (writeFileSync(path.dirname(cache), ''), undefined),
  ],
  [
    'writable by others',
    /continuing without the cache: .* can be written by others/,
    (cache) => {
      mkdirSync(cache);
      chmodSync(cache, 0o777);
    },
  ],
  [
    'one whose blobs others may write',
    /continuing without the cache: .*blobs can be written by others/,
    (cache) => {
      mkdirSync(cache);
      writeFileSync(path.join(cache, 'CACHEDIR.TAG'), tag);
      mkdirSync(path.join(cache, 'blobs'));
      chmodSync(path.join(cache, 'blobs'), 0o777);
    },
  ],
  [
    'one with a link where blobs belong',
    /continuing without the cache: cannot open .*blobs: not a directory/,
    (cache) => {
      mkdirSync(cache);
      writeFileSync(path.join(cache, 'CACHEDIR.TAG'), tag);
      symlinkSync('/tmp', path.join(cache, 'blobs'));
    },
  ],
  [
    'another user’s',
    /continuing without the cache: .* belongs to user 12345, not to user 0/,
    (cache) => {
      mkdirSync(cache);
      chownSync(cache, 12345, 12345);
    },
  ],
];
for (const [name, notice, prepare] of unusable) {
  test(`a cache directory that is ${name} is done without, in one notice`, async (t) => {
    if (name.startsWith('another') && !root) return t.skip('needs root');
    await using shop = await Workshop.open();
    const bytes = noise(50_000);
    const { registry, layer } = await oneBlob(bytes);
    await using _ = registry;
    const cache = path.join(shop.directory, 'below', 'cache');
    if (name !== 'under a file') mkdirSync(path.dirname(cache));
    prepare(cache);
    const store = await shop.store({ directory: cache });
    assert.deepEqual(await shop.pull([layer, layer], { store }), [bytes, bytes]);
    await store.put(digestOf(bytes), bytes);
    await store.close();
    assert.equal(shop.notices.length, 1);
    assert.match(shop.notices[0]!, notice);
    return undefined;
  });
}

test('a store on a read-only disk is read, and nothing is added', async (t) => {
  if (!root) return t.skip('needs root to mount');
  await using shop = await Workshop.open();
  const known = noise(50_000);
  const { registry, layer } = await oneBlob(known);
  await using _ = registry;
  const bytes = noise(60_000);
  const image = registry.push('lib/x', 'other', { layers: [{ tar: bytes, compression: 'none' }] });
  const [other] = layersOf(registry, 'lib/x', image);
  await shop.pull([layer]);
  try {
    await run('mount', ['--bind', shop.cache, shop.cache]);
    await run('mount', ['-o', 'remount,bind,ro', shop.cache]);
  } catch {
    await run('umount', [shop.cache]).catch(() => undefined);
    return t.skip('cannot mount here');
  }
  try {
    assert.deepEqual(await shop.pull([layer, other!]), [known, bytes]);
    assert.equal(registry.requests.length, 2);
    assert.equal(shop.notices.length, 1);
    assert.match(shop.notices[0]!, /nothing is added to the cache: cannot keep blobs in .*\(EROFS\)/);
  } finally {
    await run('umount', [shop.cache]);
  }
  return undefined;
});

/** Runs `use` with a disk of 1 MiB, or skips the test. */
async function withSmallDisk(t: TestContext, use: (shop: Workshop, small: string) => Promise<void>) {
  if (!root) return t.skip('needs root to mount');
  await using shop = await Workshop.open();
  const small = path.join(shop.directory, 'small');
  mkdirSync(small);
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=1m,mode=700', 'tmpfs', small]).catch(
    () => undefined,
  );
  if (!mounted) return t.skip('cannot mount here');
  try {
    await use(shop, small);
  } finally {
    await run('umount', [small]);
  }
  return undefined;
}

describe('a full disk', () => {
  for (const hold of [false, true]) {
    it(`of the cache: the pull goes on without it${hold ? ', layers held' : ''}`, (t) =>
      withSmallDisk(t, async (shop, small) => {
        const bytes = [noise(5_000_000), noise(3_000_000), noise(400_000)];
        await using registry = await FakeRegistry.start();
        const image = registry.push('lib/x', 'latest', {
          layers: bytes.map((tar) => ({ tar, compression: 'none' as const })),
        });
        const store = await shop.store({ directory: small });
        const layers = layersOf(registry, 'lib/x', image);
        assert.deepEqual(await shop.pull(layers, { store, hold }), bytes);
        await store.close();
        assert.equal(registry.requests.length, 3);
        assert.deepEqual(shop.notices, [
          `nothing is added to the cache: cannot keep blobs in ${small}: no space left on device (ENOSPC)`,
        ]);
        // The space is free again after the error.
        assert.deepEqual(readdirSync(path.join(small, 'partial')), []);
      }));
  }

  it('of the cache: the notice names the directory also where a manifest cannot be written', (t) =>
    withSmallDisk(t, async (shop, small) => {
      const store = await shop.store({ directory: small });
      const manifest = noise(2_000_000);
      await store.put(digestOf(manifest), manifest);
      await store.close();
      assert.deepEqual(shop.notices, [
        `nothing is added to the cache: cannot keep blobs in ${small}: no space left on device (ENOSPC)`,
      ]);
    }));

  it('of the cache: bytes of an earlier run are used', (t) =>
    withSmallDisk(t, async (shop, small) => {
      const bytes = noise(5_000_000);
      const { registry, layer } = await oneBlob(bytes);
      await using _ = registry;
      const store = await shop.store({ directory: small });
      writeFileSync(path.join(small, 'partial', layer.digest!.replace(':', '-')), bytes.subarray(0, 700_000));
      assert.deepEqual(await shop.pull([layer], { store }), [bytes]);
      await store.close();
      assert.equal(registry.requests.at(-1)!.headers.range, 'bytes=700000-');
      assert.equal(shop.notices.length, 1);
    }));

  it('of both is named', (t) =>
    withSmallDisk(t, async (shop, small) => {
      const { registry, layer } = await oneBlob(noise(5_000_000));
      await using _ = registry;
      const spoolDirectory = path.join(small, 'spool');
      for (const directory of [small, undefined]) {
        const store = await shop.store({ directory, spoolDirectory });
        await assert.rejects(shop.pull([layer], { store, hold: true }), {
          name: 'DestinationError',
          exitCode: 7,
          message: `cannot keep blobs in ${spoolDirectory}: no space left on device (ENOSPC)`,
        });
        await store.close();
        assert.equal(existsSync(spoolDirectory), false);
        rmSync(path.join(small, 'partial'), { recursive: true, force: true });
      }
    }));
});

test('the bytes of an interrupted run are resumed, after they were read again', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(3_000_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  registry.fault({ path: /blobs/, times: 3, cutAfter: 0 });
  registry.fault({ path: /blobs/, times: 1, cutAfter: 1_000_000 });
  const faults = new AbortController();
  const first = shop.pull([layer], { signal: faults.signal, retryPolicy: { retries: 9, delay: 1 } });
  await first;
  unlinkSync(blobPath(shop, layer.digest!));
  writeFileSync(partialPath(shop, layer.digest!), bytes.subarray(0, 1_234_567), { mode: 0o600 });
  assert.deepEqual(await shop.pull([layer]), [bytes]);
  assert.equal(registry.requests.at(-1)!.headers.range, 'bytes=1234567-');
  assert.equal(existsSync(partialPath(shop, layer.digest!)), false);
});

const leftovers: readonly [string, (bytes: Buffer, partial: string) => void, (string | undefined)[]][] = [
  ['whole', (bytes, partial) => writeFileSync(partial, bytes, { mode: 0o600 }), []],
  [
    'damaged',
    (bytes, partial) => writeFileSync(partial, Buffer.concat([Buffer.from('x'), bytes.subarray(1, 9000)])),
    ['bytes=9000-', undefined],
  ],
  [
    'longer than the blob',
    (bytes, partial) => writeFileSync(partial, Buffer.concat([bytes, bytes])),
    [undefined],
  ],
  [
    'a link',
    (_bytes, partial) => {
      writeFileSync(`${path.dirname(partial)}/../outside`, 'outside');
      symlinkSync('../outside', partial);
    },
    [undefined],
  ],
  [
    'known to have a hole',
    (bytes, partial) => {
      writeFileSync(partial, Buffer.concat([bytes.subarray(0, 5000), Buffer.alloc(20_000)]));
      writeFileSync(`${partial}.ranges`, '50000\n0-5000');
    },
    ['bytes=5000-'],
  ],
  [
    'marked with nonsense',
    (bytes, partial) => {
      writeFileSync(partial, bytes.subarray(0, 5000));
      writeFileSync(`${partial}.ranges`, '\n0-5e99');
    },
    [undefined],
  ],
  [
    'known to have several holes',
    (bytes, partial) => {
      const holes = Buffer.from(bytes).fill(0, 5000, 9000).fill(0, 12_000, 20_000);
      writeFileSync(partial, holes.subarray(0, 30_000));
      writeFileSync(`${partial}.ranges`, '50000\n0-5000\n9000-12000\n20000-30000');
    },
    ['bytes=5000-8999', 'bytes=12000-19999', 'bytes=30000-49999'],
  ],
  [
    'without its first bytes',
    (bytes, partial) => {
      writeFileSync(partial, Buffer.from(bytes).fill(0, 0, 40_000));
      writeFileSync(`${partial}.ranges`, '50000\n40000-50000');
    },
    ['bytes=0-39999'],
  ],
  [
    'said to be longer than it is',
    (bytes, partial) => {
      writeFileSync(partial, bytes.subarray(0, 5000));
      writeFileSync(`${partial}.ranges`, '50000\n0-9000\n12000-50000');
    },
    ['bytes=5000-'],
  ],
  [
    'noted in no order',
    (bytes, partial) => {
      writeFileSync(partial, bytes.subarray(0, 9000));
      writeFileSync(`${partial}.ranges`, '50000\n5000-9000\n0-5000');
    },
    [undefined],
  ],
  [
    'noted with a range behind others that it precedes',
    (bytes, partial) => {
      writeFileSync(partial, bytes.subarray(0, 12_000));
      writeFileSync(`${partial}.ranges`, '50000\n0-5000\n9000-12000\n3000-4000');
    },
    [undefined],
  ],
];
for (const [name, leave, ranges] of leftovers) {
  test(`a partial file that is ${name} leads to the right blob`, async () => {
    await using shop = await Workshop.open();
    const bytes = noise(50_000);
    const { registry, layer } = await oneBlob(bytes);
    await using _ = registry;
    await (await shop.store()).close();
    leave(bytes, partialPath(shop, layer.digest!));
    assert.deepEqual(await shop.pullAgain([layer]), [bytes]);
    assert.deepEqual(
      registry.requests.map((request) => request.headers.range),
      ranges,
    );
    assert.deepEqual(readdirSync(path.join(shop.cache, 'partial')), []);
    const outside = path.join(shop.cache, 'outside');
    if (existsSync(outside)) assert.equal(readFileSync(outside, 'utf8'), 'outside');
  });
}

test('bytes of an earlier run are checked before anything is made of them', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(500_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  await (await shop.store()).close();
  writeFileSync(partialPath(shop, layer.digest!), Buffer.alloc(300_000));
  await assert.rejects(shop.pull([layer]), CorruptBlobError);
  assert.equal(shop.given, 0);
});

test('a server that sends too many bytes: none is used, and none is kept', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(50_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  registry.fault({ path: /blobs/, body: Buffer.concat([bytes, bytes]), endAfter: 100_000 });
  await assert.rejects(shop.pull([layer]), {
    code: 'DIGEST_MISMATCH',
    message: /more than its 50000 bytes$/,
  });
  assert.deepEqual(readdirSync(path.join(shop.cache, 'partial')), []);
});

test('a corrupt blob that another run has replaced by a right one stays', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(5000);
  const digest = digestOf(bytes);
  const store = await shop.store();
  const blob = blobPath(shop, digest);
  for (const [number, content] of ['corrupt', bytes].entries()) {
    writeFileSync(blob, content, { mode: 0o600 });
    await using opened = (await store.openBlob(digest))!;
    if (number === 0) {
      writeFileSync(`${blob}.new`, bytes, { mode: 0o600 });
      renameSync(`${blob}.new`, blob);
    }
    await store.remove(digest, opened);
    assert.equal(existsSync(blob), number === 0);
  }
  await store.close();
});

test('a note of ranges is removed with the last hole: later bytes are kept, wrong ones are not', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(50_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  await (await shop.store()).close();
  const partial = partialPath(shop, layer.digest!);
  writeFileSync(partial, Buffer.concat([bytes.subarray(0, 5000), Buffer.alloc(20_000)]));
  writeFileSync(`${partial}.ranges`, '50000\n0-5000');
  registry.fault({ path: /blobs/, cutAfter: 10_000 });
  const retryPolicy = { retries: 0, delay: 1 };
  await assert.rejects(shop.pull([layer], { retryPolicy }), { name: 'BrokenTransferError' });
  assert.equal(statSync(partial).size, 15_000);
  assert.equal(existsSync(`${partial}.ranges`), false);
  assert.deepEqual(await shop.pull([layer], { retryPolicy }), [bytes]);
  assert.equal(registry.requests.at(-1)!.headers.range, 'bytes=15000-');
});

test('two runs at once fetch a blob once', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(3_000_000);
  const { registry, layer, url } = await oneBlob(bytes);
  await using _ = registry;
  registry.fault({ path: /blobs/, times: 9, rate: 3_000_000 });
  const args = [program, shop.cache, url, layer.digest!, String(bytes.length)];
  const runs = await Promise.all([run('node', args), run('node', args), run('node', args)]);
  for (const { stdout } of runs) assert.equal(stdout, `${layer.digest}\n`);
  assert.equal(registry.requests.length, 1);
  assert.ok(runs.some(({ stderr }) => /another run is downloading it; waiting for that run/.test(stderr)));
});

test('a killed run leaves nothing that stops the next one, which resumes its download', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(4_000_000);
  const { registry, layer, url } = await oneBlob(bytes);
  await using _ = registry;
  registry.fault({ path: /blobs/, rate: 4_000_000 });
  const args = [program, shop.cache, url, layer.digest!, String(bytes.length)];
  const first = spawn('node', args, { stdio: 'ignore' });
  const partial = partialPath(shop, layer.digest!);
  await until('the first bytes', () => existsSync(partial) && statSync(partial).size >= 500_000);
  const waiting = run('node', args);
  await sleep(300);
  first.kill('SIGKILL');
  const { stdout } = await waiting;
  assert.equal(stdout, `${layer.digest}\n`);
  assert.equal(registry.requests.length, 2);
  assert.ok(Number(/bytes=(\d+)-/.exec(registry.requests[1]!.headers.range!)![1]) >= 500_000);
});

test('a lock whose owner makes no progress is not waited for', async () => {
  await using shop = await Workshop.open();
  const files = await StoreFiles.prepare(shop.cache);
  const digest = digestOf(Buffer.from('x'));
  const wanted = { digest, signal: never, waiting: () => undefined };
  const options = { files, lock: lockFile, patience: 150 };
  const first = await claim(wanted, options);
  const second = await claim(wanted, options);
  assert.ok(first !== 'there' && second !== 'there');
  await second.handle.write('x');
  await second.publish();
  await second.release(true);
  assert.equal(readFileSync(blobPath(shop, digest), 'utf8'), 'x');
  const third = claim(wanted, options);
  await first.release(true);
  assert.equal(await third, 'there');
  assert.deepEqual(
    readdirSync(path.join(shop.cache, 'partial')).filter((name) => name.startsWith('private')),
    [],
  );
});

test('without locks every run has a file of its own', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(100_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  const stores = await Promise.all([shop.store({ locks: false }), shop.store({ locks: false })]);
  const pulls = await Promise.all(stores.map((store) => shop.pull([layer], { store })));
  assert.deepEqual(pulls, [[bytes], [bytes]]);
  assert.deepEqual(readdirSync(path.join(shop.cache, 'partial')), []);
  for (const store of stores) await store.close();
});

test('the store stays within its limit: the least recently used blobs are removed, never those of this run', async () => {
  await using shop = await Workshop.open();
  const registry = await FakeRegistry.start();
  await using _ = registry;
  const blobs = [noise(300_000), noise(300_000), noise(300_000)];
  const image = registry.push('lib/x', 'latest', {
    layers: blobs.map((tar) => ({ tar, compression: 'none' as const })),
  });
  const layers = layersOf(registry, 'lib/x', image);
  const maxBytes = 700_000;
  const pull = async (indexes: number[]) => {
    const store = await shop.store({ maxBytes });
    await shop.pull(
      indexes.map((index) => layers[index]!),
      { store },
    );
    await store.close();
  };
  const there = () => layers.map((layer) => existsSync(blobPath(shop, layer.digest!)));
  await pull([0, 1]);
  utimesSync(blobPath(shop, layers[0]!.digest!), 1000, 1000);
  utimesSync(blobPath(shop, layers[1]!.digest!), 2000, 2000);
  await pull([0]);
  await pull([2]);
  assert.deepEqual(there(), [true, false, true]);
  const store = await shop.store({ maxBytes: 100_000 });
  assert.deepEqual(await shop.pull(layers, { store }), blobs);
  await store.close();
  assert.deepEqual(there(), [false, false, false]);
});

test('a file that another run is writing is not evicted', async () => {
  await using shop = await Workshop.open();
  const files = await StoreFiles.prepare(shop.cache);
  const digest = digestOf(Buffer.from('x'));
  const wanted = { digest, signal: never, waiting: () => undefined };
  const mine = await claim(wanted, { files, lock: lockFile });
  assert.ok(mine !== 'there');
  await mine.handle.writeFile(noise(200_000));
  assert.deepEqual(await pruneStore(shop.cache, 0), {
    directory: shop.cache,
    blobs: 0,
    partials: 0,
    bytes: 0,
  });
  await mine.release(true);
  assert.equal((await pruneStore(shop.cache, 0)).partials, 1);
  assert.deepEqual(await storeSize(shop.cache), { directory: shop.cache, blobs: 0, partials: 0, bytes: 0 });
});

test('size and prune count the same files, in the same way', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(100_000);
  const { registry, layer } = await oneBlob(bytes);
  await using _ = registry;
  assert.deepEqual(await storeSize(shop.cache), { directory: shop.cache, blobs: 0, partials: 0, bytes: 0 });
  await shop.pull([layer]);
  const size = await storeSize(shop.cache);
  assert.equal(size.blobs, 1);
  assert.ok(size.bytes >= 100_000 && size.bytes < 120_000);
  const store = await shop.store();
  await store.remember('lib/x:latest', layer.digest!);
  await store.close();
  assert.equal((await storeSize(shop.cache)).blobs, 1);
  assert.equal((await pruneStore(shop.cache, 1_000_000)).bytes, 0);
  const all = await storeSize(shop.cache);
  assert.deepEqual(await pruneStore(shop.cache, 0), all);
});

function stored(name: string, bytes: number, lastUsed: number): StoredFile {
  return { name: `tags/${name}`, bytes, lastUsed };
}

test('eviction chooses by last use and spares what is pinned', () => {
  const files = [stored('a', 10, 5), stored('b', 10, 1), stored('c', 10, 3), stored('d', 10, 4)];
  const names = (max: number) =>
    filesToEvict(files, max, new Set(['tags/c'])).map((each) => path.basename(each.name));
  assert.deepEqual(names(40), []);
  assert.deepEqual(names(39), ['b']);
  assert.deepEqual(names(15), ['b', 'd', 'a']);
  assert.deepEqual(names(0), ['b', 'd', 'a']);
});

test('files of old killed runs are recognised', () => {
  const day = 86_400_000;
  const file = (name: StoredFile['name'], days: number) => ({
    name,
    bytes: 1,
    lastUsed: 100 * day - days * day,
  });
  const files = [
    file('partial/private-1', 2),
    file('partial/private-2', 0.5),
    file('partial/sha256-aa', 31),
    file('partial/sha256-bb', 29),
    file('blobs/sha256/dd', 400),
  ];
  assert.deepEqual(
    files.filter((one) => isAbandoned(one, 100 * day)).map((each) => path.basename(each.name)),
    ['private-1', 'sha256-aa'],
  );
});
