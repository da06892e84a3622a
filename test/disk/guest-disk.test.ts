import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Setting } from '../faults/setting.ts';
import { dir, file, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';

const shell = [file('bin/sh', 'x', { mode: 0o755 }), file('bin/env', 'x', { mode: 0o755 })];
const image = {
  config: { config: { Cmd: ['/bin/app', `it's`], Env: ['A=b'], WorkingDir: '/work' } },
  layers: [{ tar: tar(dir('bin'), ...shell, dir('dev')) }],
};
const needs = missing('mke2fs', 'debugfs');

test(
  '--for qemu: the script that starts the disk is beside it, and an init is in it',
  { skip: needs },
  async () => {
    await using setting = await Setting.open(image);
    const flags = ['-o', 'my disk.ext4', '--for', 'qemu'];
    const { stdout, stderr } = await setting.pullWell(flags);
    assert.deepEqual(setting.names, ['my disk.ext4', 'my disk.qemu.sh']);
    const place = setting.scratch.path;
    assert.ok(
      (stdout + stderr).includes(`KERNEL=vmlinuz INITRD=initrd.img '${place}/my disk.qemu.sh'`),
      stdout + stderr,
    );
    assert.equal(statSync(setting.scratch.join('my disk.qemu.sh')).mode & 0o777, 0o755);
    const asked = (command: string) =>
      spawnSync('debugfs', ['-R', command, setting.scratch.join('my disk.ext4')], { encoding: 'utf8' })
        .stdout;
    assert.match(asked('cat /.dlrootfs-init'), /^#!\/bin\/sh\n[^]* A=b \/bin\/app /);
    assert.match(asked('stat /.dlrootfs-init'), /Mode:\s+0755/);
    for (const name of ['proc', 'sys', 'run', 'tmp', 'work'])
      assert.match(asked(`stat /${name}`), /Type: directory/, name);
    assert.equal(spawnSync('e2fsck', ['-fn', setting.scratch.join('my disk.ext4')]).status, 0);
  },
);

test('files that are there are not replaced but with --force', { skip: needs }, async () => {
  await using setting = await Setting.open(image);
  writeFileSync(setting.scratch.join('x.qemu.sh'), 'mine');
  const refused = await setting.pull(['-o', 'x.ext4', '--for', 'qemu']);
  assert.equal(refused.exitCode, 7, refused.stderr);
  assert.match(
    refused.stderr,
    /^error: cannot write \S+x\.qemu\.sh: a file of that name exists already\nhint: choose another name with -o, or replace it with --force\n/m,
  );
  assert.deepEqual(setting.registry.requests, []);
  assert.deepEqual(setting.names, ['x.qemu.sh']);
  await setting.pullWell(['-o', 'x.ext4', '--for', 'qemu', '--force']);
  assert.match(readFileSync(setting.scratch.join('x.qemu.sh'), 'utf8'), /^#!\/bin\/sh\n/);
});

test('an image without a shell leaves nothing', { skip: needs }, async () => {
  await using setting = await Setting.open({ layers: [{ tar: tar(file('app', 'x', { mode: 0o755 })) }] });
  const { exitCode, stderr } = await setting.pull(['-o', 'x.ext4', '--for', 'qemu']);
  assert.equal(exitCode, 2, stderr);
  assert.match(stderr, /^error: cannot make an init for an image that has no \/bin\/sh and env\nhint: /m);
  assert.deepEqual(setting.names, []);
});

test('contradicting flags are an error before anything is fetched', async () => {
  await using setting = await Setting.open(image);
  for (const [flags, says] of [
    [['--for', 'qemu'], /--for qemu starts a disk image, not a directory/],
    [['-o', 'x.tar', '--for', 'qemu'], /--for qemu starts a disk image, not an archive/],
    [['-o', 'x.ext4', '--for', 'runc'], /cannot use --for runc with -o: it needs a directory/],
    [['-o', 'x.ext4', '--force'], /--force has no effect without --for/],
    [['-o', 'x.ext4', '--for', 'qemu', '--path', 'bin'], /cannot use --for with a part of an image/],
    [['-o', 'x\ny.ext4', '--for', 'qemu'], /control characters/],
  ] as const) {
    const { exitCode, stderr } = await setting.pull(flags);
    assert.equal(exitCode, 2, stderr);
    assert.match(stderr, says);
    assert.match(stderr, /^hint: /m);
  }
  assert.deepEqual(setting.registry.requests, []);
  assert.deepEqual(setting.names, []);
});
