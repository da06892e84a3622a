import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { configOf } from '../../src/oci/config.ts';
import { writeRuntimeConfigs } from '../../src/runtime/write.ts';
import { findProgram, missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';
import { busyboxTree, probeScript, readProbe } from '../support/rootfs-trees.ts';

type Runtime = 'runc' | 'lxc' | 'nspawn';
const program: Readonly<Record<Runtime, string>> = {
  runc: 'runc',
  lxc: 'lxc-execute',
  nspawn: 'systemd-nspawn',
};
const skip = (runtime: Runtime) => missing('root', 'busybox', program[runtime]);

interface Machine extends Disposable {
  readonly rootfs: string;
  /** Runs what `next` says, as typed but for what a machine without systemd needs. */
  start(runtime: Runtime): { status: number | null; output: string };
}

/** A rootfs named as LXC and importctl would, with a configuration for a runtime beside it. */
async function machine(runtime: Runtime, config: object, fill: (rootfs: string) => void): Promise<Machine> {
  const scratch = new Scratch();
  chmodSync(scratch.path, 0o755);
  const rootfs = scratch.join('box', 'rootfs');
  mkdirSync(rootfs, { recursive: true });
  fill(rootfs);
  writeFileSync(`${rootfs}/probe`, probeScript, { mode: 0o755 });
  const image = configOf({ os: 'linux', architecture: 'amd64', config });
  const { next } = await writeRuntimeConfigs([runtime], { destination: rootfs, image, force: false });
  return {
    rootfs,
    start: () => {
      // No system bus in the sandbox, so no machined to register with and no unit to make.
      const line = next[0]!.replace(
        'systemd-nspawn',
        'systemd-nspawn --quiet --pipe --register=no --keep-unit',
      );
      const { status, stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8', timeout: 60_000 });
      return { status, output: stdout + stderr };
    },
    [Symbol.dispose]: () => scratch[Symbol.dispose](),
  };
}

const difficult = [
  'plain',
  'two  words ',
  '',
  `it's`,
  'say "hi"',
  `both ' and " here`,
  'back\\slash\\',
  'two\nlines\n',
  '$HOME `id` %h',
  'tab\there',
  '-n',
  'ümlaut ✓',
];

for (const runtime of ['runc', 'lxc', 'nspawn'] as const) {
  test(
    `${runtime}: command line, environment, directory and exit status arrive as the image has them`,
    { skip: skip(runtime) },
    async () => {
      const config = {
        Entrypoint: ['/probe', ...difficult],
        Cmd: ['last'],
        Env: ['PATH=/bin', ...difficult.map((text, n) => `V${n}=${text}`)],
        WorkingDir: '/var/it"s here',
      };
      using box = await machine(runtime, config, (rootfs) => {
        busyboxTree(rootfs);
        mkdirSync(`${rootfs}/var/it"s here`);
      });
      const { status, output } = box.start(runtime);
      assert.equal(status, 42, output);
      const probe = readProbe(output);
      assert.deepEqual(probe.args, ['/probe', ...difficult, 'last']);
      for (const [n, text] of difficult.entries()) assert.equal(probe.environment.get(`V${n}`), text);
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
      using box = await machine(
        runtime,
        { User: 'app', Cmd: ['/bin/sh', '-c', '/probe; /opt/cat /proc/self/status'] },
        (rootfs) => {
          busyboxTree(rootfs);
          mkdirSync(`${rootfs}/opt`);
          copyFileSync(`${rootfs}/bin/busybox`, `${rootfs}/opt/cat`);
          execFileSync(findProgram('setcap')!, ['cap_net_raw+ep', `${rootfs}/opt/cat`]);
        },
      );
      const { output } = box.start(runtime);
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
    using box = await machine(
      'runc',
      { Cmd: ['/bin/sh', '-c', look], Volumes: { '/data': {} } },
      (rootfs) => {
        busyboxTree(rootfs);
        mkdirSync(`${rootfs}/data`);
        chownSync(`${rootfs}/data`, 1000, 1001);
        chmodSync(`${rootfs}/data`, 0o750);
        writeFileSync(`${rootfs}/data/seed`, 'from the image\n');
      },
    );
    const { output } = box.start('runc');
    assert.match(output, /^1000:1001 750\nfrom the image\ntmpfs \/data tmpfs /m);
    assert.equal(existsSync(`${box.rootfs}/data/new`), false);
  },
);

for (const runtime of ['lxc', 'nspawn'] as const) {
  test(
    `${runtime}: a volume is in the rootfs, and the configuration says so`,
    { skip: skip(runtime) },
    async () => {
      using box = await machine(
        runtime,
        { Cmd: ['/bin/sh', '-c', 'echo new >/data/new'], Volumes: { '/data': {} } },
        (rootfs) => {
          busyboxTree(rootfs);
          mkdirSync(`${rootfs}/data`);
        },
      );
      const { status, output } = box.start(runtime);
      assert.equal(status, 0, output);
      assert.equal(readFileSync(`${box.rootfs}/data/new`, 'utf8'), 'new\n');
    },
  );
}
