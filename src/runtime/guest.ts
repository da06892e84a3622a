import type { Addition } from '../disk/format.ts';
import type { ImageConfig } from '../oci/config.ts';
import { UsageError, printable } from '../errors.ts';
import { join } from '../rootfs/directories.ts';
import type { ImageTree } from '../rootfs/image-tree.ts';
import { shellWord } from '../sys/os-path.ts';
import { bytePath, type BytePath } from '../tar/entry.ts';
import { type Container, containerOf } from './container.ts';
import { resolveUser } from './user.ts';

/** What a disk needs to be started in a virtual machine. */
export interface Guest {
  /** The program that the kernel starts. */
  readonly init: string;
  /** Its arguments. */
  readonly words: readonly string[];
  /** What is added to the disk: directories that the image leaves out, and an init where it has none. */
  readonly additions: readonly Addition[];
}

/** Of the added init; more characters follow where the image has this name. */
const INIT_NAME = '.dlrootfs-init';

const MOUNT_POINTS: readonly (readonly [name: string, mode: number])[] = [
  ['dev', 0o755],
  ['proc', 0o555],
  ['run', 0o755],
  ['sys', 0o555],
  ['tmp', 0o1777],
];

const LONGEST_NAME = 255;

/** Programs that the init needs, each where images have it. */
const NEEDED: readonly (readonly string[])[] = [['bin/sh'], ['usr/bin/env', 'bin/env']];

/**
 * How an image is started in a virtual machine: by its own init if that is its command, else by an init that runs the command.
 *
 * @param name for the hostname
 * @param isReadOnly whether the disk is
 * @throws UsageError for an image without a shell, IntegrityError where the image's user is not in the image
 */
export function guestOf(tree: ImageTree, { config }: ImageConfig, name: string, isReadOnly: boolean): Guest {
  const has = (path: string): boolean => tree.find(path as BytePath, true)?.type === 'file';
  const accounts = { passwd: tree.accountFile('passwd') ?? '', group: tree.accountFile('group') ?? '' };
  const facts = { ...NO_FACTS, shell: has('bin/sh'), init: has('sbin/init') };
  const user = resolveUser(config.User ?? '', accounts);
  const container = containerOf(config, user, facts, { name, rootfs: '/', hidden: [] });
  const missing = MOUNT_POINTS.filter(([point]) => !tree.find(point as BytePath, false));
  const points = missing.map(([point, mode]) => ({ path: point as BytePath, mode, content: undefined }));
  const [program = '', ...words] = container.args;
  if (container.boots)
    return { init: program.startsWith('/') ? program : '/sbin/init', words, additions: points };
  if (!NEEDED.every((paths) => paths.some((path) => has(path)))) throw noShell();
  const unsayable = [...container.args, container.workingDirectory].find((text) => text.includes('\0'));
  if (unsayable !== undefined) throw withNul(unsayable);
  let file = INIT_NAME;
  while (tree.find(file as BytePath, false)) file += '-';
  const init = { path: file as BytePath, mode: 0o755, content: initScript(container, isReadOnly) };
  const directories = directoriesTo(tree, container.workingDirectory);
  return { init: `/${file}`, words: [], additions: [...points, init, ...directories] };
}

/** What is missing of a directory, which container engines make when they start the command. */
function directoriesTo(tree: ImageTree, directory: string): Addition[] {
  const names = bytePath(directory)
    .split('/')
    .filter((name) => name !== '' && name !== '.');
  if (names.some((name) => name === '..' || name.length > LONGEST_NAME)) return [];
  let there = '' as BytePath;
  for (const [index, name] of names.entries()) {
    const path = join(there, name);
    const found = tree.find(path, true);
    if (found?.type === 'directory') there = found.path;
    else if (found || tree.find(path, false)) return [];
    else {
      const rest = names
        .slice(index)
        .map((_, at) => join(there, names.slice(index, index + at + 1).join('/')));
      return rest
        .filter((each) => !MOUNT_POINTS.some(([point]) => point === each))
        .map((each) => ({ path: each, mode: 0o755, content: undefined }));
    }
  }
  return [];
}

