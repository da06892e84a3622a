import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Slots } from '../../src/registry/http/slots.ts';

const never = new AbortController().signal;

test('slots are given in order, and back', async () => {
  const slots = new Slots(1);
  await slots.acquire(never);
  const log: number[] = [];
  const all = [1, 2].map(async (number) => {
    await slots.acquire(never);
    log.push(number);
    slots.release();
  });
  slots.release();
  await Promise.all(all);
  assert.deepEqual(log, [1, 2]);
});

test('who waits no longer is passed over', async () => {
  const slots = new Slots(1);
  await slots.acquire(never);
  const abort = new AbortController();
  const reason = new Error('enough');
  const left = assert.rejects(slots.acquire(abort.signal), reason);
  const next = slots.acquire(never);
  abort.abort(reason);
  await left;
  slots.release();
  await next;
  await assert.rejects(slots.acquire(abort.signal), reason);
});

test('an abort that comes just after the slot takes nobody else off the list', async () => {
  const slots = new Slots(1);
  await slots.acquire(never);
  const abort = new AbortController();
  const first = slots.acquire(abort.signal);
  const second = slots.acquire(never);
  slots.release();
  abort.abort(new Error('late'));
  await first;
  slots.release();
  await second;
});
