import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { file, tar } from '../support/archive.ts';
import type { Fault } from '../support/fake-fault.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { FakeV1Registry } from '../support/fake-v1-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { noInjection } from './setting.ts';

// Layer 2 arrives once with a wrong byte, while layer 1 still arrives. Truncating its file takes long, so
// that meanwhile layer 1 is unpacked and layer 2 is read. Only the digest of the blob shows that its first
// bytes were wrong.

/** Additional microseconds of each ftruncate(2). */
const SLOW = 1_500_000;
const slowTruncation = [
  'strace',
  '-f',
  '-qq',
  '-o',
  '/dev/null',
  '--seccomp-bpf',
  '-e',
  'trace=ftruncate',
  '-e',
  `inject=ftruncate:delay_enter=${SLOW}`,
];
const content = randomBytes(2 ** 20);
const image = {
  format: 'schema1',
  layers: [
    { tar: tar(file('base', randomBytes(400_000))), compression: 'none' },
    { tar: tar(file('top', content)), compression: 'none' },
  ],
} as const;
/** Hits the two layers' blobs, found by `paths`. */
const faultsFor = (paths: readonly RegExp[], times = 1): Fault[] => [
  { path: paths[0]!, rate: 500_000, times: 9 },
  { path: paths[1]!, corruptAt: 600_000, times },
];

interface Case {
  readonly what: string;
  readonly flags: readonly string[];
  readonly start: (times: number) => Promise<AsyncDisposable & { readonly reference: string }>;
}

async function schema1(times: number) {
  const registry = await FakeRegistry.start();
  const { layers } = registry.push('lib/img', '1', image);
  for (const fault of faultsFor(
    layers.map(({ digest }) => new RegExp(digest)),
    times,
  )) {
    registry.fault(fault);
  }
  return {
    reference: registry.reference('lib/img', '1'),
    [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose](),
  };
}

async function version1(times: number) {
  const registry = await FakeV1Registry.start();
  const stored = registry.push('lib/img', '1', image);
  for (const fault of faultsFor(
    stored.map(({ id }) => new RegExp(`${id}/layer`)),
    times,
  )) {
    registry.fault(fault);
  }
  return {
    reference: registry.reference('lib/img', '1'),
    [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose](),
  };
}

const cases: readonly Case[] = [
  { what: 'schema 1', flags: ['--cache-dir', 'store'], start: schema1 },
  { what: 'schema 1 without a cache', flags: ['--no-cache'], start: schema1 },
  { what: 'version 1', flags: ['--no-cache'], start: version1 },
];

for (const { what, flags, start } of cases) {
  for (const jobs of ['1', '7']) {
    test(`wrong bytes are never unpacked: ${what}, --jobs ${jobs}`, { skip: noInjection }, async () => {
      await using registry = await start(1);
      using scratch = new Scratch();
      const argv = [registry.reference, '-d', 'out', '--jobs', jobs, '--retry-delay', '5ms', ...flags];
      const { exitCode, stderr } = await runProgram(argv, { cwd: scratch.path, under: slowTruncation });
      assert.equal(exitCode, 0, stderr);
      assert.ok(readFileSync(scratch.join('out/top')).equals(content), stderr);
      assert.match(stderr, /^notice: layer 2 of 2 .* has digest .* but must have .*$/m);
    });
  }

  test(`wrong bytes each time end in exit 6: ${what}`, async () => {
    await using registry = await start(99);
    using scratch = new Scratch();
    const argv = [registry.reference, '-d', 'out', '--retry-delay', '5ms', ...flags];
    const { exitCode, stderr } = await runProgram(argv, { cwd: scratch.path });
    assert.equal(exitCode, 6, stderr);
    assert.match(stderr, /^error: layer 2 of 2 .* has digest .* but must have .*\nhint: .*$/m);
  });
}
