import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { execPath } from 'node:process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Scratch } from '../support/program.ts';

const program = fileURLToPath(new URL('./few-descriptors.ts', import.meta.url));

interface Failure {
  readonly way: string;
  readonly free: number;
  readonly code: string;
  /** Descriptors that stayed open. */
  readonly leaked: number;
  /** All paths, if the failure has changed them. */
  readonly left: string;
}

test('without a free descriptor a directory is not opened: EMFILE, and nothing is left', () => {
  using scratch = new Scratch();
  const line = 'ulimit -n 64; exec "$@"';
  const { stdout, stderr, status } = spawnSync('sh', ['-c', line, 'sh', execPath, program, scratch.path], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  const failures = stdout
    .trimEnd()
    .split('\n')
    .map((text) => JSON.parse(text) as Failure);
  assert.ok(new Set(failures.map(({ way }) => way)).size >= 8);
  assert.deepEqual(
    failures.filter(({ code, leaked, left }) => code !== 'EMFILE' || leaked !== 0 || left !== ''),
    [],
  );
});
