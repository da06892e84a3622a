// The original's integration tests against Docker Hub: `make test-live`, on a machine with internet.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { runProgram, Scratch } from '../support/program.ts';

const credentials = process.env['DLROOTFS_CREDS'] ?? '';
const privateImage = process.env['DLROOTFS_PRIVATE_IMAGE'] ?? 'robinmonjo/debian';
const HOUR = 3_600_000;

/** Directories of every system image; today's busybox images have fewer of them than those of 2014. */
const systemDirectories = 'bin dev etc home lib mnt opt proc root run sbin sys tmp usr var'.split(' ');
const busyboxDirectories = 'bin dev etc home root tmp usr var'.split(' ');

function assertDirectories(rootfs: string, names: readonly string[]): void {
  for (const name of names) assert.ok(statSync(`${rootfs}/${name}`).isDirectory(), name);
}

test('an unknown image is an error, and leaves nothing behind', async () => {
  using scratch = new Scratch();
  const { exitCode, stderr } = await runProgram(['unknownzrtfghuijklmoprst', '-d', scratch.join('rootfs')]);
  assert.ok([3, 4].includes(exitCode), stderr);
  assert.match(stderr, /^error: .*\nhint: /m);
  assert.equal(existsSync(scratch.join('rootfs')), false);
});

for (const image of ['busybox', 'progrium/busybox']) {
  test(`${image} comes down`, async () => {
    using scratch = new Scratch();
    const argv = [image, '-d', scratch.join('rootfs'), '-u', ''];
    const { exitCode, stdout, stderr } = await runProgram(argv, { timeoutMilliseconds: HOUR });
    assert.equal(exitCode, 0, stderr);
    assert.match(
      stdout,
      /^Opening a session for (library|progrium)\/busybox \.\.\.\nImage ID: [0-9a-f]{64}\nPulling \d+ layers:\n/,
    );
    assertDirectories(scratch.join('rootfs'), busyboxDirectories);
  });
}

test(
  'a private image comes down with its credentials',
  { skip: credentials === '' && 'DLROOTFS_CREDS is not set' },
  async () => {
    using scratch = new Scratch();
    const argv = [privateImage, '-d', scratch.join('rootfs'), '-u', credentials];
    const { exitCode, stdout, stderr } = await runProgram(argv, { timeoutMilliseconds: HOUR });
    assert.equal(exitCode, 0, stderr);
    assert.match(
      stdout,
      /\nWARNING: don't forget to remove your docker hub credentials from your history !!\n$/,
    );
    assertDirectories(scratch.join('rootfs'), systemDirectories);
  },
);

test('ubuntu:14.04 -g is a branch a layer, the last one checked out', async () => {
  using scratch = new Scratch();
  const rootfs = scratch.join('rootfs');
  const argv = ['ubuntu:14.04', '-d', rootfs, '-g'];
  const { exitCode, stdout, stderr } = await runProgram(argv, { timeoutMilliseconds: HOUR });
  assert.equal(exitCode, 0, stderr);
  const ids = [...stdout.matchAll(/^\tPulling fs layer ([0-9a-f]{12})$/gm)].map(([, id]) => id!);
  const branches = execFileSync('git', ['-C', rootfs, 'branch', '--format=%(refname:short)'], {
    encoding: 'utf8',
  });
  const sorted = branches
    .trim()
    .split('\n')
    .toSorted((a, b) => parseInt(a.slice(5), 10) - parseInt(b.slice(5), 10));
  assert.deepEqual(
    sorted.map((name) => name.slice(0, name.indexOf('_') + 13)),
    ids.map((id, n) => `layer${n}_${id}`),
  );
  const current = execFileSync('git', ['-C', rootfs, 'branch', '--show-current'], { encoding: 'utf8' });
  assert.equal(current.trim(), sorted.at(-1));
  assertDirectories(rootfs, systemDirectories);
});
