/**
 * Starts disk images in QEMU, without KVM, with Debian's kernel for clouds: `make test-boot`. Takes a minute or two, and needs Debian's
 * mirror for the kernel, which is not installed.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Setting } from '../faults/setting.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';
import { missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';
import { diskPrograms } from '../support/disk.ts';
import { makeInitramfs } from './initramfs.ts';

const needs =
  process.arch === 'x64'
    ? missing('qemu-system-x86_64', 'apt-get', 'dpkg-deb', 'bsdtar', 'busybox', 'xz')
    : 'needs x86_64';

const command = `echo "hello $1 from $0"; id -u; id -g; pwd; echo "A is <$A>"; : >/dev/shm/x; [ -c /dev/null ] && [ -d /proc/1 ] && exit 7`;
const config = {
  User: 'app',
  WorkingDir: `/srv/it's here`,
  Env: ['A=one $HOME "two"\nthree'],
  Entrypoint: ['/bin/sh', '-c', command, '/bin/sh'],
  Cmd: [`it's`],
};

describe('a disk image boots', { skip: needs }, () => {
  const scratch = new Scratch();
  let boot: ReturnType<typeof makeInitramfs>;

  before(() => {
    const kernel = scratch.join('kernel');
    mkdirSync(kernel);
    execFileSync('apt-get', ['download', '-q', newestKernel()], { cwd: scratch.path, stdio: 'pipe' });
    const archive = readdirSync(scratch.path).find((name) => name.endsWith('.deb'))!;
    execFileSync('dpkg-deb', ['-x', scratch.join(archive), kernel]);
    boot = makeInitramfs(kernel, scratch.path);
  });
  after(() => scratch[Symbol.dispose]());

  for (const [format, program] of diskPrograms) {
    test(
      `${format}, and runs the command of the image`,
      { skip: missing(program), timeout: 300_000 },
      async () => {
        const tree = scratch.join(`tree-${format}`);
        busyboxTree(tree);
        const tar = execFileSync('tar', ['-c', '--owner=0', '--group=0', '-C', tree, '.'], {
          maxBuffer: 64 << 20,
        });
        await using setting = await Setting.open({ layers: [{ tar }], config: { config } });
        await setting.pullWell(['-o', `box.${format}`, '--for', 'qemu', '--platform', 'linux/amd64']);
        const { stdout, stderr, status } = spawnSync(setting.scratch.join('box.qemu.sh'), [], {
          encoding: 'utf8',
          // A busy machine may give QEMU too little time for the kernel to find its timer.
          env: {
            ...process.env,
            KERNEL: boot.kernel,
            INITRD: boot.initrd,
            ACCEL: 'tcg',
            APPEND: 'no_timer_check',
          },
          timeout: 240_000,
          input: '',
        });
        assert.equal(status, 0, stdout + stderr);
        const lines = stdout.replaceAll('\r', '').trimEnd().split('\n');
        assert.deepEqual(lines.slice(-7), [
          `hello it's from /bin/sh`,
          '1000',
          '1001',
          `/srv/it's here`,
          'A is <one $HOME "two"',
          'three>',
          'exit code: 7',
        ]);
      },
    );
  }
});

/** What the package of Debian's newest kernel for clouds depends on. */
function newestKernel(): string {
  const text = execFileSync('apt-cache', ['depends', 'linux-image-cloud-amd64'], { encoding: 'utf8' });
  return /Depends: (linux-image-\S+)/.exec(text)![1]!;
}
