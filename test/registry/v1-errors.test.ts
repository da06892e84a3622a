// The original's errors (protocols.md, 3.6) in words of ours, with the exit codes of the README.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Fault } from '../support/fake-fault.ts';
import type { FakeV1Options } from '../support/fake-v1-registry.ts';
import { image, withV1 } from '../support/v1-setting.ts';

interface Row {
  readonly what: string;
  readonly options?: FakeV1Options;
  readonly faults?: readonly Fault[];
  readonly repository?: string;
  readonly exitCode: number;
  readonly message: RegExp;
  /** How far standard output gets. */
  readonly stdout?: RegExp;
}

const always = 99;
const split = { mode: 'split' } as const;
const onlySession = /^Opening a session for .* \.\.\.\n$/;
const id = '[0-9a-f]{64}';

const rows: readonly Row[] = [
  {
    what: 'bad name',
    repository: 'Team/app',
    exitCode: 2,
    message: /lower-?case/,
    stdout: /^$/,
  },
  {
    what: 'no registry',
    faults: [{ path: /_ping/, status: 404, times: always }],
    exitCode: 5,
    message: /is not a registry/,
  },
  {
    what: 'ping reset',
    faults: [{ path: /index/, before: 'reset', times: always }],
    exitCode: 5,
    message: /the connection to .* broke/,
  },
  {
    what: 'index: HTTP code 404',
    repository: 'team/other',
    exitCode: 3,
    message: /team\/other does not exist \(.* 404: images not found\)/,
  },
  {
    what: 'index: 401',
    options: { private: /./, users: {} },
    exitCode: 4,
    message: /used no credentials/,
  },
  {
    what: 'index: 500',
    faults: [{ path: /images$/, status: 500, times: always }],
    exitCode: 5,
    message: /answered 500/,
  },
  {
    what: 'index: no JSON',
    faults: [{ path: /images$/, body: '<html>', times: always }],
    exitCode: 6,
    message: /the list of images of team\/app is not valid JSON/,
  },
  {
    what: 'index: unreachable',
    faults: [{ path: /images$/, before: 'reset', times: always }],
    exitCode: 5,
    message: /the connection to .* broke/,
  },
  {
    what: 'tags: 404',
    faults: [{ path: /tags$/, status: 404, body: '{"error":"Repository not found"}', times: always }],
    exitCode: 3,
    message: /team\/app does not exist \(.* 404: Repository not found\)/,
  },
  {
    what: 'tags: no registry can be reached',
    options: { mode: 'split', registries: 2 },
    faults: [{ path: /registry\d/, before: 'reset', times: always }],
    exitCode: 5,
    message: /cannot reach any of the 2 registries of the index/,
  },
  {
    what: 'tags: an array',
    faults: [{ path: /tags$/, body: '[]', times: always }],
    exitCode: 6,
    message: /the list of tags of .* is not a JSON object/,
  },
  {
    what: 'ancestry: 404',
    faults: [{ path: /ancestry/, status: 404, body: '{"error":"Image not found"}', times: always }],
    exitCode: 3,
    message: new RegExp(`the ancestry of image ${id} does not exist \\(.* 404: Image not found\\)`),
  },
  {
    what: 'ancestry: 401',
    options: split,
    faults: [{ path: /ancestry/, status: 401, times: always }],
    exitCode: 4,
    message: /cannot read the ancestry of image /,
  },
  {
    what: 'ancestry: 500',
    faults: [{ path: /ancestry/, status: 500, times: always }],
    exitCode: 5,
    message: /answered 500/,
  },
  {
    what: 'ancestry: empty',
    faults: [{ path: /ancestry/, body: '[]', times: always }],
    exitCode: 6,
    message: /is empty: an image has one layer at least/,
  },
  {
    what: 'tag unknown',
    repository: 'team/app:9.9',
    exitCode: 3,
    message: /\/team\/app has no tag 9\.9\nhint: it has latest/,
  },
  {
    what: 'layer JSON: 404',
    faults: [{ path: /json/, status: 404, times: always }],
    exitCode: 3,
    message: new RegExp(`the JSON of image ${id} does not exist`),
  },
  {
    what: 'layer JSON: nonsense',
    faults: [{ path: /json/, body: '{', times: always }],
    exitCode: 6,
    message: new RegExp(`the JSON of image ${id} is not valid JSON`),
  },
  {
    what: 'layer JSON: being uploaded',
    faults: [
      { path: /json/, status: 400, body: '{"error":"Image is being uploaded, retry later"}', times: always },
    ],
    exitCode: 5,
    message: /answered 400: Image is being uploaded, retry later/,
  },
  {
    what: 'layer data: 404',
    faults: [{ path: /layer$/, status: 404, times: always }],
    exitCode: 3,
    message: new RegExp(`the layer ${id} of .* does not exist`),
    stdout: /Pulling 2 layers/,
  },
  {
    what: 'layer data: 500',
    faults: [{ path: /layer$/, status: 500, body: '', times: always }],
    exitCode: 5,
    message: /answered 500/,
    stdout: /Pulling 2 layers/,
  },
  {
    what: 'layer data: wrong',
    faults: [{ path: /layer$/, corruptAt: 20, times: always }],
    exitCode: 6,
    message: /layer \d of 2 .*digest/,
    stdout: /Pulling 2 layers/,
  },
  {
    what: 'quota',
    faults: [{ path: /images$/, status: 429, times: always }],
    exitCode: 8,
    message: /answered 429.*; the rate limit is reached/,
  },
];

for (const row of rows) {
  test(`v1: error row: ${row.what}`, async () => {
    await withV1({ ...row.options, faults: row.faults ?? [] }, async ({ registry, scratch, pull }) => {
      registry.push('team/app', 'latest', image);
      const { exitCode, stdout, stderr } = await pull(row.repository ?? 'team/app');
      assert.equal(exitCode, row.exitCode, stderr);
      assert.match(stderr, row.message);
      assert.match(stderr, /^(?:notice: .*\n)*error: .*\n(?:hint: .*\n)?$/);
      assert.match(stdout, row.stdout ?? onlySession);
      assert.deepEqual(readdirSync(scratch.path), []);
    });
  });
}

test('v1: error row: a layer that is no tar', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', { layers: [image.layers[0]!.tar, Buffer.alloc(2048, 'x')] });
    const { exitCode, stderr } = await pull('team/app');
    assert.equal(exitCode, 6);
    assert.match(stderr, /^error: layer [0-9a-f]{12}/);
    assert.deepEqual(readdirSync(scratch.path), []);
  });
});

test('v1: error row: the destination', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', image);
    writeFileSync(scratch.join('out'), '');
    const { exitCode, stderr } = await pull('team/app');
    assert.equal(exitCode, 7);
    assert.match(stderr, /^error: .*out is not a directory/);
  });
});

test('v1: error row: git is missing', async () => {
  await withV1({}, async ({ registry, scratch, run }) => {
    registry.push('team/app', 'latest', image);
    const argv = [registry.reference('team/app'), '-d', scratch.join('out'), '-g'];
    const { exitCode, stderr } = await run(argv, { PATH: scratch.path });
    assert.equal(exitCode, 7);
    assert.match(stderr, /^error: .*git/);
    assert.equal(existsSync(scratch.join('out')), false);
  });
});
