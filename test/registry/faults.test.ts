import assert from 'node:assert/strict';
import { createServer as createHttpServer, type ServerResponse } from 'node:http';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Pool } from 'undici';
import { isTransient, NetworkError, RateLimitError, TransientError } from '../../src/errors.ts';
import { Exchange } from '../../src/registry/http/exchange.ts';
import { DEFAULT_TIMEOUTS } from '../../src/registry/registry-options.ts';
import { retryRequest } from '../../src/registry/http/transport.ts';
import { backoff } from '../../src/sys/retry.ts';
import type { Fault } from '../support/fake-fault.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { RequestQueue } from '../../src/sys/request-queue.ts';
import { closedHost, LocalServer } from '../support/local-server.ts';
import { collect, RegistryClient, type ClientOptions } from '../support/registry-client.ts';

const layers = [Buffer.alloc(300_000, 'base layer '), Buffer.alloc(200_000, 'top layer ')];
const timeouts = { connect: 500, headers: 400, stall: 300, document: 700 };

async function withRegistry(
  options: ClientOptions,
  run: (registry: FakeRegistry, client: RegistryClient) => Promise<void>,
): Promise<void> {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app'), { timeouts, ...options });
  await run(registry, client);
}

const healed: readonly (readonly [what: string, fault: Omit<Fault, 'path'>])[] = [
  ['a reset before the answer', { before: 'reset' }],
  ['a connection closed without an answer', { before: 'close' }],
  ['no answer at all', { before: 'silent' }],
  ['408', { status: 408 }],
  ['429', { status: 429 }],
  ['429 with Retry-After', { status: 429, headers: { 'retry-after': '0' } }],
  ['500', { status: 500, body: '{"errors":[{"code":"UNKNOWN","message":"oops"}]}' }],
  ['502 of a box between', { status: 502, body: '<html>bad gateway' }],
  ['503', { status: 503, body: 'busy' }],
  ['504', { status: 504 }],
  ['a document that breaks off', { cutAfter: 20 }],
  ['a document that stalls', { stallAfter: 20 }],
  ['a document that drips', { rate: 100 }],
];

for (const [what, fault] of healed) {
  test(`healed by another try, said once: ${what}`, async () => {
    const inDocument = (fault.cutAfter ?? fault.stallAfter ?? fault.rate) !== undefined;
    for (const path of inDocument ? [/manifests/] : [/^\/v2\/$/, /manifests/]) {
      await withRegistry({}, async (registry, client) => {
        registry.fault({ path, ...fault });
        assert.deepEqual(await client.pull(), layers);
        assert.equal(client.notices.length, 1, client.notices.join('\n'));
        assert.match(client.notices[0]!, /^retry 1 of 5 in \d/);
      });
    }
  });
}

test('a fault that stays ends in its own error after the retries', async () => {
  await withRegistry({ retry: 2 }, async (registry, client) => {
    registry.fault({
      path: /manifests/,
      times: 99,
      status: 503,
      body: '{"errors":[{"code":"UNAVAILABLE","message":"down"}]}',
    });
    await assert.rejects(
      client.image(),
      (error) =>
        error instanceof NetworkError &&
        isTransient(error) &&
        /503: down \(UNAVAILABLE\)/.test(error.message),
    );
    assert.equal(registry.log(/manifests/).length, 3);
    assert.equal(client.notices.length, 2);
  });
});

test('no retries when none are wanted', async () => {
  await withRegistry({ retry: 0 }, async (registry, client) => {
    registry.fault({ path: /manifests/, status: 500 });
    await assert.rejects(client.image(), NetworkError);
    assert.deepEqual(client.notices, []);
  });
});

test('429 that stays is one sentence from the headers, and exit code 8', async () => {
  await withRegistry({ retry: 1 }, async (registry, client) => {
    registry.fault({
      path: /manifests/,
      times: 9,
      status: 429,
      headers: {
        'ratelimit-limit': '100;w=21600',
        'ratelimit-remaining': '0;w=21600',
        'docker-ratelimit-source': '203.0.113.7',
      },
      body: '{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}',
    });
    await assert.rejects(client.image(), (error) => {
      assert.ok(error instanceof RateLimitError);
      assert.equal(error.exitCode, 8);
      assert.match(
        error.message,
        /You have reached your pull rate limit\..*0 of 100 requests left in 6 hours, counted for 203\.0\.113\.7/,
      );
      assert.match(error.hint ?? '', /log in/);
      return true;
    });
  });
});

