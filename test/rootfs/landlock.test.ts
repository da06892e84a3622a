/**
 * Tests Landlock as the second limit. planted-bug.ts lets names climb out of DIR, and Landlock refuses each
 * of them. The program runs from its sources, since a release does not load modules.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { systemCalls } from '../../src/sys/system-calls.ts';
import { file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { noOtherUser } from '../support/other-user.ts';
import { runProgram, Scratch } from '../support/program.ts';
import type { Climbed } from './climbing-names.ts';

const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

const version = systemCalls()?.landlock_create_ruleset(0, 0, 1) ?? -1;
const skip = version < 2 && 'needs a kernel with Landlock 2 (Linux 5.19)';

const NOBODY = 65_534;

/** A command with the bug, and with other modules that are loaded first. */
const withBug = (script: string, ...others: readonly string[]): readonly [string, ...string[]] => [
  process.execPath,
  ...['planted-bug.ts', ...others].flatMap((name) => ['--import', pathOf(name)]),
  pathOf(script),
];

async function climb(...others: readonly string[]): Promise<Readonly<Record<string, Climbed>>> {
  const [command, ...words] = withBug('climbing-names.ts', ...others);
  const { stdout } = await promisify(execFile)(command, words);
  return JSON.parse(stdout) as Record<string, Climbed>;
}

describe('a name that is let through', { skip }, () => {
  test('leads out of DIR where the kernel has no Landlock', async () => {
    const { 'a file is linked in': linked, ...others } = await climb('without-landlock.ts');
    assert.equal(linked?.error, undefined);
    for (const [name, { changed }] of Object.entries(others)) assert.notEqual(changed, '', name);
  });

  test('leads nowhere with Landlock, and is an error about DIR', async () => {
    const climbed = Object.entries(await climb());
    assert.ok(climbed.length >= 10);
    for (const [name, { error, changed }] of climbed) {
      assert.equal(changed, '', name);
      assert.equal(error?.exitCode, 7, name);
      assert.match(error.message, /: cannot \w+ \S+: .* \((?:EACCES|EXDEV)\)$/, name);
    }
  });

  const users = { 'for this user': undefined, 'for a plain user': NOBODY };
  for (const [who, uid] of Object.entries(users)) {
    test(`in a whole pull ${who}`, { skip: uid !== undefined && noOtherUser }, async () => {
      await using registry = await FakeRegistry.start();
      using scratch = new Scratch();
      chmodSync(scratch.path, 0o777);
      registry.push('x', 'latest', { layers: [{ tar: tar(file('a', 'x'), file('%up%made', 'x')) }] });
      const { exitCode, stderr } = await runProgram(
        [registry.reference('x'), '-d', 'out', '--no-cache', '-v'],
        {
          cwd: scratch.path,
          program: withBug('../support/from-sources.ts'),
          ...(uid !== undefined && { uid }),
        },
      );
      assert.equal(exitCode, 7, stderr);
      assert.match(stderr, /^hint: see whether SELinux.* report it: the image may have tried to leave DIR/m);
      assert.match(stderr, /Landlock \d+: the thread that writes the rootfs/);
      assert.ok(!existsSync(scratch.join('made')) && !existsSync(scratch.join('out')));
    });
  }
});
