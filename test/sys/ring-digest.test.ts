import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { createRingDigest, RingDigest } from '../../src/sys/ring-digest.ts';

const CAPACITY = 64 * 1024;

function bothEnds() {
  const memory = createRingDigest();
  const ring = new Uint8Array(new SharedArrayBuffer(CAPACITY)).fill(7);
  const digestOf = (length: number) => createHash('sha256').update(ring.subarray(0, length)).digest('hex');
  return { one: new RingDigest(memory, ring), other: new RingDigest(memory, ring), digestOf };
}

test('a thread that has read less of the stream hashes nothing', (t) => {
  const { one, other, digestOf } = bothEnds();
  if (!one.begin(0)) return t.skip('needs the functions of OpenSSL');
  assert.equal(one.step(5000, CAPACITY), 5000);
  assert.equal(other.step(3000, CAPACITY), 0);
  assert.equal(other.step(6000, CAPACITY), 1000);
  assert.equal(
    one.finish(6000, () => true),
    digestOf(6000),
  );
});

test('bytes of an aborted stream are in no digest', (t) => {
  const { one, other, digestOf } = bothEnds();
  if (!one.begin(0)) return t.skip('needs the functions of OpenSSL');
  assert.equal(other.step(4000, CAPACITY), 4000);
  one.end();
  assert.equal(one.firstNeeded(), undefined);
  assert.equal(other.step(4500, CAPACITY), 0);
  assert.ok(one.begin(0));
  assert.equal(other.step(4500, 4000), 4000);
  assert.equal(
    one.finish(4500, () => true),
    digestOf(4500),
  );
});

test('a digest that is no longer wanted is not waited for', (t) => {
  const { one } = bothEnds();
  if (!one.begin(0)) return t.skip('needs the functions of OpenSSL');
  assert.equal(
    one.finish(6000, () => false),
    undefined,
  );
});
