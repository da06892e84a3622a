import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { version } from '../../src/version.ts';
import { dir, file, symlink, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch } from '../support/program.ts';

const executable = new URL('../../dist/dlrootfs', import.meta.url).pathname;
const built = existsSync(executable) ? false : 'needs dist/dlrootfs: make build';

/** Runs a command to its end while this process serves its registry. */
function run(
  command: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<{ status: number | null; output: string }> {
  const child = spawn(command[0]!, command.slice(1), { env: { PATH: process.env['PATH'], ...environment } });
  let output = '';
  child.stdout.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr.on('data', (text: Buffer) => (output += text.toString()));
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, output })));
}

async function registryWithImage(): Promise<FakeRegistry> {
  const registry = await FakeRegistry.start();
  registry.push('small', 'latest', {
    layers: [{ tar: tar(dir('etc'), file('etc/motd', 'hi\n'), symlink('bin', 'usr/bin')) }],
  });
  return registry;
}

/** Makes a root with only the executable and the C and C++ run-time libraries. */
function bareRoot(scratch: Scratch): string {
  const root = scratch.join('bare');
  const { stdout } = spawnSync('ldd', [executable], { encoding: 'utf8' });
  const libraries = stdout.match(/\/\S+(?= \(0x)/g) ?? [];
  for (const name of ['dev', 'proc', 'tmp', 'work', 'usr']) mkdirSync(`${root}/${name}`, { recursive: true });
  for (const library of libraries) {
    mkdirSync(`${root}${dirname(library)}`, { recursive: true });
    copyFileSync(realpathSync(library), `${root}${library}`);
  }
  assert.match(libraries.join(' '), /libc\.so\.6/);
  copyFileSync(executable, `${root}/dlrootfs`);
  return root;
}

test('version', { skip: built }, async () => {
  assert.deepEqual(await run([executable, 'version']), { status: 0, output: `${version}\n` });
});

test('it ignores NODE_OPTIONS', { skip: built }, async () => {
  const environment = { NODE_OPTIONS: '--require /nowhere.js --no-such-flag', NODE_PENDING_DEPRECATION: '1' };
  assert.deepEqual(await run([executable, 'version'], environment), { status: 0, output: `${version}\n` });
});

for (const [what, mount] of [
  ['alone on a machine', 'mount -t proc proc proc && mount -t tmpfs tmpfs tmp && '],
  ['even without /proc', ''],
] as const) {
  test(
    `pulls ${what}: no Node, no git, no certificates`,
    { skip: built || missing('root', 'unshare') },
    async () => {
      using scratch = new Scratch();
      await using registry = await registryWithImage();
      const root = bareRoot(scratch);
      const enter = `cd ${root} && ${mount}exec chroot . /dlrootfs ${registry.reference('small')} -d /work/rootfs --no-cache`;
      const { status, output } = await run(['unshare', '--mount', 'sh', '-c', enter], { HOME: '/work' });
      assert.equal(status, 0, output);
      assert.equal(readFileSync(`${root}/work/rootfs/etc/motd`, 'utf8'), 'hi\n');
    },
  );
}

test(
  'its native library is loaded from a file without a name, and leaves none',
  { skip: built || missing('strace') },
  async () => {
    using scratch = new Scratch();
    await using registry = await registryWithImage();
    const trace = scratch.join('trace');
    const pull = [executable, registry.reference('small'), '-d', scratch.join('rootfs'), '--no-cache'];
    const calls = 'trace=open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,memfd_create';
    const before = new Set(readdirSync('/dev/shm'));
    const { status, output } = await run(['strace', '-f', '-o', trace, '-e', calls, ...pull], {
      HOME: scratch.path,
    });
    assert.equal(status, 0, output);
    const lines = readFileSync(trace, 'utf8').split('\n');
    const unnamed = lines.filter((line) => line.includes('O_TMPFILE'));
    assert.ok(unnamed.length > 0, 'koffi was loaded');
    for (const line of unnamed) assert.match(line, /(?=.*O_EXCL).*O_TMPFILE.*0600/);
    const named = lines.filter((line) => /O_CREAT/.test(line) && !line.includes('ENOENT'));
    for (const line of named) assert.match(line, /openat\(\d+, "|rootfs/, `${line} is in the stage`);
    assert.deepEqual(
      lines.filter((line) => /\b(link|linkat)\(|koffi.*"|\.node"/.test(line)),
      [],
    );
    assert.deepEqual(
      readdirSync('/dev/shm').filter((name) => !before.has(name)),
      [],
    );
  },
);

test('it is one file of limited size', { skip: built }, () => {
  assert.ok(statSync(executable).size < 140e6);
});
