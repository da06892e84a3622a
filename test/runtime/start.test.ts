import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import type { Runtime } from '../../src/runtime/config-files.ts';
import { findProgram, missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { difficultTexts, machine, runtimeProgram, startContainer } from '../support/machine.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { busyboxTree, probeScript, readProbe } from '../support/rootfs-trees.ts';

const skip = (runtime: Runtime) => missing('root', 'busybox', runtimeProgram[runtime]);

const pulls: readonly (readonly [runtime: Runtime, flags: readonly string[]])[] = (
  ['runc', 'lxc', 'nspawn'] as const
).flatMap((runtime) => [
  [runtime, []],
  [runtime, ['-g']],
]);

for (const [runtime, flags] of pulls) {
  test(
    `${['--for', runtime, ...flags].join(' ')}: command line, environment, directory and exit status are the image's`,
    { skip: skip(runtime) || missing('git', 'tar') },
    async () => {
      using scratch = new Scratch();
      chmodSync(scratch.path, 0o755);
      const tree = scratch.join('tree');
      mkdirSync(tree);
      busyboxTree(tree);
      mkdirSync(`${tree}/var/it"s here`);
      writeFileSync(`${tree}/probe`, probeScript, { mode: 0o755 });
      const config = {
        Entrypoint: ['/probe', ...difficultTexts],
        Cmd: ['last'],
        Env: ['PATH=/bin', ...difficultTexts.map((text, n) => `V${n}=${text}`)],
        WorkingDir: '/var/it"s here',
      };
      await using registry = await FakeRegistry.start();
      registry.push('lib/img', '1', {
        layers: [{ tar: execFileSync('tar', ['-c', '-C', tree, '.'], { maxBuffer: 64 << 20 }) }],
        config: { config },
      });
      const image = registry.reference('lib/img', '1');
      mkdirSync(scratch.join('box'));
      const rootfs = scratch.join('box/rootfs');
      const pulled = await runProgram([image, '--no-cache', '-d', rootfs, '--for', runtime, ...flags]);
      assert.equal(pulled.exitCode, 0, pulled.stderr);
      const command = /start it with: (.*)/.exec(pulled.stderr)?.[1];
      const { status, output } = startContainer(command ?? 'false');
      assert.equal(status, 42, `${pulled.stderr}\n${output}`);
      const probe = readProbe(output);
      assert.deepEqual(probe.args, ['/probe', ...difficultTexts, 'last']);
      for (const [n, text] of difficultTexts.entries()) assert.equal(probe.environment.get(`V${n}`), text);
      assert.equal(probe.environment.get('PATH'), '/bin');
      assert.equal(probe.environment.get('HOME'), '/root');
      assert.equal(probe.cwd, '/var/it"s here');
      assert.deepEqual([probe.uid, probe.gid], [0, 0]);
    },
  );
}

for (const runtime of ['runc', 'lxc'] as const) {
  test(
    `${runtime}: user and groups are the image's, and file capabilities work`,
    { skip: skip(runtime) || missing('setcap') },
    async () => {
      using box = machine(
        runtime,
        { User: 'app', Cmd: ['/bin/sh', '-c', '/probe; /opt/cat /proc/self/status'] },
        (rootfs) => {
          busyboxTree(rootfs);
          mkdirSync(`${rootfs}/opt`);
          copyFileSync(`${rootfs}/bin/busybox`, `${rootfs}/opt/cat`);
          execFileSync(findProgram('setcap')!, ['cap_net_raw+ep', `${rootfs}/opt/cat`]);
        },
      );
      const { output } = await box.start();
      const probe = readProbe(output);
      assert.deepEqual([probe.uid, probe.gid, probe.groups], [1000, 1001, [10, 44]], output);
      assert.equal(probe.environment.get('HOME'), '/home/app');
      assert.match(output, /^CapEff:\s*0000000000002000/m);
    },
  );
}

test(
  'runc: a volume is a file system of its own with what the image has there',
  { skip: skip('runc') },
  async () => {
    const look = 'stat -c "%u:%g %a" /data; cat /data/seed; grep " /data " /proc/mounts; echo new >/data/new';
    using box = machine('runc', { Cmd: ['/bin/sh', '-c', look], Volumes: { '/data': {} } }, (rootfs) => {
      busyboxTree(rootfs);
      mkdirSync(`${rootfs}/data`);
      chownSync(`${rootfs}/data`, 1000, 1001);
      chmodSync(`${rootfs}/data`, 0o750);
      writeFileSync(`${rootfs}/data/seed`, 'from the image\n');
    });
    const { output } = await box.start();
    assert.match(output, /^1000:1001 750\nfrom the image\ntmpfs \/data tmpfs /m);
    assert.equal(existsSync(`${box.rootfs}/data/new`), false);
  },
);

for (const runtime of ['lxc', 'nspawn'] as const) {
  test(
    `${runtime}: a volume is in the rootfs, and the configuration says so`,
    { skip: skip(runtime) },
    async () => {
      using box = machine(
        runtime,
        { Cmd: ['/bin/sh', '-c', 'echo new >/data/new'], Volumes: { '/data': {} } },
        (rootfs) => {
          busyboxTree(rootfs);
          mkdirSync(`${rootfs}/data`);
        },
      );
      const { status, output } = await box.start();
      assert.equal(status, 0, output);
      assert.equal(readFileSync(`${box.rootfs}/data/new`, 'utf8'), 'new\n');
    },
  );
}

for (const runtime of ['runc', 'lxc', 'nspawn'] as const) {
  test(
    `${runtime}: the container cannot read or change what is hidden`,
    { skip: skip(runtime) },
    async () => {
      const script =
        'cat /.git/HEAD; echo evil >/.git/config; rm -rf /.git; mv /.git /moved; echo evil >/.git/HEAD; exit 7';
      using box = machine(runtime, { Cmd: ['/bin/sh', '-c', script] }, (rootfs) => {
        busyboxTree(rootfs);
        mkdirSync(`${rootfs}/.git`);
        writeFileSync(`${rootfs}/.git/HEAD`, 'ref: refs/heads/layer0\n');
      });
      const { status, output } = await box.start(true);
      assert.equal(status, 7, output);
      assert.doesNotMatch(output, /ref: /);
      assert.deepEqual(readdirSync(`${box.rootfs}/.git`), ['HEAD']);
      assert.equal(readFileSync(`${box.rootfs}/.git/HEAD`, 'utf8'), 'ref: refs/heads/layer0\n');
    },
  );
}
