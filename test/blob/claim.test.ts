import assert from 'node:assert/strict';
import { readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { type Claim, claim } from '../../src/blob/claim.ts';
import { StoreFiles } from '../../src/blob/store-files.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import { lockFile } from '../../src/sys/system-calls.ts';
import { Workshop } from './support/workshop.ts';

const digest = digestOf(Buffer.from('right'));

/** Claims the blob, and lets `event` happen between the opening of the partial file and its lock. */
async function claimWith(shop: Workshop, event: (partial: string, blob: string) => void) {
  const files = await StoreFiles.prepare(shop.cache);
  const partial = path.join(shop.cache, 'partial', digest.replace(':', '-'));
  const blob = path.join(shop.cache, 'blobs', 'sha256', hexOf(digest));
  let times = 0;
  const lock: typeof lockFile = (...arguments_) => {
    times += 1;
    if (times === 1) event(partial, blob);
    return lockFile(...arguments_);
  };
  const wanted = { digest, signal: new AbortController().signal, waiting: () => undefined };
  return { partial, blob, claimed: await claim(wanted, { files, lock }) };
}

async function complete(claimed: Claim | 'there', from: number): Promise<void> {
  assert.ok(claimed !== 'there');
  await claimed.handle.write('right'.slice(from), from);
  await claimed.publish();
  await claimed.release(true);
}

test('the run before completes the blob while this one opens its partial file: the blob is there', async () => {
  await using shop = await Workshop.open();
  const { blob, claimed } = await claimWith(shop, (partial, to) => {
    writeFileSync(partial, 'right');
    renameSync(partial, to);
  });
  assert.equal(claimed, 'there');
  assert.equal(readFileSync(blob, 'utf8'), 'right');
});

test('the run before removes the partial file while this one opens it: a new one is claimed', async () => {
  await using shop = await Workshop.open();
  const { blob, claimed } = await claimWith(shop, unlinkSync);
  await complete(claimed, 0);
  assert.equal(readFileSync(blob, 'utf8'), 'right');
});

test('another run puts its partial file in the place of the one that this one opens: that one is claimed', async () => {
  await using shop = await Workshop.open();
  const { partial, blob, claimed } = await claimWith(shop, (name) => {
    unlinkSync(name);
    writeFileSync(name, 'rig');
  });
  assert.ok(claimed !== 'there');
  assert.deepEqual(claimed.kept.ranges, [{ start: 0, end: 3 }]);
  assert.equal((await claimed.handle.stat()).ino, statSync(partial).ino);
  await complete(claimed, 3);
  assert.equal(readFileSync(blob, 'utf8'), 'right');
});
