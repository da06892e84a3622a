/**
 * Starts disk images in QEMU, without KVM, with Debian's kernel for clouds: `make test-boot`. It takes a
 * minute or two, and needs Debian's mirror for the kernel, which is not installed.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Setting } from '../faults/setting.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';
import { missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';
import { diskKinds } from '../support/disk.ts';
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

  /** A disk with the image, and the files of `--for` beside it. */
  async function pulled(name: string, machine: string, ...flags: readonly string[]): Promise<Setting> {
    const tree = scratch.join(`tree-${name}-${machine}`);
    busyboxTree(tree);
    const tar = execFileSync('tar', ['-c', '--owner=0', '--group=0', '-C', tree, '.'], {
      maxBuffer: 64 << 20,
    });
    const setting = await Setting.open({ layers: [{ tar }], config: { config } });
    await setting.pullWell(['-o', name, '--for', machine, '--platform', 'linux/amd64', ...flags]);
    return setting;
  }

  for (const [format, program, flags] of diskKinds) {
    test(
      `${[format, ...flags].join(' ')}, and runs the command of the image`,
      { skip: program === undefined ? false : missing(program), timeout: 300_000 },
      async () => {
        await using setting = await pulled(`box.${format}`, 'qemu', ...flags);
        const started = spawnSync(setting.scratch.join('box.qemu.sh'), [], {
          ...waiting,
          env: {
            ...process.env,
            KERNEL: boot.kernel,
            INITRD: boot.initrd,
            ACCEL: 'tcg',
            APPEND: QUIET_TIMER,
          },
        });
        assert.equal(started.status, 0, started.stdout + started.stderr);
        assert.deepEqual(printed(started.stdout), expected);
      },
    );
  }

  test(
    'the machine that the recipe for Firecracker describes, and a reboot ends it (in QEMU: Firecracker needs KVM)',
    { skip: missing('mke2fs'), timeout: 300_000 },
    async () => {
      await using setting = await pulled('rootfs.ext4', 'qemu');
      const recipes = readFileSync(new URL('../../docs/recipes.md', import.meta.url), 'utf8');
      const [, text] = /^## Disk for Firecracker\n[^]*?^```json\n([^]*?)^```$/m.exec(recipes)!;
      const described = JSON.parse(text!) as {
        'boot-source': { boot_args: string };
        drives: readonly [{ path_on_host: string; is_read_only: boolean }];
        'machine-config': { vcpu_count: number; mem_size_mib: number };
      };
      const { 'boot-source': source, drives, 'machine-config': size } = described;
      const [{ path_on_host: disk, is_read_only: isReadOnly }] = drives;
      const machine = `-machine microvm,accel=tcg,acpi=on,rtc=on -cpu max -nodefaults -no-user-config -display none
        -serial stdio -no-reboot -m ${size.mem_size_mib}M -smp ${size.vcpu_count}
        -drive id=disk,file=${disk},format=raw,if=none -device virtio-blk-device,drive=disk
        -kernel ${boot.kernel} -initrd ${boot.initrd}`;
      // Firecracker appends its own words to those of the file.
      const words = `${source.boot_args} root=/dev/vda ${isReadOnly ? 'ro' : 'rw'} ${QUIET_TIMER}`;
      const started = spawnSync('qemu-system-x86_64', [...machine.split(/\s+/), '-append', words], {
        ...waiting,
        cwd: setting.scratch.path,
      });
      assert.equal(started.status, 0, started.stdout + started.stderr);
      const lines = printed(started.stdout.replace(/\s*\[[ \d.]+\] sysrq: Resetting\s*$/, ''));
      assert.deepEqual(lines, expected);
    },
  );
});

/** On a busy machine QEMU may get too little time for the kernel to find its timer. */
const QUIET_TIMER = 'no_timer_check';
const waiting = { encoding: 'utf8', timeout: 240_000, input: '' } as const;
const expected = [
  `hello it's from /bin/sh`,
  '1000',
  '1001',
  `/srv/it's here`,
  'A is <one $HOME "two"',
  'three>',
  'exit code: 7',
];

/** Returns the last lines of the console. */
function printed(console: string): string[] {
  return console.replaceAll('\r', '').trimEnd().split('\n').slice(-expected.length);
}

/** Returns the name of the package with Debian's newest kernel for clouds. */
function newestKernel(): string {
  const text = execFileSync('apt-cache', ['depends', 'linux-image-cloud-amd64'], { encoding: 'utf8' });
  return /Depends: (linux-image-\S+)/.exec(text)![1]!;
}
