import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { createTarDigest, TarDigest } from '../../src/rootfs/tar-digest.ts';

const CAPACITY = 64 * 1024;

function bothEnds() {
  const memory = createTarDigest();
  const ring = new Uint8Array(new SharedArrayBuffer(CAPACITY)).fill(7);
  const digestOf = (length: number) => createHash('sha256').update(ring.subarray(0, length)).digest('hex');
  return { one: new TarDigest(memory, ring), other: new TarDigest(memory, ring), digestOf };
}

test('a thread that knows less of the stream than the other takes in nothing', (t) => {
  const { one, other, digestOf } = bothEnds();
  if (!one.begin(1, 0)) return t.skip('needs the functions of OpenSSL');
  assert.equal(one.step(1, 5000, CAPACITY), 5000);
  assert.equal(other.step(1, 3000, CAPACITY), 0);
  assert.equal(other.step(1, 6000, CAPACITY), 1000);
  assert.equal(
    one.finish(1, 6000, () => true),
    digestOf(6000),
  );
});

test('bytes of a stream that was given up are in no digest', (t) => {
  const { one, other, digestOf } = bothEnds();
  if (!one.begin(1, 0)) return t.skip('needs the functions of OpenSSL');
  assert.equal(other.step(1, 4000, CAPACITY), 4000);
  one.end();
  assert.ok(one.begin(2, 0));
  assert.equal(other.step(1, 4500, CAPACITY), 0);
  assert.equal(other.step(2, 4500, 4000), 4000);
  assert.equal(
    one.finish(2, 4500, () => true),
    digestOf(4500),
  );
});
