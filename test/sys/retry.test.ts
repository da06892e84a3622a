import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TransientError } from '../../src/errors.ts';
import { RetryBudget } from '../../src/sys/retry.ts';

/** A budget whose waits end at once: the notice about each aborts the signal. */
class Hurried {
  readonly notices: string[] = [];
  readonly #budget: RetryBudget;
  #abort = new AbortController();

  constructor() {
    const signalNow = () => this.#abort.signal;
    this.#budget = new RetryBudget({
      retryPolicy: { retries: 100, delay: 0 },
      get signal() {
        return signalNow();
      },
      report: (event) => {
        this.notices.push(event.type === 'notice' ? event.message : event.type);
        this.#abort.abort(new Error('no wait'));
      },
    });
  }

  /** Returns the message of the error that ends the wait after a failure. */
  async fail(retryAfter: number): Promise<string> {
    this.#abort = new AbortController();
    const failure = new TransientError('try later', { retryAfter });
    const ended = await this.#budget
      .again(failure, ({ wait }) => `wait ${wait}`)
      .catch((error: unknown) => error);
    return String(ended);
  }

  receive(bytes: number): void {
    this.#budget.received(bytes);
  }
}

const FINAL = /try later$/;

test('all waits of a budget together are at most five minutes', async () => {
  const budget = new Hurried();
  for (let wait = 0; wait < 5; wait += 1) assert.match(await budget.fail(60_000), /no wait$/);
  assert.match(await budget.fail(1000), FINAL);
  assert.match(budget.notices.at(-1)!, /^not retrying: .* the limit is 300 s$/);
});

test('one wait is at most a minute', async () => {
  const budget = new Hurried();
  assert.match(await budget.fail(60_001), FINAL);
  assert.match(budget.notices.at(-1)!, /^not retrying: .* the limit is 60 s$/);
});

test('progress starts a new count of the waits', async () => {
  const budget = new Hurried();
  for (let wait = 0; wait < 5; wait += 1) await budget.fail(60_000);
  budget.receive(65_536);
  assert.match(await budget.fail(60_000), /no wait$/);
  assert.equal(budget.notices.at(-1), 'wait 0');
  for (let wait = 0; wait < 5; wait += 1) assert.match(await budget.fail(60_000), /no wait$/);
  assert.match(await budget.fail(1000), FINAL);
});
