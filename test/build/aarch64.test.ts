import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { version } from '../../src/version.ts';
import { dir, file, hardlink, symlink, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';

const executable = new URL('../../dist/dlrootfs-aarch64', import.meta.url).pathname;
const libraries = '/usr/aarch64-linux-gnu/lib';
// The flag -L of qemu-aarch64 would not do: it makes `/` the directory of the libraries, and the rootfs would
// be made in it.
const program = [
  'qemu-aarch64',
  `${libraries}/ld-linux-aarch64.so.1`,
  '--library-path',
  libraries,
  executable,
];
const skip =
  missing('root', 'qemu-aarch64', 'git') ||
  (existsSync(executable) ? false : 'needs dist/dlrootfs-aarch64: make dist/dlrootfs-aarch64');

test('the aarch64 binary tells its version', { skip }, async () => {
  const { exitCode, stdout } = await runProgram(['version'], { program });
  assert.deepEqual({ exitCode, stdout }, { exitCode: 0, stdout: `${version}\n` });
});

test('the aarch64 binary pulls, with owners, links and git branches', { skip }, async () => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('small', 'latest', {
    layers: [
      { tar: tar(dir('etc'), file('etc/motd', 'hi\n', { uid: 12, gid: 34, mode: 0o4750 })) },
      { tar: tar(hardlink('etc/again', 'etc/motd'), symlink('bin', 'usr/bin')) },
    ],
  });
  const environment = { HOME: scratch.path };
  for (const flags of [[], ['-g']]) {
    const rootfs = scratch.join(`rootfs${flags.join('')}`);
    const argv = [registry.reference('small'), '-d', rootfs, ...flags];
    const { exitCode, stderr } = await runProgram(argv, { program, environment });
    assert.equal(exitCode, 0, stderr);
    assert.doesNotMatch(stderr, /libc/, 'libc is called');
    const motd = statSync(`${rootfs}/etc/motd`);
    assert.deepEqual([motd.uid, motd.gid, motd.mode & 0o7777, motd.nlink], [12, 34, 0o4750, 2]);
    assert.equal(readFileSync(`${rootfs}/etc/again`, 'utf8'), 'hi\n');
    assert.ok(lstatSync(`${rootfs}/bin`).isSymbolicLink());
  }
  const branches = execFileSync('git', ['-C', scratch.join('rootfs-g'), 'branch'], { encoding: 'utf8' });
  assert.equal(branches.trim().split('\n').length, 2);
});
