// Every command that names an image reports an image for another platform than --platform.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { archiveOf, layoutFiles, tagged } from '../layout/build-layout.ts';
import { file, tar } from '../support/archive.ts';
import { fakeManifest } from '../support/fake-image.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runHere } from '../support/in-process.ts';
import { runProgram, Scratch } from '../support/program.ts';

const image = {
  layers: [{ tar: tar(file('motd', 'hello\n')) }],
  platform: { os: 'linux', architecture: 's390x' },
};

/** The commands, each without `dlrootfs`; IMAGE is replaced by the image. */
const commands = [
  'IMAGE -d new',
  'IMAGE -d new --dry-run',
  'IMAGE -o new.tar',
  'inspect IMAGE',
  'inspect IMAGE --json',
  'cat IMAGE motd',
  'verify IMAGE -d there',
  'diff IMAGE IMAGE',
];

async function check(reference: string, scratch: Scratch): Promise<void> {
  mkdirSync(scratch.join('there'));
  const before = readdirSync(scratch.path);
  const run = (command: string, ...flags: readonly string[]) => {
    const words = command.split(' ').map((word) => (word === 'IMAGE' ? reference : word));
    return runProgram([...words, '--no-cache', ...flags], { cwd: scratch.path });
  };
  const wanted = await Promise.all(commands.map((command) => run(command, '--platform', 'linux/riscv64')));
  for (const [index, command] of commands.entries()) {
    const { exitCode, stdout, stderr } = wanted[index]!;
    const printed = stdout.replace(/^Opening a session for .*\n/, '');
    assert.deepEqual([command, exitCode, printed], [command, 3, ''], stderr);
    const expected = `error: ${reference} has no image for linux/riscv64\nhint: choose one with --platform: linux/s390x\n`;
    assert.ok(stderr.endsWith(expected), `${command}: ${stderr}`);
  }
  assert.deepEqual(readdirSync(scratch.path), before);
  // Without --platform, and with the image's own platform, inspect describes it.
  for (const flags of [[], ['--platform', 'linux/s390x']]) {
    const { exitCode, stdout, stderr } = await run('inspect IMAGE', ...flags);
    assert.equal(exitCode, 0, stderr);
    assert.match(stdout, /^Platform: {4}linux\/s390x$/m);
  }
}

test('platform: every command refuses an image of a registry that is for another one', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', image);
  const reference = registry.reference('lib/img', '1');
  await check(reference, scratch);
  const cached = await runHere(['cache', 'add', reference, '--platform', 'linux/riscv64'], {
    XDG_CACHE_HOME: scratch.join('cache'),
  });
  assert.match(cached.stderr, /^error: \S+ has no image for linux\/riscv64$/m);
  assert.equal(cached.exitCode, 3);
});

test('platform: likewise for an image in a layout', async () => {
  using scratch = new Scratch();
  const archive = archiveOf(layoutFiles([tagged(fakeManifest(image), '1')]));
  writeFileSync(scratch.join('x.tar'), archive);
  await check('oci-archive:x.tar', scratch);
});
