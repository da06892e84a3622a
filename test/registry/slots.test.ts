import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RemoteLayer } from '../../src/oci/image.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { RegistryClient } from '../support/registry-client.ts';

const layers = [0, 1, 2].map((n) => Buffer.alloc(1_000_000, n));
const never = new AbortController().signal;

/** A client with one slot, which the body of the first layer holds until `release`. */
async function withOneSlot(
  run: (
    layers: readonly RemoteLayer[],
    release: () => Promise<void>,
    registry: FakeRegistry,
  ) => Promise<void>,
): Promise<void> {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app'), { connections: 1 });
  const image = await client.image();
  const { body } = await image.layers[0]!.open({ start: 0 }, never);
  const release = async () => {
    for await (const chunk of body) void chunk;
  };
  await run(image.layers, release, registry);
}

const open = (layer: RemoteLayer | undefined, signal = never) => layer!.open({ start: 0 }, signal);

test('slots are given in order, and back', async () => {
  await withOneSlot(async ([, second, third], release, registry) => {
    const before = registry.requests.length;
    const log: number[] = [];
    const all = [second, third].map(async (layer, number) => {
      const { body } = await open(layer);
      log.push(number);
      for await (const chunk of body) void chunk;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(registry.requests.length, before);
    await release();
    await Promise.all(all);
    assert.deepEqual(log, [0, 1]);
  });
});

test('a request that is aborted while it waits for a slot is passed over', async () => {
  await withOneSlot(async ([, second, third], release, registry) => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const left = assert.rejects(open(second, abort.signal), reason);
    const next = open(third);
    const before = registry.requests.length;
    abort.abort(reason);
    await left;
    await release();
    await next;
    assert.equal(registry.requests.length, before + 1);
    await assert.rejects(open(second, abort.signal), reason);
  });
});

test('an abort that comes just after the slot takes it from nobody else', async () => {
  await withOneSlot(async ([, second, third], release) => {
    const abort = new AbortController();
    const first = open(second, abort.signal);
    const next = open(third);
    await release();
    const { body } = await first;
    abort.abort(new Error('late'));
    await assert.rejects(async () => {
      for await (const chunk of body) void chunk;
    }, /late/);
    await next;
  });
});
