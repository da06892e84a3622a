import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { startContainer } from '../support/machine.ts';
import { Scratch } from '../support/program.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';

const samples = new URL('../../sample_configs/', import.meta.url).pathname;
const commands = 'id; hostname; exit 9';

/** A directory with a rootfs named `rootfs`. */
function bundle(): Scratch {
  const scratch = new Scratch();
  mkdirSync(scratch.join('rootfs'));
  busyboxTree(scratch.join('rootfs'));
  return scratch;
}

test('container.json, for nsinit, loads', () => {
  const config = JSON.parse(readFileSync(`${samples}container.json`, 'utf8')) as Record<string, unknown>;
  assert.deepEqual(config['namespaces'], {
    NEWIPC: true,
    NEWNET: true,
    NEWNS: true,
    NEWPID: true,
    NEWUTS: true,
  });
});

test(
  'config.json starts under runc, on a terminal',
  { skip: missing('root', 'busybox', 'runc', 'script') },
  () => {
    using scratch = bundle();
    copyFileSync(`${samples}config.json`, scratch.join('config.json'));
    const line = `runc run -b ${scratch.path} dlrootfs-sample-$$`;
    const { status, stdout } = spawnSync('script', ['-qec', line, '/dev/null'], {
      input: `${commands}\n`,
      encoding: 'utf8',
    });
    assert.equal(status, 9, stdout);
    assert.match(stdout, /uid=0\(root\)[^]*dlrootfs/);
  },
);

for (const edited of ['lxc-config']) {
  test(
    `${edited} starts under LXC once the two lines to change are changed`,
    { skip: missing('root', 'busybox', 'lxc-execute') },
    () => {
      using scratch = bundle();
      const text = readFileSync(samples + edited, 'utf8')
        .replace(/^lxc\.rootfs\.path = .*$/m, `lxc.rootfs.path = dir:${scratch.join('rootfs')}`)
        .replace(/^lxc\.uts\.name = .*$/m, 'lxc.uts.name = sample');
      writeFileSync(scratch.join('config'), text);
      const { status, output } = startContainer(
        `lxc-execute -n dlrootfs-sample -f ${scratch.join('config')} -- /bin/sh -c '${commands}'`,
      );
      assert.equal(status, 9, output);
      assert.match(output, /uid=0\(root\) gid=0\(?[^]*sample/);
    },
  );
}

test(
  'lxc-config.2014 becomes lxc-config by renaming its keys',
  { skip: missing('root', 'busybox', 'lxc-execute', 'lxc-update-config') },
  () => {
    using scratch = bundle();
    const old = readFileSync(`${samples}lxc-config.2014`, 'utf8')
      .replace(/^lxc\.rootfs = .*$/m, `lxc.rootfs = ${scratch.join('rootfs')}`)
      .replace(/^lxc\.network\.type = .*$/m, 'lxc.network.type = empty');
    writeFileSync(scratch.join('config'), old);
    assert.equal(spawnSync('lxc-update-config', ['-c', scratch.join('config')]).status, 0);
    const { status, output } = startContainer(
      `lxc-execute -n dlrootfs-sample -f ${scratch.join('config')} -- /bin/sh -c '${commands}'`,
    );
    assert.equal(status, 9, output);
  },
);

test(
  'dlrootfs.nspawn starts under systemd-nspawn',
  { skip: missing('root', 'busybox', 'systemd-nspawn') },
  () => {
    using scratch = bundle();
    copyFileSync(`${samples}dlrootfs.nspawn`, scratch.join('rootfs.nspawn'));
    const { status, output } = startContainer(
      `echo '${commands}' | systemd-nspawn -D ${scratch.join('rootfs')}`,
    );
    assert.equal(status, 9, output);
    assert.match(output, /uid=0\(root\)/);
  },
);
