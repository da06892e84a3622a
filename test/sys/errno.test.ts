import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test, type TestContext } from 'node:test';
import { text } from 'node:stream/consumers';
import { systemCalls } from '../../src/sys/system-calls.ts';
import { Setting } from '../faults/setting.ts';
import { missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';
import { printTree } from '../support/tree.ts';

const source = fileURLToPath(new URL('./changed-errno.c', import.meta.url));
const stress = fileURLToPath(new URL('./errno-stress.ts', import.meta.url));

/** Builds the library to preload. Without a compiler it skips the test, and the result is undefined. */
function preload(t: TestContext, scratch: Scratch): string | undefined {
  const absent = missing('gcc');
  if (absent !== false) {
    t.skip(absent);
    return undefined;
  }
  const library = scratch.join('changed-errno.so');
  execFileSync('gcc', ['-O2', '-shared', '-fPIC', '-o', library, source, '-ldl']);
  return library;
}

interface Outcome {
  readonly count: number;
  readonly wrong: readonly string[];
}

async function runStress(
  way: string,
  milliseconds: number,
  environment: NodeJS.ProcessEnv,
): Promise<Outcome> {
  const argv = ['--max-semi-space-size=1', stress, way, String(milliseconds)];
  const child = spawn(process.execPath, argv, {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(await text(child.stdout)) as Outcome;
}

test('the routine is mapped for reading and execution only, from a file that nobody can change', () => {
  assert.ok(systemCalls());
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const ours = maps.filter((line) => line.includes('/memfd:dlrootfs'));
  assert.equal(ours.length, 1);
  assert.match(ours[0]!, /^[0-9a-f]+-[0-9a-f]+ r-xs /);
});

for (const way of ['routine', 'libc'] as const) {
  test(`${way}: errno is right where another one is read for it each third time`, async (t) => {
    using scratch = new Scratch();
    const library = preload(t, scratch);
    if (library === undefined) return;
    const { count, wrong } = await runStress(way, 500, { LD_PRELOAD: library, ERRNO_PERIOD: '3' });
    assert.ok(count > 100);
    assert.deepEqual(wrong.slice(0, 5), []);
  });

  test(`${way}: errno is right while V8's locks wait`, async (t) => {
    using scratch = new Scratch();
    const library = preload(t, scratch);
    if (library === undefined) return;
    const waits = scratch.join('waits');
    const { count, wrong } = await runStress(way, 4000, { LD_PRELOAD: library, WAITS_FILE: waits });
    assert.ok(Number(readFileSync(waits, 'utf8')) > 0, 'no lock was waited for: the test has shown nothing');
    assert.ok(count > 100);
    assert.deepEqual(wrong.slice(0, 5), []);
  });
}

test('read once, errno is wrong then: the preloaded library does what it should', async (t) => {
  using scratch = new Scratch();
  const library = preload(t, scratch);
  if (library === undefined) return;
  const { wrong } = await runStress('unsafe', 300, { LD_PRELOAD: library, ERRNO_PERIOD: '3' });
  assert.ok(wrong.length > 0);
});

/** Makes memfd_create(2) fail, as a kernel or policy without executable memory does. */
function refusing(t: TestContext): readonly string[] | undefined {
  const inject = 'inject=memfd_create:error=EPERM';
  const under = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', 'trace=memfd_create', '-e', inject];
  if (missing('strace') === false && spawnSync(under[0]!, [...under.slice(1), 'true']).status === 0)
    return under;
  t.skip(missing('strace') || 'strace may not trace');
  return undefined;
}

for (const [where, refused, period] of [
  ['each third errno that koffi reads is another one', false, '3'],
  ['no routine can be mapped, and each third errno that koffi reads is another one', true, '3'],
] as const) {
  test(`a pull where ${where}: the same tree, and the locks hold`, async (t) => {
    await using setting = await Setting.open();
    const library = preload(t, setting.scratch);
    const under = refused ? refusing(t) : [];
    if (library === undefined || under === undefined) return;
    assert.equal((await setting.pull(['-d', 'calm'])).exitCode, 0);
    const environment = { LD_PRELOAD: library, ERRNO_PERIOD: period };
    const pulls = [1, 2].map((n) => setting.pull(['-d', `out${n}`], { environment, under }));
    for (const { exitCode, stderr } of await Promise.all(pulls)) assert.equal(exitCode, 0, stderr);
    const [calm, first, second] = ['calm', 'out1', 'out2'].map((name) =>
      printTree(setting.scratch.join(name), { without: ['json'] }),
    );
    assert.ok(first === calm && second === calm);
  });
}
