/** Four times as many items take about four times as many system calls. `make scale` measures the seconds. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { dir, file, hardlink, type Item, opaque, symlink, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';

const needs = missing('strace');

const many = (count: number, make: (index: number) => Item): Item[] =>
  Array.from({ length: count }, (_, index) => make(index));

const dimensions: Readonly<Record<string, (count: number) => readonly Item[][]>> = {
  files: (count) => [many(count, (index) => file(`f${index}`, 'x'))],
  directories: (count) => [many(count, (index) => dir(`d${index}`))],
  levels: (count) => [[file(`${'d/'.repeat(count)}f`, 'x')]],
  links: (count) => [[file('target'), ...many(count, (index) => hardlink(`l${index}`, 'target'))]],
  symlinks: (count) => [many(count, (index) => symlink(`l${index}`, 'target'))],
  whiteouts: (count) => [
    many(count, (index) => file(`f${index}`, 'x')),
    many(count, (index) => whiteout(`f${index}`)),
  ],
  'opaque directories': (count) => [
    many(count, (index) => file(`d${index}/f`, 'x')),
    many(count, (index) => opaque(`d${index}`)),
  ],
  'replaced paths': (count) => [
    many(count, (index) => file(`f${index}/g`, 'x')),
    many(count, (index) => file(`f${index}`, 'x')),
  ],
  'entries for one path': (count) => [many(count, (index) => file('f', `${index}`))],
};

let registry: FakeRegistry;
before(async () => {
  registry = await FakeRegistry.start();
});
after(async () => registry[Symbol.asyncDispose]());

/** Returns the number of calls about files in a pull, and in a comparison of its result. */
async function callsFor(layers: readonly Item[][]): Promise<number> {
  using scratch = new Scratch();
  registry.push('lib/image', '1', { layers: layers.map((items) => ({ tar: tar(...items) })) });
  const image = registry.reference('lib/image', '1');
  let calls = 0;
  for (const argv of [
    [image, '-d', 'out', '--no-cache'],
    ['verify', image, '-d', 'out', '--no-cache'],
  ]) {
    const log = scratch.join('log');
    const under = ['strace', '-f', '-qq', '-o', log, '-e', 'trace=%file,%desc', '-e', 'signal=none'];
    const result = await runProgram(argv, { cwd: scratch.path, under });
    assert.equal(result.exitCode, 0, result.stderr);
    // The numbers of waits and writes into pipes depend on timing.
    const counted = readFileSync(log, 'latin1').matchAll(
      /^\d+ +(?:open|openat2?|newfstatat|statx|mkdirat|unlinkat|linkat|symlinkat|getdents64|fchmodat2?|fchownat|utimensat|readlinkat|close)\(/gm,
    );
    calls += [...counted].length;
    rmSync(log);
  }
  return calls;
}

for (const [name, layers] of Object.entries(dimensions)) {
  void test(`${name}: calls grow in proportion`, { skip: needs }, async () => {
    const none = await callsFor(layers(1));
    const few = (await callsFor(layers(60))) - none;
    const most = (await callsFor(layers(240))) - none;
    assert.ok(few >= 60, `${few} calls for 60`);
    assert.ok(most <= 5 * few, `${few} calls for 60, ${most} for 240`);
  });
}
