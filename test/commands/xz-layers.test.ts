import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { dir, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { runProgram } from '../support/program.ts';
import { noise, Setting } from '../faults/setting.ts';

/** Files with every second name: in the order of names, the two layers are read in turn. */
function layer(first: number, bytes: number) {
  const names = Array.from({ length: 12 }, (_, n) => `data/${String(2 * n + first).padStart(3, '0')}`);
  const archive = tar(dir('data'), ...names.map((name) => noise(name, bytes)));
  return { tar: archive, blob: execFileSync('xz', ['-0', '-c'], { input: archive, maxBuffer: 2 ** 28 }) };
}

test('two layers in xz that are read in turn', { skip: missing('xz') }, async (t) => {
  await using setting = await Setting.open({ layers: [layer(0, 100_000), layer(1, 100_000)] });
  const { reference, scratch, store } = setting;
  setting.registry.push('lib/other', '1', { layers: [layer(0, 100_000), layer(1, 100_000)] });
  await setting.pullWell();
  const shared = ['--cache-dir', store];
  const rows: readonly (readonly string[])[] = [
    [reference, '-d', 'again', '-j', '1', '--no-cache'],
    [reference, '-o', 'x.tar'],
    [reference, '-o', 'x.tar', '-j', '1', '--no-cache'],
    [reference, '-o', 'x.erofs'],
    ['cat', reference, 'data/023'],
    ['verify', reference, '-d', 'out', '--contents'],
    ['verify', reference, '-d', 'out', '--contents', '-j', '1', '--no-cache'],
    ['diff', reference, setting.registry.reference('lib/other', '1')],
    ['diff', reference, setting.registry.reference('lib/other', '1'), '-j', '1', '--no-cache'],
  ];
  for (const argv of rows) {
    await t.test(argv.filter((word) => !word.includes(':')).join(' '), async () => {
      const result = await runProgram([...argv, ...shared], { cwd: scratch.path });
      assert.equal(result.exitCode, argv[0] === 'diff' ? 9 : 0, result.stderr);
    });
  }
});
