import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { dir, file, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { programCommand, Scratch } from '../support/program.ts';

/** Words that run a command in a mount namespace with an empty /proc, as in a chroot without one. */
const withoutProc = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /proc && exec "$@"', 'sh'];

function canHide(): boolean {
  try {
    execFileSync(withoutProc[0]!, [...withoutProc.slice(1), 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

const skip = missing('root', 'unshare') || (canHide() ? false : 'needs a mount namespace');

interface Result {
  readonly exitCode: number | null;
  readonly stderr: string;
}

async function pull(image: string, directory: string, cwd: string): Promise<Result> {
  const [command, ...words] = [...withoutProc, ...programCommand, image, '-d', directory, '--no-cache'];
  const child = spawn(command, words, { cwd, env: { PATH: process.env['PATH'], HOME: '/nonexistent' } });
  let stderr = '';
  child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
  const exitCode = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { exitCode, stderr };
}

test('without /proc a pull goes well, and says what is left out and why', { skip }, async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('x', 'latest', {
    layers: [{ tar: tar(dir('etc'), file('etc/motd', 'hello\n', { mode: 0o600 })) }],
  });
  const { exitCode, stderr } = await pull(registry.reference('x'), 'out', scratch.path);
  assert.equal(exitCode, 0, stderr);
  assert.match(stderr, /^notice: libc cannot be called here: .* are left out; it needs \/proc: mount/m);
  assert.equal(readFileSync(scratch.join('out/etc/motd'), 'utf8'), 'hello\n');
});

test('without /proc the root of the running system is refused too', { skip }, async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('x', 'latest', { layers: [{ tar: tar(file('x')) }] });
  const { exitCode, stderr } = await pull(registry.reference('x'), '/', scratch.path);
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, /^error: cannot use \/: it is the root of the running system$/m);
});
