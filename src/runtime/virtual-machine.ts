import { basename, extname } from 'node:path';
import type { GuestFile } from '../disk/format.ts';
import { printable, UsageError } from '../errors.ts';
import type { ImageConfig } from '../oci/config.ts';
import { childPath } from '../rootfs/directories.ts';
import type { ImageTree } from '../rootfs/image-tree.ts';
import { absolutePath, shellWord, MAX_NAME_BYTES } from '../sys/os-path.ts';
import { bytePath, type BytePath } from '../tar/entry.ts';
import { isOneLine } from './config-text.ts';
import { type Container, containerOf, resolveUser } from './container.ts';
import { mountPoints } from './prepare.ts';

/** A disk image, and the guest on it. */
export interface GuestDisk {
  readonly file: string;
  /** The kernel's name for its file system. */
  readonly fileSystem: string;
  readonly isReadOnly: boolean;
  /** The image's word for it: `amd64`. */
  readonly architecture: string;
  readonly guest: Guest;
}

/** QEMU's names and the kernel's console, by the names that images use for architectures. */
const QEMU: Readonly<
  Record<string, { readonly program: string; readonly machine: string; readonly console: string }>
> = {
  amd64: { program: 'qemu-system-x86_64', machine: 'q35', console: 'ttyS0' },
  '386': { program: 'qemu-system-i386', machine: 'q35', console: 'ttyS0' },
  arm64: { program: 'qemu-system-aarch64', machine: 'virt', console: 'ttyAMA0' },
  arm: { program: 'qemu-system-arm', machine: 'virt', console: 'ttyAMA0' },
  riscv64: { program: 'qemu-system-riscv64', machine: 'virt', console: 'ttyS0' },
};

/** A script that starts a disk image in a virtual machine. */
export interface MachineConfig {
  /** An absolute path. */
  readonly file: string;
  readonly mode: number;
  readonly text: string;
  /** The command to type next. */
  readonly command: string;
}

/**
 * Returns the path of the script that starts a disk image: `x.qemu.sh` beside `x.ext4`.
 *
 * @throws UsageError if the script cannot express the disk's name
 */
export function machinePath(disk: string): string {
  const file = absolutePath(disk);
  if (!isOneLine(file) || !file.isWellFormed()) {
    throw new UsageError('--for cannot start a disk image with control characters or no UTF-8 in its path', {
      hint: 'choose another name with -o',
    });
  }
  return `${file.slice(0, file.length - extname(file).length)}.qemu.sh`;
}

/**
 * Makes the script for a disk image.
 *
 * @throws UsageError for an architecture that QEMU has no machine for, and as `machinePath`
 */
export function machineConfig(disk: GuestDisk): MachineConfig {
  if (!Object.hasOwn(QEMU, disk.architecture)) {
    throw new UsageError(`--for qemu has no machine for the architecture ${disk.architecture}`, {
      hint: 'leave --for out, or choose another platform with --platform',
    });
  }
  const file = machinePath(disk.file);
  const command = `KERNEL=vmlinuz INITRD=initrd.img ${shellWord(file)}`;
  return { file, mode: 0o755, text: qemuScript(disk), command };
}

/** Returns the words of the kernel's command line that do not depend on the machine. */
function bootWords({ guest, fileSystem }: GuestDisk): string {
  // A kernel splits its command line at blanks, but not between double quotes.
  const words = guest.words.length === 0 ? [] : ['--', ...guest.words.map((word) => kernelWord(word))];
  return [`rootfstype=${fileSystem}`, 'quiet', `init=${kernelWord(guest.init)}`, ...words].join(' ');
}

function kernelWord(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  if (isOneLine(word) && !word.includes('"')) return `"${word}"`;
  throw new UsageError(
    'cannot pass the arguments of the init of the image: a kernel has no notation for them',
    {
      hint: 'leave --for out',
    },
  );
}

