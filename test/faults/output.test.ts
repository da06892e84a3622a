import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { programCommand } from '../support/program.ts';
import { Setting } from './setting.ts';

const run = promisify(execFile);

/** Runs a pull with its outputs as the shell has them; answers the exit code that `$?` or PIPESTATUS has. */
async function inShell(setting: Setting, outputs: string): Promise<{ exitCode: number; stderr: string }> {
  const quoted = [...programCommand, setting.reference, '-d', 'out', '--cache-dir', setting.store]
    .map((word) => `'${word}'`)
    .join(' ');
  const line = `${quoted} ${outputs}; echo "exit \${PIPESTATUS[0]}" >&2`;
  const { stderr } = await run('bash', ['-c', line], { cwd: setting.scratch.path, timeout: 60_000 });
  return { exitCode: Number(/^exit (\d+)$/m.exec(stderr)![1]), stderr };
}

const slowly = { faults: [{ path: /\/blobs\//, skip: 1, rate: 2 * 2 ** 20, times: 9 }] };

test('| head -1: exit 141, and no stage', async () => {
  await using setting = await Setting.open(undefined, slowly);
  const { exitCode, stderr } = await inShell(setting, '| head -1 >/dev/null');
  assert.equal(exitCode, 141, stderr);
  assert.doesNotMatch(stderr, /^\s+at /m);
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

test('closed outputs and no one who reads errors: the pull goes well', async () => {
  for (const outputs of ['>&- <&-', '2>/dev/full', '>/dev/null 2>&1 <&-']) {
    await using setting = await Setting.open();
    const { exitCode, stderr } = await inShell(setting, outputs);
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(setting.names, ['out']);
  }
});
