import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chownSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isRoot, temporaryDirectory } from './harness.ts';
import { noOtherUser } from '../support/other-user.ts';

const NOBODY = 65_534;

/** Test files that also apply without root's rights: they run again as a user, on every back end. */
const files = ['layers', 'confinement', 'overlay', 'model', 'rootfs'] as const;

/** Tests that only root can run. */
const rootsOwn = /device|second pull over the first|nobody may remove/;

for (const name of files) {
  test(
    `${name}.test.ts passes for an unprivileged user too`,
    { skip: isRoot ? noOtherUser : 'this is that pass' },
    async (t) => {
      const directory = temporaryDirectory(t);
      chownSync(directory, NOBODY, NOBODY);
      const file = fileURLToPath(new URL(`${name}.test.ts`, import.meta.url));
      // With this variable the inner runner would report to the outer one.
      const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
      const child = spawn(process.execPath, ['--test', '--test-reporter=tap', file], {
        uid: NOBODY,
        gid: NOBODY,
        env: { ...environment, HOME: '/nonexistent', TMPDIR: directory },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let text = '';
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (piece: string) => (text += piece));
      }
      const status = await new Promise((resolve) => child.once('close', resolve));
      assert.equal(
        status,
        0,
        text
          .split('\n')
          .filter((line) => /^\s*not ok|error:/.test(line))
          .join('\n'),
      );
      const count = (what: string): number => Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(text)?.[1]);
      assert.ok(count('pass') > 0, text);
      const skipped = text.split('\n').filter((line) => line.includes('# SKIP'));
      assert.deepEqual(
        skipped.filter((line) => !rootsOwn.test(line)),
        [],
      );
    },
  );
}
