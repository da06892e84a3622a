import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { HANG } from '../support/hang.ts';
import { Scratch } from '../support/program.ts';

const root = path.join(import.meta.dirname, '../..');

/** Runs a shell command without the variables that mark this process as a test. */
function run(
  script: string,
  environment: Readonly<Record<string, string>>,
): { status: number | null; output: string } {
  const { NODE_TEST_CONTEXT: _context, ALLOWED_SKIPS: _list, ...outside } = process.env;
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script], {
    cwd: root,
    env: { ...outside, ...environment, NODE: process.execPath },
    encoding: 'utf8',
    timeout: HANG,
  });
  return { status, output: stdout + stderr };
}

test('make test prints what was skipped, by reason; a list says what may be', () => {
  using scratch = new Scratch();
  const file = scratch.join('some.test.mjs');
  writeFileSync(
    file,
    `import { test } from 'node:test';
    test('one', { skip: 'needs a moon' }, () => {});
    test('two', (t) => t.skip('needs a moon'));
    test('three', { skip: true }, () => {});
    test('four', () => {});\n`,
  );
  const named = (name: string) => `${path.relative(root, file)}: ${name}`;
  const command = `"$NODE" --test --test-reporter=./scripts/skipped-tests.ts "${file}"`;
  const printed = [
    '',
    'skipped: needs a moon',
    `  ${named('one')}`,
    `  ${named('two')}`,
    '',
    'skipped: no reason given',
    `  ${named('three')}`,
    '',
  ].join('\n');
  assert.deepEqual(run(command, {}), { status: 0, output: printed });

  const list = scratch.join('allowed');
  writeFileSync(list, `# a comment\n\n${named('one')}\n${named('three')}\n`);
  const error = `error: these tests must not be skipped here; those that may are listed in ${list}:`;
  assert.deepEqual(run(command, { ALLOWED_SKIPS: list }), {
    status: 1,
    output: `${printed}\n${error}\n  ${named('two')}\n`,
  });
  writeFileSync(list, ['one', 'two', 'three', 'four'].map(named).join('\n'));
  assert.deepEqual(run(command, { ALLOWED_SKIPS: list }), { status: 0, output: printed });
});

test('make test ends, whatever a test has started', () => {
  // The child has its own session, which a signal to the process group of the tests does not reach.
  const { status, output } = run(
    'bash scripts/test.sh sh -c "setsid sleep infinity & echo started; exec sleep infinity"',
    {
      TEST_MINUTES: '0.02',
    },
  );
  assert.equal(status, 137);
  assert.match(output, /^started\nerror: the tests did not end within 0\.02 minutes: killed$/m);
  assert.deepEqual(run('bash scripts/test.sh sh -c "exit 3"', {}), { status: 3, output: '' });
});
