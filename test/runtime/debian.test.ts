import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { findProgram, missing } from '../support/debian.ts';
import { configureAndStart, difficultTexts, runtimeProgram } from '../support/machine.ts';
import { until } from '../support/until.ts';
import { Scratch } from '../support/program.ts';
import { debianTree, probeScript, readProbe } from '../support/rootfs-trees.ts';

/** A unit that makes a file once the system is up, and powers it off. */
const markUnit = `[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /proc/1/comm >/booted; systemctl --no-block poweroff'
`;

const needs = missing('root', 'mmdebstrap', 'setcap', ...Object.values(runtimeProgram));

describe('a real Debian', { skip: needs }, () => {
  const scratch = new Scratch();
  const rootfs = scratch.join('box', 'rootfs');

  const readMark = () => (existsSync(`${rootfs}/booted`) ? readFileSync(`${rootfs}/booted`, 'utf8') : '');

  before(() => {
    chmodSync(scratch.path, 0o755);
    debianTree(rootfs, 'systemd-sysv');
    writeFileSync(`${rootfs}/probe`, probeScript, { mode: 0o755 });
    execFileSync('chroot', [
      rootfs,
      'useradd',
      '--create-home',
      '--uid',
      '1234',
      '--groups',
      'video,audio',
      'app',
    ]);
    mkdirSync(`${rootfs}/opt/bin`);
    copyFileSync(`${rootfs}/bin/cat`, `${rootfs}/opt/bin/cat`);
    execFileSync(findProgram('setcap')!, ['cap_net_raw+ep', `${rootfs}/opt/bin/cat`]);
    const units = `${rootfs}/etc/systemd/system`;
    mkdirSync(`${units}/multi-user.target.wants`, { recursive: true });
    writeFileSync(`${units}/mark.service`, markUnit);
    symlinkSync('../mark.service', `${units}/multi-user.target.wants/mark.service`);
  });
  after(() => scratch[Symbol.dispose]());

  for (const runtime of ['runc', 'lxc', 'nspawn'] as const) {
    test(`${runtime} starts it as the image’s user, with quotes and line breaks in the environment`, async () => {
      const { status, output } = await configureAndStart(runtime, rootfs, {
        User: 'app',
        Env: difficultTexts.map((text, n) => `V${n}=${text}`),
        Entrypoint: ['/probe'],
        Cmd: difficultTexts,
        WorkingDir: '/home/app',
      });
      assert.equal(status, 42, output);
      const probe = readProbe(output);
      assert.deepEqual(probe.args, ['/probe', ...difficultTexts]);
      for (const [n, text] of difficultTexts.entries()) assert.equal(probe.environment.get(`V${n}`), text);
      assert.equal(probe.environment.get('HOME'), '/home/app');
      assert.equal(probe.cwd, '/home/app');
      assert.deepEqual([probe.uid, probe.gid], [1234, 1234]);
      assert.deepEqual(
        probe.groups.filter((gid) => gid !== 1234),
        [29, 44],
      );
    });

    test(`${runtime}: capabilities on files work for a user`, async () => {
      const { output } = await configureAndStart(runtime, rootfs, {
        User: 'app',
        Cmd: ['/opt/bin/cat', '/proc/self/status'],
      });
      assert.match(output, /^CapEff:\s*0000000000002000/m);
    });
  }

  for (const runtime of ['lxc', 'nspawn'] as const) {
    test(`${runtime} boots it with systemd`, async () => {
      rmSync(`${rootfs}/booted`, { force: true });
      const { output } = await configureAndStart(runtime, rootfs, { Cmd: ['/sbin/init'] });
      try {
        await until(`systemd: ${output}`, () => readMark() === 'systemd\n');
      } finally {
        if (runtime === 'lxc') spawnSync('lxc-stop', ['-n', 'box', '-k'], { timeout: 60_000 });
      }
    });
  }

  test('chroot runs its programs', () => {
    const { stdout } = spawnSync('chroot', [rootfs, '/bin/sh', '-c', 'dpkg -l'], { encoding: 'utf8' });
    assert.match(stdout, /^ii  dpkg /m);
  });
});
