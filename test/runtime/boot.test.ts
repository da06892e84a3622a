import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { test } from 'node:test';
import { configOf } from '../../src/oci/config.ts';
import { prepareRootfs } from '../../src/runtime/prepare.ts';
import { configure } from '../support/machine.ts';
import { missing } from '../support/debian.ts';
import { until } from '../support/until.ts';
import { Scratch } from '../support/program.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';

/**
 * A system with busybox's init: it makes a file when it has booted, and powers off when the file is removed.
 */
function bootable(rootfs: string): void {
  busyboxTree(rootfs);
  writeFileSync(`${rootfs}/bin/started`, '#!/bin/sh\ncat /etc/hosts >/booted.hosts\necho $$ >/booted\n', {
    mode: 0o755,
  });
  writeFileSync(`${rootfs}/bin/stop`, '#!/bin/sh\nwhile [ -e /booted ]; do sleep 1; done\npoweroff -f\n', {
    mode: 0o755,
  });
  writeFileSync(`${rootfs}/etc/inittab`, '::sysinit:/bin/started\n::once:/bin/stop\n');
  writeFileSync(`${rootfs}/etc/os-release`, 'ID=test\n');
  spawnSync('ln', ['-s', '/bin/busybox', `${rootfs}/sbin/init`]);
}

test(
  'lxc-start boots a system, as a daemon, and lxc-stop ends it',
  { skip: missing('root', 'busybox', 'lxc-start') },
  async () => {
    using scratch = new Scratch();
    const rootfs = scratch.join('box', 'rootfs');
    mkdirSync(rootfs, { recursive: true });
    bootable(rootfs);
    assert.ok(prepareRootfs(rootfs).includes('/etc/hosts'));
    const { next } = await configure(['lxc'], rootfs, configOf({}));
    assert.match(next[0]!, /^lxc-start -n box -f /);
    const started = spawnSync('sh', ['-c', next[0]!], { encoding: 'utf8', timeout: 60_000 });
    try {
      assert.equal(started.status, 0, started.stderr);
      await until('the mark of the boot', () => existsSync(`${rootfs}/booted`));
      assert.match(readFileSync(`${rootfs}/booted.hosts`, 'utf8'), /localhost/);
      const { stdout } = spawnSync('lxc-info', ['-n', 'box', '-sH'], { encoding: 'utf8' });
      assert.equal(stdout.trim(), 'RUNNING');
    } finally {
      spawnSync('lxc-stop', ['-n', 'box', '-k'], { timeout: 60_000 });
    }
  },
);

test(
  'systemd-nspawn boots a system, and ends when it powers off',
  { skip: missing('root', 'busybox', 'systemd-nspawn') },
  async () => {
    using scratch = new Scratch();
    const rootfs = scratch.join('box');
    mkdirSync(rootfs);
    bootable(rootfs);
    const { next, files } = await configure(['nspawn'], rootfs, configOf({}));
    assert.deepEqual(files, [scratch.join('box.nspawn')]);
    const line = next[0]!.replace(
      'systemd-nspawn',
      'exec systemd-nspawn --quiet --console=pipe --register=no --keep-unit',
    );
    const child = spawn('sh', ['-c', line], { stdio: ['ignore', 'pipe', 'pipe'] });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    try {
      await until('the mark of the boot', () => existsSync(`${rootfs}/booted`));
      spawnSync('rm', [`${rootfs}/booted`]);
      assert.equal(await ended, 0);
    } finally {
      child.kill('SIGKILL');
    }
  },
);

/** An application that reports the signal to stop. */
const application = {
  Cmd: [
    '/bin/sh',
    '-c',
    'trap "echo stopped >/stopped; exit 7" QUIT; echo $$ >/started; while :; do sleep 1; done',
  ],
  StopSignal: 'SIGQUIT',
};

/** Makes a directory in which the runtime looks for machines by itself. */
function installed(parent: string): Disposable & { readonly path: string; readonly name: string } {
  mkdirSync(parent, { recursive: true });
  const path = mkdtempSync(`${parent}/dlrootfs-test-`);
  const remove = () => {
    rmSync(path, { recursive: true, force: true });
    rmSync(`${path}.nspawn`, { force: true });
  };
  return { path, name: basename(path), [Symbol.dispose]: remove };
}

test(
  'in /var/lib/lxc a name is enough, and lxc-stop sends the image’s stop signal',
  { skip: missing('root', 'busybox', 'lxc-start') },
  async () => {
    using container = installed('/var/lib/lxc');
    const rootfs = `${container.path}/rootfs`;
    mkdirSync(rootfs);
    busyboxTree(rootfs);
    const image = configOf({ config: application });
    const { next } = await configure(['lxc'], rootfs, image);
    assert.equal(next[0], `lxc-execute -n ${container.name}`);
    try {
      assert.equal(spawnSync('lxc-start', ['-n', container.name], { timeout: 60_000 }).status, 0);
      await until('the application', () => existsSync(`${rootfs}/started`));
      assert.equal(spawnSync('lxc-stop', ['-n', container.name, '-t', '60'], { timeout: 90_000 }).status, 0);
      assert.equal(readFileSync(`${rootfs}/stopped`, 'utf8'), 'stopped\n');
    } finally {
      spawnSync('lxc-stop', ['-n', container.name, '-k'], { timeout: 60_000 });
    }
  },
);

test(
  'in /var/lib/machines a name is enough, and the image’s stop signal is passed on',
  { skip: missing('root', 'busybox', 'systemd-nspawn') },
  async () => {
    using machine = installed('/var/lib/machines');
    const rootfs = machine.path;
    busyboxTree(rootfs);
    const { next } = await configure(['nspawn'], rootfs, configOf({ config: application }));
    const command = next[0]!;
    assert.match(command, new RegExp(`^systemd-nspawn (?:--register=no --keep-unit )?-M ${machine.name}$`));
    const line = command.replace(
      'systemd-nspawn',
      'exec systemd-nspawn --quiet --pipe --register=no --keep-unit',
    );
    const child = spawn('sh', ['-c', line], { stdio: 'ignore' });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    try {
      await until('the application', () => existsSync(`${rootfs}/started`));
      child.kill('SIGTERM');
      assert.equal(await ended, 7);
      assert.equal(readFileSync(`${rootfs}/stopped`, 'utf8'), 'stopped\n');
    } finally {
      child.kill('SIGKILL');
    }
  },
);