/** What only other runtimes need to know. */
const NO_FACTS = { getent: false, usr: true, osRelease: false, volumes: new Map() };

function noShell(): UsageError {
  return new UsageError('cannot make an init for an image that has no /bin/sh and env', {
    code: 'NO_SHELL',
    hint: 'leave --for out and give the kernel the program of the image: init=/PATH',
  });
}

function withNul(text: string): UsageError {
  return new UsageError(`the command of the image has a NUL byte: ${printable(text)}`, {
    code: 'NUL_BYTE',
    hint: 'leave --for out and write an init by hand',
  });
}

/**
 * A script for sh(1) of POSIX that is the first process of a virtual machine: mounts what a system has, runs the image's command with exactly its
 * environment, prints its exit code and ends the machine. Programs that the image lacks are done without, but for sh and env.
 */
function initScript(container: Container, isReadOnly: boolean): string {
  const { user, workingDirectory, name } = container;
  const lines = [
    '#!/bin/sh',
    '# Written by dlrootfs: the first process of a virtual machine. It runs the command of the image, and ends the machine.',
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'export PATH',
    // Before this /dev/null is missing, and in an image without mount it stays so.
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
    // Programs of other users open /dev/stdout.
    'chmod 0666 /dev/console',
    `{ echo ${shellWord(name)} >/proc/sys/kernel/hostname; }`,
    'ip link set lo up || ifconfig lo up',
    'exec 2>&3 3>&-',
    `command=${shellWord(commandLine(container))}`,
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

/** Files of /run stay; those of /tmp are nobody's. */
const onReadOnlyRoot: readonly string[] = [
  'mount -t tmpfs -o mode=1777 tmpfs /tmp',
  'cp -a /run /tmp/.run',
  'mount -t tmpfs -o mode=0755 tmpfs /run',
  'cp -a /tmp/.run/. /run/ && rm -rf /tmp/.run',
];

/** In a machine that a reboot ends (Firecracker) it is rebooted; messages of the kernel would come after the exit code. */
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
  // It takes a moment; a kernel that cannot do it ends when this process does.
  'sleep 5',
  'exit "$code"',
];

/** The image's command with its environment and no other variable. */
export function commandLine({ args, environment }: Container): string {
  const variables = [...environment].map(([name, value]) => shellWord(`${name}=${value}`));
  // What has an equals sign would be a variable for env.
  const first = args[0]!.includes('=') ? ['/bin/sh', '-c', shellWord('exec "$@"'), 'sh'] : [];
  return ['exec env -i --', ...variables, ...first, ...args.map((word) => shellWord(word))].join(' ');
}

/** By the first of three programs that can do it: that of util-linux, of coreutils, and su, which wants a name. */
function asUser({ user }: Container): string[] {
  const { uid, gid, groups, name } = user;
  const list = groups.join(',');
  const setpriv = `setpriv --reuid=${uid} --regid=${gid} ${groups.length > 0 ? `--groups=${list}` : '--clear-groups'}`;
  const chroot = `chroot --skip-chdir --userspec=${uid}:${gid} --groups=${shellWord(list)} /`;
  const su = name === undefined || name.startsWith('-') ? undefined : `su -s /bin/sh ${shellWord(name)}`;
  const none = `echo ${shellWord(`cannot become user ${uid}: the image has none of setpriv, chroot of coreutils and su`)} >&2`;
  return [
    `  if ${setpriv} true 2>/dev/null; then exec ${setpriv} /bin/sh -c "$command"; fi`,
    `  if ${chroot} true 2>/dev/null; then exec ${chroot} /bin/sh -c "$command"; fi`,
    ...(su === undefined ? [] : [`  if ${su} -c true 2>/dev/null; then exec ${su} -c "$command"; fi`]),
    `  ${none}`,
    '  exit 126',
  ];
}