/** Returns a script for sh(1) that starts QEMU, with a kernel that its user chooses. */
function qemuScript(disk: GuestDisk): string {
  const { program, machine, console } = QEMU[disk.architecture]!;
  const name = `./${basename(disk.file)}`.replaceAll(',', ',,');
  const readOnly = disk.isReadOnly ? 'on' : 'off';
  const drive = `driver=raw,node-name=disk,read-only=${readOnly},file.driver=file,file.filename=${name}`;
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
  -kernel "$kernel" -append ${shellWord(`${root} ${bootWords(disk)}`)}" \${APPEND:-}" "$@"
`;
}

/** The init of a disk in a virtual machine. */
export interface Guest {
  /** The program that the kernel starts. */
  readonly init: string;
  /** Its arguments. */
  readonly words: readonly string[];
  /** Files to add to the disk: mount points that the image lacks, and an init if it has none. */
  readonly files: readonly GuestFile[];
}

/** The name of the added init; dashes follow if the image has this name. */
const INIT_NAME = '.dlrootfs-init';

/** Programs that the init needs, each at one of these paths. */
const NEEDED_PROGRAMS: readonly (readonly string[])[] = [['bin/sh'], ['usr/bin/env', 'bin/env']];

/**
 * Returns the guest for an image. It starts the image's own init if that is its command, else an added init
 * that runs the command.
 *
 * @param name for the hostname
 * @param isReadOnly true if the disk is read-only
 * @throws UsageError for an image without a shell; IntegrityError if the image does not have its user
 */
export function guestOf(tree: ImageTree, { config }: ImageConfig, name: string, isReadOnly: boolean): Guest {
  const has = (path: string): boolean => tree.find(path as BytePath, true)?.type === 'file';
  const accounts = { passwd: tree.accountFile('passwd') ?? '', group: tree.accountFile('group') ?? '' };
  const facts = { ...NO_FACTS, shell: has('bin/sh'), init: has('sbin/init') };
  const user = resolveUser(config.User ?? '', accounts);
  const container = containerOf(config, user, facts, { name, rootfs: '/', hidden: [] });
  const missing = mountPoints.filter(([point]) => !tree.find(point as BytePath, false));
  const points = missing.map(([point, mode]) => ({ path: point as BytePath, mode, content: undefined }));
  const [program = '', ...words] = container.args;
  if (container.boots)
    return { init: program.startsWith('/') ? program : '/sbin/init', words, files: points };
  if (!NEEDED_PROGRAMS.every((paths) => paths.some((path) => has(path)))) throw noShell();
  const unsayable = [...container.args, container.workingDirectory].find((text) => text.includes('\0'));
  if (unsayable !== undefined) throw nulByteError(unsayable);
  let file = INIT_NAME;
  while (tree.find(file as BytePath, false)) file += '-';
  const init = { path: file as BytePath, mode: 0o755, content: initScript(container, isReadOnly) };
  const directories = directoriesTo(tree, container.workingDirectory);
  return { init: `/${file}`, words: [], files: [...points, init, ...directories] };
}

/**
 * Returns the missing directories on the way to a directory, which container engines make before they start
 * the command.
 */
function directoriesTo(tree: ImageTree, directory: string): GuestFile[] {
  const names = bytePath(directory)
    .split('/')
    .filter((name) => name !== '' && name !== '.');
  if (names.some((name) => name === '..' || name.length > MAX_NAME_BYTES)) return [];
  const missing: BytePath[] = [];
  let there = '' as BytePath;
  for (const name of names) {
    there = childPath(there, name);
    const found = missing.length === 0 ? tree.find(there, true) : undefined;
    if (found?.type === 'directory') there = found.path;
    else if (missing.length === 0 && (found || tree.find(there, false))) return [];
    else missing.push(there);
  }
  return missing
    .filter((path) => !mountPoints.some(([point]) => point === path))
    .map((path) => ({ path, mode: 0o755, content: undefined }));
}

/** Facts that this runtime does not use. */
const NO_FACTS = { getent: false, usr: true, osRelease: false, volumes: new Map() };

function noShell(): UsageError {
  return new UsageError('cannot make an init for an image that has no /bin/sh and env', {
    code: 'NO_SHELL',
    hint: 'leave --for out and give the kernel the program of the image: init=/PATH',
  });
}

function nulByteError(text: string): UsageError {
  return new UsageError(`the command of the image has a NUL byte: ${printable(text)}`, {
    code: 'NUL_BYTE',
    hint: 'leave --for out and write an init by hand',
  });
}

/**
 * Returns a POSIX script for sh(1) that is the first process of a virtual machine. It mounts the file systems
 * of a system, runs the image's command with exactly its environment, prints its exit code and ends the
 * machine. It requires sh and env; steps whose programs are missing are skipped.
 */
function initScript(container: Container, isReadOnly: boolean): string {
  const { user, workingDirectory, name } = container;
  const lines = [
    '#!/bin/sh',
    '# Written by dlrootfs: the first process of a virtual machine. It runs the command of the ' +
      'image, and ends the machine.',
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'export PATH',
    // /dev/null exists only after this, and in an image without mount never.
    'mount -t devtmpfs devtmpfs /dev 2>&-',
    'exec 3>&2',
    '[ ! -c /dev/null ] || exec 2>/dev/null',
    'mount -t proc proc /proc',
    'mount -t sysfs sysfs /sys',
    'mkdir -p /dev/pts /dev/shm',
    'mount -t devpts -o mode=0620,gid=5,ptmxmode=0666 devpts /dev/pts',
    'mount -t tmpfs -o mode=1777 tmpfs /dev/shm',
    'for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do',
    '  [ -e "/dev/${link%%:*}" ] || ln -s "/proc/self/${link#*:}" "/dev/${link%%:*}"',
    'done',
    ...(isReadOnly ? onReadOnlyRoot : []),
    '(: </dev/console >/dev/console) && exec </dev/console >/dev/console 3>&1',
    // Programs of other users open it as /dev/stdout.
    'chmod 0666 /dev/console',
    `{ echo ${shellWord(name)} >/proc/sys/kernel/hostname; }`,
    'ip link set lo up || ifconfig lo up',
    'exec 2>&3 3>&-',
    `command=${shellWord(shellCommand(container))}`,
    '(',
    `  cd ${shellWord(workingDirectory)} || exit 126`,
    ...(user.uid === 0 && user.gid === 0 && user.groups.length === 0
      ? ['  exec /bin/sh -c "$command"']
      : asUser(container)),
    ')',
    'code=$?',
    ...ending,
  ];
  return `${lines.join('\n')}\n`;
}

/** Mounts a tmpfs on /tmp and on /run; the image's files in /run are kept, those in /tmp are not. */
const onReadOnlyRoot: readonly string[] = [
  'mount -t tmpfs -o mode=1777 tmpfs /tmp',
  'cp -a /run /tmp/.run',
  'mount -t tmpfs -o mode=0755 tmpfs /run',
  'cp -a /tmp/.run/. /run/ && rm -rf /tmp/.run',
];

/**
 * Ends the machine; kernel messages are off so that the exit code is last. `dlrootfs.end=reboot` on the
 * kernel's command line reboots, for a machine that a reboot ends (Firecracker).
 */
const ending: readonly string[] = [
  'echo "exit code: $code"',
  '[ ! -c /dev/null ] || exec 2>/dev/null',
  'sync',
  '{ echo 0 >/proc/sys/kernel/printk; }',
  'how=poweroff key=o',
  'read -r words </proc/cmdline',
  'case " $words " in *" dlrootfs.end=reboot "*) how=reboot key=b ;; esac',
  'mount -o remount,ro /',
  '$how -f',
  '{ echo $key >/proc/sysrq-trigger; }',
  // That takes a moment. If the kernel cannot do it, the end of this process ends the machine.
  'sleep 5',
  'exit "$code"',
];

/** Returns the image's command with exactly its environment. */
export function shellCommand({ args, environment }: Container): string {
  const variables = [...environment].map(([name, value]) => shellWord(`${name}=${value}`));
  // env takes a word with an equals sign for a variable.
  const first = args[0]!.includes('=') ? ['/bin/sh', '-c', shellWord('exec "$@"'), 'sh'] : [];
  return ['exec env -i --', ...variables, ...first, ...args.map((word) => shellWord(word))].join(' ');
}

/**
 * Returns lines that run the command as the user by the first program that works: setpriv of util-linux,
 * chroot of coreutils, or su, which needs a name.
 */
function asUser({ user }: Container): string[] {
  const { uid, gid, groups, name } = user;
  const list = groups.join(',');
  const setpriv = `setpriv --reuid=${uid} --regid=${gid} ${groups.length > 0 ? `--groups=${list}` : '--clear-groups'}`;
  const chroot = `chroot --skip-chdir --userspec=${uid}:${gid} --groups=${shellWord(list)} /`;
  const su = name === undefined || name.startsWith('-') ? undefined : `su -s /bin/sh ${shellWord(name)}`;
  const failure = `cannot become user ${uid}: the image has none of setpriv, chroot of coreutils and su`;
  const none = `echo ${shellWord(failure)} >&2`;
  return [
    `  if ${setpriv} true 2>/dev/null; then exec ${setpriv} /bin/sh -c "$command"; fi`,
    `  if ${chroot} true 2>/dev/null; then exec ${chroot} /bin/sh -c "$command"; fi`,
    ...(su === undefined ? [] : [`  if ${su} -c true 2>/dev/null; then exec ${su} -c "$command"; fi`]),
    `  ${none}`,
    '  exit 126',
  ];
}
