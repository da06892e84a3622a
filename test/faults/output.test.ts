import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { programCommand } from '../support/program.ts';
import { Setting } from './setting.ts';

const run = promisify(execFile);

/** Runs a pull with outputs that a shell redirects; returns the exit code of `$?` or PIPESTATUS. */
async function inShell(setting: Setting, outputs: string): Promise<{ exitCode: number; stderr: string }> {
  return await programInShell(
    setting,
    [setting.reference, '-d', 'out', '--cache-dir', setting.store],
    outputs,
  );
}

async function programInShell(
  setting: Setting,
  argv: readonly string[],
  outputs: string,
): Promise<{ exitCode: number; stderr: string }> {
  const quoted = [...programCommand, ...argv].map((word) => `'${word}'`).join(' ');
  const line = `${quoted} ${outputs}; echo "exit \${PIPESTATUS[0]}" >&2`;
  const { stderr } = await run('bash', ['-c', line], { cwd: setting.scratch.path, timeout: 60_000 });
  return { exitCode: Number(/^exit (\d+)$/m.exec(stderr)![1]), stderr };
}

const slowly = { faults: [{ path: /\/blobs\//, skip: 1, rate: 2 * 2 ** 20, times: 9 }] };

test('| head -1: exit 141, and no stage', async () => {
  await using setting = await Setting.open(undefined, slowly);
  const { exitCode, stderr } = await inShell(setting, '| head -1 >/dev/null');
  assert.equal(exitCode, 141, stderr);
  assert.doesNotMatch(stderr, /error:|^\s+at /m, 'silent, as a program that SIGPIPE ends');
  assert.deepEqual(setting.names, []);
});

test(
  'standard output on a full disk: an error that says so, and no stage',
  { skip: !existsSync('/dev/full') },
  async () => {
    await using setting = await Setting.open(undefined, slowly);
    const { exitCode, stderr } = await inShell(setting, '>/dev/full');
    assert.notEqual(exitCode, 0);
    assert.match(stderr, /error: .*(?:no space|ENOSPC)/);
    assert.doesNotMatch(stderr, /this is a bug|^\s+at /m);
    assert.deepEqual(setting.names, []);
  },
);

const printing: readonly (readonly [name: string, argv: (setting: Setting) => readonly string[]])[] = [
  ['version', () => ['version']],
  ['--version', () => ['--version']],
  ['--help', () => ['--help']],
  ['help tags', () => ['help', 'tags']],
  ['completion', () => ['completion', 'bash']],
  ['cache', (setting) => ['cache', '--cache-dir', setting.store]],
  ['inspect', (setting) => ['inspect', setting.reference, '--no-cache']],
  ['tags', (setting) => ['tags', setting.reference.replace(/:1$/, '')]],
  ['-q', (setting) => [setting.reference, '-q', '--no-cache', '-d', setting.scratch.join('out')]],
  ['--json', (setting) => [setting.reference, '--json', '--no-cache', '-d', setting.scratch.join('out')]],
  ['-o -', (setting) => [setting.reference, '-o', '-', '--no-cache']],
];

for (const [name, argv] of printing) {
  test(`${name}: what could not be printed is an error`, { skip: !existsSync('/dev/full') }, async () => {
    await using setting = await Setting.open();
    const { exitCode, stderr } = await programInShell(setting, argv(setting), '>/dev/full');
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, /^error: cannot write standard output: .*no space.*\nhint: /im);
  });
}

test('closed outputs and no one who reads errors: the pull goes well', async () => {
  for (const outputs of ['>&- <&-', '2>/dev/full', '>/dev/null 2>&1 <&-']) {
    await using setting = await Setting.open();
    const { exitCode, stderr } = await inShell(setting, outputs);
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(setting.names, ['out']);
  }
});