test('a wait that is asked for is kept, and one that is too long is not begun', async () => {
  await withRegistry({ timeouts: {} }, async (registry, client) => {
    registry.fault({ path: /manifests/, status: 503, headers: { 'retry-after': '1' } });
    const start = performance.now();
    await client.image();
    assert.ok(performance.now() - start >= 950);
    assert.match(client.notices[0]!, /in 1\.0 s/);
  });
  await withRegistry({ timeouts: {} }, async (registry, client) => {
    registry.fault({ path: /manifests/, status: 429, headers: { 'retry-after': '21600' } });
    await assert.rejects(
      client.image(),
      (error) => error instanceof RateLimitError && /try again in 21600 s/.test(error.hint ?? ''),
    );
    assert.deepEqual(client.notices, [
      'not retrying: the server asks for a wait of 21600 s, the limit is 60 s',
    ]);
  });
});

test('token requests are tried again too', async () => {
  await using registry = await FakeRegistry.start({ auth: { type: 'bearer' } });
  registry.push('team/app', 'latest', { layers });
  registry.fault({ path: /token/, times: 2, status: 503 });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  assert.deepEqual(await client.pull(), layers);
  assert.equal(client.notices.length, 2);
});

test('a closed port: two more tries, then a network error that names it', async () => {
  await using client = await RegistryClient.open(`${await closedHost()}/team/app`);
  await assert.rejects(
    client.image(),
    (error) =>
      error instanceof NetworkError &&
      error.exitCode === 5 &&
      /cannot connect to 127\.0\.0\.1:\d+: connection refused/.test(error.message),
  );
  assert.equal(client.notices.length, 2);
});

test('a name that does not exist is final', async () => {
  await using client = await RegistryClient.open('nowhere.invalid/team/app', { retry: 1 });
  await assert.rejects(client.image(), (error) => error instanceof NetworkError);
});

test('a server that takes connections and says nothing ends in an error', async () => {
  await using server = await LocalServer.start(createServer());
  for (const tlsVerify of [true, false]) {
    await using client = await RegistryClient.open(`${server.host}/team/app`, {
      timeouts,
      retry: 0,
      tlsVerify,
    });
    await assert.rejects(client.image(), (error) => error instanceof NetworkError && isTransient(error));
  }
});

test('a body that breaks off gives what came, and then an error that another try may heal', async () => {
  for (const [fault, words] of [
    [{ cutAfter: 100_000 }, /connection to .* broke/],
    [{ stallAfter: 100_000 }, /stopped sending/],
    [{ rate: 1000 }, /stopped sending/],
  ] as const) {
    await withRegistry({}, async (registry, client) => {
      const image = await client.image();
      registry.fault({ path: /blobs/, ...fault });
      const { body, size, ranges } = await image.layers[0]!.open({ start: 0 }, client.signal);
      assert.equal(size, layers[0]!.length);
      assert.equal(ranges, true);
      let received = 0;
      await assert.rejects(
        async () => {
          for await (const chunk of body) received += chunk.length;
        },
        (error) => isTransient(error) && error instanceof NetworkError && words.test(error.message),
      );
      if (!('rate' in fault)) assert.equal(received, 100_000);
    });
  }
});

test('a reader that takes its time is no stall', async () => {
  await using registry = await FakeRegistry.start();
  const layer = Buffer.alloc(30_000_000, 'x');
  registry.push('team/app', 'latest', { layers: [layer] });
  await using client = await RegistryClient.open(registry.reference('team/app'), {
    timeouts: { stall: 100 },
  });
  const [first] = (await client.image()).layers;
  const { body } = await first!.open({ start: 0 }, client.signal);
  let received = 0;
  for await (const chunk of body) {
    if (received === 0) await new Promise((resolve) => setTimeout(resolve, 500));
    received += chunk.length;
  }
  assert.equal(received, layer.length);
});

test('an abort ends a request, a body, a wait and a connection attempt at once, with its reason', async () => {
  const reason = new Error('interrupted');
  const cases: readonly (readonly [what: string, fault: Fault | undefined])[] = [
    ['request', { path: /manifests/, before: 'silent' }],
    ['document', { path: /manifests/, stallAfter: 10 }],
    ['wait', { path: /manifests/, times: 9, status: 503, headers: { 'retry-after': '30' } }],
    ['body', { path: /blobs/, skip: 1, times: 9, stallAfter: 1000 }],
  ];
  for (const [what, fault] of cases) {
    const controller = new AbortController();
    await withRegistry({ signal: controller.signal, timeouts: {} }, async (registry, client) => {
      if (fault) registry.fault(fault);
      let aborted = 0;
      setTimeout(() => {
        aborted = performance.now();
        controller.abort(reason);
      }, 100);
      await assert.rejects(client.pull(), reason, what);
      // Every timeout and wait in this test is 30 s.
      assert.ok(performance.now() - aborted < 25_000, what);
    });
  }
});

