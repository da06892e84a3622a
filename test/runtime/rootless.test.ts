import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { noOtherUser, noUserNamespace } from '../support/other-user.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';

const NOBODY = 65534;
const needs = missing('root', 'busybox', 'runc', 'setpriv', 'unshare');

const skip = needs || noOtherUser || noUserNamespace;

test('without root: pulled and started by the same user, as runc needs no root', { skip }, async () => {
  using scratch = new Scratch();
  chmodSync(scratch.path, 0o777);
  const tree = scratch.join('tree');
  mkdirSync(`${tree}/data`, { recursive: true });
  busyboxTree(tree);
  writeFileSync(`${tree}/data/seed`, 'from the image\n');
  const look = 'id -u; cat /data/seed; echo more >/data/more; grep -c " /data " /proc/mounts; exit 7';
  await using registry = await FakeRegistry.start();
  registry.push('app', 'latest', {
    layers: [{ tar: execFileSync('tar', ['-c', '-C', tree, '.'], { maxBuffer: 64 << 20 }) }],
    config: { config: { User: 'app', Cmd: ['/bin/sh', '-c', look], Volumes: { '/data': {} } } },
  });
  const argv = [
    registry.reference('app'),
    '-d',
    scratch.join('bundle/rootfs'),
    '--for',
    'runc',
    '--no-cache',
  ];
  const { exitCode, stderr } = await runProgram(argv, { uid: NOBODY, environment: { HOME: scratch.path } });
  assert.equal(exitCode, 0, stderr);
  assert.match(stderr, /without root, runc runs the container as its root, not as 1000:1001/);
  const {
    status,
    stdout,
    stderr: complaint,
  } = spawnSync('runc', ['run', '-b', scratch.join('bundle'), 'app'], {
    uid: NOBODY,
    gid: NOBODY,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', XDG_RUNTIME_DIR: scratch.path },
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(status, 7, complaint);
  assert.equal(stdout, '0\nfrom the image\n1\n');
});
