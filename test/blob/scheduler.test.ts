import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as soon } from 'node:timers/promises';
import { BIG, Scheduler } from '../../src/blob/scheduler.ts';

/** Blobs that begin and end when the test says so; `log` has who has begun. */
class Play {
  readonly log: string[] = [];
  readonly scheduler: Scheduler;
  readonly #ends = new Map<string, () => void>();

  constructor(count: number) {
    this.scheduler = new Scheduler(count);
  }

  blob(rank: number, size?: number): Promise<void> {
    return this.scheduler.run(rank, size, async () => this.#act(`blob ${rank}`));
  }

  share(rank: number, pieces: { left: number }): () => void {
    return this.scheduler.share({
      rank,
      wanting: () => pieces.left > 0,
      work: async () => {
        pieces.left -= 1;
        await this.#act(`help ${rank}`);
      },
    });
  }

  async #act(name: string): Promise<void> {
    this.log.push(name);
    await new Promise<void>((resolve) => this.#ends.set(name, resolve));
  }

  async end(name: string): Promise<void> {
    this.#ends.get(name)!();
    await soon();
  }
}

test('no more connections than were allowed, blobs in the order of the image', async () => {
  const play = new Play(2);
  for (let rank = 0; rank < 4; rank += 1) void play.blob(rank);
  await soon();
  assert.deepEqual(play.log, ['blob 0', 'blob 1']);
  await play.end('blob 1');
  assert.deepEqual(play.log, ['blob 0', 'blob 1', 'blob 2']);
  await play.end('blob 0');
  assert.deepEqual(play.log.at(-1), 'blob 3');
});

test('big blobs begin few at a time while nothing is known of them, and let small ones pass', async () => {
  const play = new Play(4);
  for (const [rank, size] of [BIG, BIG, BIG, 1000, BIG].entries()) void play.blob(rank, size);
  await soon();
  assert.deepEqual(play.log, ['blob 0', 'blob 1', 'blob 3']);
  play.scheduler.stopMeasuring(1);
  await soon();
  assert.deepEqual(play.log.slice(3), ['blob 2']);
  await play.end('blob 3');
  assert.equal(play.log.length, 4, 'blob 4 waits for what becomes of 0 and 2');
  await play.end('blob 0');
  assert.deepEqual(play.log.slice(4), ['blob 4']);
});

test('one connection is enough for big blobs, one after the other', async () => {
  const play = new Play(1);
  const all = [play.blob(0, BIG), play.blob(1, BIG)];
  await soon();
  await play.end('blob 0');
  await play.end('blob 1');
  await Promise.all(all);
  assert.deepEqual(play.log, ['blob 0', 'blob 1']);
});

test('a free connection goes to the first blob that can use it, before one that has not begun', async () => {
  const play = new Play(3);
  for (let rank = 0; rank < 4; rank += 1) void play.blob(rank, 1000);
  await soon();
  const second = { left: 1 };
  const first = { left: 1 };
  play.share(1, second);
  const end = play.share(0, first);
  assert.equal(play.scheduler.wantedBefore(1), true);
  assert.equal(play.scheduler.wantedBefore(0), false);
  await play.end('blob 2');
  assert.deepEqual(play.log.slice(3), ['help 0']);
  assert.equal(play.scheduler.wantedBefore(1), false);
  await play.end('help 0');
  assert.deepEqual(play.log.slice(4), ['help 1']);
  await play.end('help 1');
  assert.deepEqual(play.log.slice(5), ['blob 3']);
  first.left = 1;
  end();
  await play.end('blob 3');
  assert.equal(play.log.length, 6, 'what has ended its sharing gets no more');
});

test('a connection that helps is given up for an earlier blob that may begin by now', async () => {
  const play = new Play(4);
  for (const [rank, size] of [BIG, BIG, BIG, 1000].entries()) void play.blob(rank, size);
  play.share(3, { left: 9 });
  await soon();
  assert.deepEqual(play.log, ['blob 0', 'blob 1', 'blob 3', 'help 3']);
  assert.equal(play.scheduler.wantedBefore(3), false);
  play.scheduler.stopMeasuring(1);
  assert.equal(play.scheduler.wantedBefore(3), true);
  assert.equal(play.scheduler.wantedBefore(2), false);
  await play.end('help 3');
  assert.deepEqual(play.log.slice(4), ['blob 2']);
  assert.equal(play.scheduler.wantedBefore(3), false);
});

test('a blob that fails gives its connection back', async () => {
  const scheduler = new Scheduler(1);
  await assert.rejects(
    scheduler.run(0, BIG, async () => Promise.reject(new Error('no'))),
    /no/,
  );
  assert.equal(await scheduler.run(1, BIG, async () => Promise.resolve('yes')), 'yes');
});

test('however many blobs want however many connections, p-limit bounds them, and each is used', async () => {
  for (const connections of [1, 2, 3, 7]) {
    const scheduler = new Scheduler(connections);
    let [running, most] = [0, 0];
    const act = async () => {
      running += 1;
      most = Math.max(most, running);
      await soon();
      running -= 1;
    };
    const blobs = Array.from({ length: 9 }, (_, rank) =>
      scheduler.run(rank, rank % 2 === 0 ? BIG : 1000, async () => {
        await act();
        let left = 9;
        const work = async () => {
          for (left -= 1; left >= 0; left -= 1) {
            await act();
            scheduler.assign();
          }
        };
        const end = scheduler.share({ rank, wanting: () => left > 0, work });
        await work();
        end();
      }),
    );
    await Promise.all(blobs);
    assert.equal(most, connections);
  }
});
