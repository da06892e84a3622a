import path from 'node:path';
import { UsageError } from '../errors.ts';
import { absolutePath, shellWord } from '../sys/os-path.ts';
import type { VirtualMachine } from './config-files.ts';
import { isOneLine } from './config-text.ts';
import type { Guest } from './guest.ts';

/** A disk image, and how it is started. */
export interface GuestDisk {
  /** Its file, absolute. */
  readonly file: string;
  /** The kernel's name for its file system. */
  readonly fileSystem: string;
  readonly isReadOnly: boolean;
  /** As images name it: `amd64`. */
  readonly architecture: string;
  readonly guest: Guest;
}

/** The architectures of each, by QEMU's and the kernel's names. */
const QEMU: Readonly<
  Record<string, { readonly program: string; readonly machine: string; readonly console: string }>
> = {
  amd64: { program: 'qemu-system-x86_64', machine: 'q35', console: 'ttyS0' },
  '386': { program: 'qemu-system-i386', machine: 'q35', console: 'ttyS0' },
  arm64: { program: 'qemu-system-aarch64', machine: 'virt', console: 'ttyAMA0' },
  arm: { program: 'qemu-system-arm', machine: 'virt', console: 'ttyAMA0' },
  riscv64: { program: 'qemu-system-riscv64', machine: 'virt', console: 'ttyS0' },
};
const FIRECRACKER: ReadonlySet<string> = new Set(['amd64', 'arm64']);

/**
 * Where the start of a disk image goes: `x.qemu.sh` and `x.firecracker.json` beside `x.ext4`.
 *
 * @throws UsageError where its name cannot be said there
 */
export function machinePath(machine: VirtualMachine, disk: string): string {
  const file = absolutePath(disk);
  if (!isOneLine(file) || !file.isWellFormed()) {
    throw new UsageError('--for cannot start a disk image with control characters or no UTF-8 in its path', {
      hint: 'choose another name with -o',
    });
  }
  const ending = machine === 'qemu' ? '.qemu.sh' : '.firecracker.json';
  return file.slice(0, file.length - path.extname(file).length) + ending;
}

/** @throws UsageError for an architecture that the machine does not have */
export function machineConfig(machine: VirtualMachine, disk: GuestDisk): string {
  const known =
    machine === 'qemu' ? Object.hasOwn(QEMU, disk.architecture) : FIRECRACKER.has(disk.architecture);
  if (!known) {
    throw new UsageError(`--for ${machine} knows no machine of the architecture ${disk.architecture}`, {
      hint: 'leave --for out, or choose another platform with --platform',
    });
  }
  return machine === 'qemu' ? qemuScript(disk) : firecrackerConfig(disk);
}

/** What to type next. */
export function machineCommand(machine: VirtualMachine, file: string): string {
  if (machine === 'qemu') return `KERNEL=vmlinuz INITRD=initrd.img ${shellWord(file)}`;
  return `cd ${shellWord(path.dirname(file))} && firecracker --no-api --config-file ${shellWord(path.basename(file))}`;
}

/** Of the kernel's command line: what the machines have in common. */
function bootWords({ guest, fileSystem }: GuestDisk, ending: readonly string[]): string {
  // A kernel splits its command line at blanks, but not between double quotes.
  const words = guest.words.length === 0 ? [] : ['--', ...guest.words.map((word) => kernelWord(word))];
  return [`rootfstype=${fileSystem}`, 'quiet', `init=${kernelWord(guest.init)}`, ...ending, ...words].join(
    ' ',
  );
}

function kernelWord(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  if (isOneLine(word) && !word.includes('"')) return `"${word}"`;
  throw new UsageError('the init of the image has arguments that a kernel cannot be told', {
    hint: 'leave --for out',
  });
}

/** A script for sh(1) that starts QEMU. The kernel is not in it: nobody but the user knows which. */
function qemuScript(disk: GuestDisk): string {
  const { program, machine, console } = QEMU[disk.architecture]!;
  const name = `./${path.basename(disk.file)}`.replaceAll(',', ',,');
  const drive = `driver=raw,node-name=disk,read-only=${disk.isReadOnly ? 'on' : 'off'},file.driver=file,file.filename=${name}`;
  const root = `root=/dev/vda ${disk.isReadOnly ? 'ro' : 'rw'} console=${console} panic=-1`;
  return `#!/bin/sh
# Starts the disk image beside this script in QEMU. Made by dlrootfs; edit it as you like.
#   KERNEL  a Linux kernel, with virtio_pci, virtio_blk and ${disk.fileSystem} in it or in INITRD
#   INITRD  its initial RAM disk, if it needs one
#   MEMORY  its memory (512M); CPUS, their number (1)
#   ACCEL   kvm:tcg, that is KVM where it can be used
#   APPEND  more words for the kernel's command line
# What is given to the script is given to QEMU.
set -eu
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
kernel=$(absolute "\${KERNEL:?is the path of a Linux kernel, as in KERNEL=/boot/vmlinuz}")
[ -z "\${INITRD:-}" ] || set -- -initrd "$(absolute "$INITRD")" "$@"
cd "$(dirname "$0")"
exec ${program} -machine "${machine},accel=\${ACCEL:-kvm:tcg}" -cpu max -m "\${MEMORY:-512M}" -smp "\${CPUS:-1}" \\
  -nodefaults -no-user-config -display none -serial mon:stdio -no-reboot -nic user,model=virtio-net-pci \\
  -blockdev ${shellWord(drive)} -device virtio-blk-pci,drive=disk \\
  -kernel "$kernel" -append ${shellWord(`${root} ${bootWords(disk, [])}`)}" \${APPEND:-}" "$@"
`;
}

/** A configuration for Firecracker's --config-file, by the schema of its API; it adds `root=/dev/vda` and `ro` or `rw` itself. */
function firecrackerConfig(disk: GuestDisk): string {
  // Its machine has no power switch: a reboot ends it.
  const ending = ['dlrootfs.end=reboot'];
  const config = {
    'boot-source': {
      kernel_image_path: 'vmlinux',
      boot_args: `console=ttyS0 reboot=k panic=1 pci=off ${bootWords(disk, ending)}`,
    },
    drives: [
      {
        drive_id: 'rootfs',
        path_on_host: path.basename(disk.file),
        is_root_device: true,
        is_read_only: disk.isReadOnly,
      },
    ],
    'machine-config': { vcpu_count: 1, mem_size_mib: 512 },
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}
