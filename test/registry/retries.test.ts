import assert from 'node:assert/strict';
import { copyFileSync, truncateSync } from 'node:fs';
import { describe, it, test } from 'node:test';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.ts';
import { noise, Setting } from '../faults/setting.ts';
import { tar } from '../support/archive.ts';
import type { Fault } from '../support/fake-fault.ts';

/** An image of one layer of 300 kB. */
const image = { layers: [{ tar: tar(noise('data', 300_000)) }] };

interface Row {
  /** The fault of the requests that match `at`; default for `times`: all of them. */
  readonly fault: Omit<Fault, 'path'>;
  readonly at: RegExp;
  readonly flags?: readonly string[];
  readonly options?: FakeRegistryOptions;
  readonly exitCode: number;
  /** Number of requests that match `at`. */
  readonly requests: number;
  /** All notices. */
  readonly says: readonly RegExp[];
}

const manifest = /^\/v2\/lib\/img\/manifests/;
/** The config is the first blob, the layer the second. */
const blob = /blobs/;
const storage = /^\/lib%2Fimg\/sha256/;
const wait = { 'retry-after': '1000000000' };

/** The rows for a request and for a body in docs/faults.md, "What is tried again". */
const rows: Readonly<Record<string, Row>> = {
  'a request: 503 for ever': {
    at: manifest,
    fault: { status: 503 },
    flags: ['--retry', '2'],
    exitCode: 5,
    requests: 3,
    says: [/^retry 1 of 2 in .*503/, /^retry 2 of 2 in .*503/],
  },
  'a request: 503 twice': {
    at: manifest,
    fault: { status: 503, times: 2 },
    exitCode: 0,
    requests: 3,
    says: [/^retry 1 of 5 in /, /^retry 2 of 5 in /],
  },
  'a request: 503 with a Retry-After of a second': {
    at: manifest,
    fault: { status: 503, headers: { 'retry-after': '1' }, times: 1 },
    exitCode: 0,
    requests: 2,
    says: [/^retry 1 of 5 in 1\.0 s: /],
  },
  'a request: 503 with a Retry-After of 32 years': {
    at: manifest,
    fault: { status: 503, headers: wait },
    exitCode: 5,
    requests: 1,
    says: [/^not retrying: the server asks for a wait of 1000000000 s, the limit is 60 s$/],
  },
  'a request: 429 with a Retry-After of 32 years': {
    at: blob,
    fault: { status: 429, headers: wait },
    exitCode: 8,
    requests: 1,
    says: [/^not retrying: /],
  },
  'a request: no retries': {
    at: manifest,
    fault: { status: 503 },
    flags: ['--retry', '0'],
    exitCode: 5,
    requests: 1,
    says: [],
  },
  'a request: 404': { at: manifest, fault: { status: 404 }, exitCode: 3, requests: 1, says: [] },
  'a request: a document with wrong bytes': {
    at: blob,
    fault: { corruptAt: 3 },
    exitCode: 6,
    requests: 2,
    says: [],
  },
  'a request: the same once, without retries': {
    at: blob,
    fault: { corruptAt: 3, times: 1 },
    flags: ['--retry', '0'],
    exitCode: 0,
    requests: 3,
    says: [],
  },
  'a request: 401 for ever': {
    at: manifest,
    fault: { status: 401 },
    options: { auth: { type: 'bearer' } },
    exitCode: 4,
    requests: 1,
    says: [],
  },
  'a request: a token that runs out between two, without retries': {
    at: blob,
    fault: { status: 401, skip: 1, times: 1 },
    options: { auth: { type: 'bearer' } },
    flags: ['--retry', '0'],
    exitCode: 0,
    requests: 3,
    says: [],
  },
  'a request: a signed address of a storage server that has expired': {
    at: storage,
    fault: { status: 403, skip: 1, times: 1 },
    options: { redirectBlobs: 307 },
    exitCode: 0,
    requests: 3,
    says: [/^retry 1 of 5 in .*403/],
  },
  'a request: redirects in a ring': {
    at: manifest,
    fault: { status: 307, headers: { location: '/v2/lib/img/manifests/1' } },
    exitCode: 5,
    requests: 1,
    says: [],
  },
  'a body: reset after a byte each time': {
    at: blob,
    fault: { skip: 1, cutAfter: 1 },
    flags: ['--retry', '2'],
    exitCode: 5,
    requests: 4,
    says: [/^layer 1 of 1 .* broke.*; retrying in .* from byte \d$/, /; retrying in .* from byte \d$/],
  },
  'a body: reset after every 110 kB, without retries': {
    at: blob,
    fault: { skip: 1, cutAfter: 110_000 },
    flags: ['--retry', '0'],
    exitCode: 0,
    requests: 4,
    says: [/; resuming from byte \d+$/, /; resuming from byte \d+$/],
  },
};

describe('tried again as documented', { concurrency: 4 }, () => {
  for (const [what, row] of Object.entries(rows)) {
    it(what, { timeout: 60_000 }, async () => {
      await using setting = await Setting.open(image, row.options);
      const { registry } = setting;
      registry.fault({ path: row.at, times: 1e6, ...row.fault });
      const { exitCode, stderr } = await setting.pull(['--no-cache', '-v', ...(row.flags ?? [])]);
      assert.equal(exitCode, row.exitCode, stderr);
      assert.equal(registry.log(row.at).length, row.requests, stderr);
      const notices = noticesIn(stderr);
      assert.equal(notices.length, row.says.length, stderr);
      for (const [n, words] of row.says.entries()) assert.match(notices[n]!, words);
    });
  }
});

const noticesIn = (stderr: string) => [...stderr.matchAll(/^notice: (.*)$/gm)].map(([, text]) => text!);

test('tried again as documented: the endpoints of a reference, each once for a request', async () => {
  await using setting = await Setting.open(image);
  await using mirror = await FakeRegistry.start();
  mirror.fault({ path: /manifests/, status: 503, body: 'busy', times: 99 });
  const { exitCode, stderr } = await setting.pull(['--no-cache', '--mirror', mirror.host]);
  assert.equal(exitCode, 0, stderr);
  assert.equal(mirror.log(/manifests/).length, 2, stderr);
  assert.equal(setting.registry.log(manifest).length, 1);
  const [first, second, ...more] = noticesIn(stderr);
  assert.match(first!, /^retry 1 of 1 in /);
  assert.match(second!, new RegExp(`; trying ${setting.registry.host} instead$`));
  assert.deepEqual(more, []);
});

test('tried again as documented: the pull, once for a blob with wrong bytes', async () => {
  await using setting = await Setting.open(image);
  const { digest } = setting.image.layers[0]!;
  setting.registry.fault({ path: new RegExp(digest), corruptAt: 1000 });
  const healed = await setting.pullWell(['--retry', '0']);
  assert.match(noticesIn(healed.stderr).join('\n'), /^layer 1 of 1 .*; starting the pull again without it$/);
  assert.deepEqual(setting.asked(0), [0, 0]);
  // The cache gets other bytes of the same length.
  const size = setting.image.layers[0]!.size;
  copyFileSync(process.execPath, setting.blob(digest));
  truncateSync(setting.blob(digest), size);
  setting.registry.fault({ path: new RegExp(digest), corruptAt: 1000, times: 99 });
  const failed = await setting.pull(['-d', 'other']);
  assert.equal(failed.exitCode, 6, failed.stderr);
  assert.equal(failed.stderr.split('; starting the pull again without it').length, 2);
  assert.deepEqual(setting.asked(0), [0, 0, 0]);
  assert.deepEqual(setting.names, ['out']);
});
