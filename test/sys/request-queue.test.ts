import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as soon } from 'node:timers/promises';
import fc from 'fast-check';
import { RequestQueue } from '../../src/sys/request-queue.ts';

/** Requests that a test ends; `log` has those that have started. */
class Play {
  readonly log: string[] = [];
  readonly #queue: RequestQueue;
  readonly #ends = new Map<string, () => void>();

  constructor(connections: number) {
    this.#queue = new RequestQueue(connections);
  }

  async request(rank: number, name: string): Promise<void> {
    await this.#queue.run(rank, async () => {
      this.log.push(name);
      await new Promise<void>((resolve) => this.#ends.set(name, resolve));
    });
  }

  async end(name: string): Promise<void> {
    this.#ends.get(name)!();
    await soon();
  }
}

test('no more requests run than there may be connections, in the order of the image', async () => {
  const play = new Play(2);
  for (const rank of [0, 1, 2, 3]) void play.request(rank, `blob ${rank}`);
  await soon();
  assert.deepEqual(play.log, ['blob 0', 'blob 1']);
  await play.end('blob 1');
  assert.deepEqual(play.log, ['blob 0', 'blob 1', 'blob 2']);
  await play.end('blob 0');
  assert.equal(play.log.at(-1), 'blob 3');
});

test('a free connection goes to the earliest blob, also where that asked last', async () => {
  const play = new Play(1);
  for (const [rank, name] of [
    [1, 'b1'],
    [2, 'c1'],
    [1, 'b2'],
    [0, 'a1'],
    [1, 'b3'],
    [0, 'a2'],
  ] as const)
    void play.request(rank, name);
  await soon();
  const order = ['a1', 'a2', 'b1', 'b2', 'b3', 'c1'];
  for (const [place, name] of order.entries()) {
    assert.deepEqual(play.log, order.slice(0, place + 1));
    await play.end(name);
  }
});

test('a request that fails gives its connection back', async () => {
  const queue = new RequestQueue(1);
  const reason = new Error('cut');
  await assert.rejects(
    queue.run(0, () => Promise.reject(reason)),
    reason,
  );
  assert.equal(await queue.run(0, async () => 7), 7);
});

test('however many requests there are, all run, and never more than the limit at once', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 5 }), fc.array(fc.nat(4)), async (limit, ranks) => {
      const queue = new RequestQueue(limit);
      let running = 0;
      let most = 0;
      const request = async () => {
        running += 1;
        most = Math.max(most, running);
        await soon();
        running -= 1;
      };
      await Promise.all(ranks.map((rank) => queue.run(rank, request)));
      assert.equal(most, Math.min(limit, ranks.length));
    }),
  );
});