test('an abort at any moment of the first request is the only error', async () => {
  const reason = new Error('interrupted');
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on('unhandledRejection', note);
  for (let moment = 0; moment < 30; moment += 1) {
    const controller = new AbortController();
    await withRegistry({ signal: controller.signal }, async (_, client) => {
      const pull = client.pull();
      pull.catch(() => undefined);
      for (let ticks = 0; ticks < moment; ticks += 1) await (ticks % 3 === 2 ? setImmediate() : undefined);
      controller.abort(reason);
      await assert.rejects(pull, reason);
    });
  }
  await setImmediate();
  process.off('unhandledRejection', note);
  assert.deepEqual(unhandled, []);
});

test('an abort while the connection is being prepared ends it at once', async () => {
  const reason = new Error('interrupted');
  const controller = new AbortController();
  const request = { method: 'GET', url: new URL('http://127.0.0.1/'), headers: {} } as const;
  const exchange = new Exchange(request, { timeouts: DEFAULT_TIMEOUTS, signal: controller.signal }, 9999);
  exchange.send(() => new Promise(() => undefined));
  setTimeout(() => controller.abort(reason), 10);
  await assert.rejects(exchange.head, reason);
});

test('bytes that nobody reads are not received: the server waits', async () => {
  const answers: ServerResponse[] = [];
  const body = Buffer.alloc(48 * 2 ** 20);
  await using server = await LocalServer.start(
    createHttpServer((_, response) => void answers.push(response.end(body))),
  );
  const pool = new Pool(`http://${server.host}`);
  const { signal } = new AbortController();
  const ask = async () => {
    const request = { method: 'GET', url: new URL('http://127.0.0.1/'), headers: {} } as const;
    const exchange = new Exchange(request, { timeouts: DEFAULT_TIMEOUTS, signal }, 9999);
    exchange.send(() => Promise.resolve({ dispatcher: pool, proxy: undefined, system: false }));
    return await exchange.head;
  };
  try {
    const unread = await ask();
    // All of another body arrives in the time that the first one would take.
    for await (const chunk of (await ask()).body) assert.ok(chunk.length > 0);
    const [first, second] = answers.map(({ writableFinished }) => writableFinished);
    assert.deepEqual([first, second], [false, true]);
    unread.discard();
  } finally {
    await pool.destroy();
  }
});

test('after close nothing keeps the process alive or hangs', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', 'latest', { layers });
  const client = await RegistryClient.open(registry.reference('team/app'));
  const image = await client.image();
  registry.fault({ path: /blobs/, stallAfter: 1000 });
  const { body } = await image.layers[0]!.open({ start: 0 }, client.signal);
  const reading = collect(body);
  reading.catch(() => undefined);
  await client.session.close();
  await assert.rejects(reading, TransientError);
});

test('after close nothing is tried again', async () => {
  await withRegistry({ retryDelay: 50 }, async (registry, client) => {
    registry.fault({ path: /manifests/, times: 99, status: 503 });
    const image = client.image();
    image.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 60));
    await client.session.close();
    const before = registry.requests.length;
    await assert.rejects(image, NetworkError);
    assert.equal(registry.requests.length, before);
  });
});

test('a body that is left early frees its connection', async () => {
  await withRegistry({ requests: new RequestQueue(1) }, async (_, client) => {
    const image = await client.image();
    for (let count = 0; count < 3; count += 1) {
      const { body } = await image.layers[0]!.open({ start: 0 }, client.signal);
      for await (const chunk of body) {
        assert.ok(chunk.length > 0);
        break;
      }
    }
    assert.deepEqual(await client.blob(image.layers[1]!), layers[1]);
  });
});

test('the delay doubles, is half random, and at most a minute', () => {
  const policy = { retries: 99, delay: 500 };
  assert.deepEqual(
    [1, 2, 3].map((attempt) => backoff(policy, attempt, 1)),
    [500, 1000, 2000],
  );
  assert.deepEqual(
    [1, 2, 3].map((attempt) => backoff(policy, attempt, 0)),
    [250, 500, 1000],
  );
  assert.equal(backoff(policy, 500, 1), 60_000);
});

test('errors that are bugs are not retried', async () => {
  let calls = 0;
  const attempt = () => {
    calls += 1;
    return Promise.reject(new TypeError('bug'));
  };
  await assert.rejects(
    retryRequest(attempt, {
      retryPolicy: { retries: 5, delay: 1 },
      report: () => undefined,
      signal: new AbortController().signal,
    }),
    TypeError,
  );
  assert.equal(calls, 1);
});

test('all waits of one request together are bounded', async () => {
  const messages: string[] = [];
  let calls = 0;
  const attempt = () => {
    calls += 1;
    return Promise.reject(new TransientError('no', { retryAfter: calls < 3 ? 1 : 299_999 }));
  };
  await assert.rejects(
    retryRequest(attempt, {
      retryPolicy: { retries: 1e9, delay: 0 },
      report: (event) => messages.push(JSON.stringify(event)),
      signal: new AbortController().signal,
    }),
    /no/,
  );
  assert.match(messages.at(-1)!, /not retrying/);
});
