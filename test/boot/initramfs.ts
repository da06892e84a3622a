import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { busyboxTree } from '../support/rootfs-trees.ts';

/** Modules of Debian's kernel for clouds that a disk needs, each after those that it needs. */
const MODULES = ['virtio_mmio', 'virtio_blk', 'squashfs', 'libcrc32c', 'erofs'];

/**
 * The init of the initramfs: it loads modules, mounts the disk and starts the system, as a distribution's
 * does.
 */
const INIT = `#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod "$module"; done
read -r line </proc/cmdline
mode=ro
for word in $line; do
  case $word in
    rootfstype=*) type=\${word#*=} ;;
    init=*) init=\${word#*=} ;;
    rw) mode=rw ;;
  esac
done
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t "$type" -o "$mode" /dev/vda /root || exec poweroff -f
umount /dev /proc
exec switch_root /root "$init"
`;

/**
 * Makes an initramfs for a kernel whose package was unpacked in `kernel`.
 *
 * @returns the kernel and the initramfs, as files
 */
export function makeInitramfs(
  kernel: string,
  work: string,
): { readonly kernel: string; readonly initrd: string } {
  const tree = path.join(work, 'initramfs');
  busyboxTree(tree);
  for (const name of ['insmod', 'switch_root', 'umount', 'mount', 'sleep']) linkBusybox(tree, name);
  mkdirSync(`${tree}/modules`);
  const all = readdirSync(path.join(kernel, 'usr/lib/modules'), { recursive: true, encoding: 'utf8' });
  let number = 0;
  for (const module of MODULES) {
    const found = all.find(
      (name) => path.basename(name).replace(/\.ko(?:\.xz)?$/, '') === module && name.includes('.ko'),
    );
    if (found === undefined) continue;
    number += 1;
    const copy = `${tree}/modules/${number}-${path.basename(found)}`;
    cpSync(path.join(kernel, 'usr/lib/modules', found), copy);
    if (copy.endsWith('.xz')) execFileSync('xz', ['-d', copy]);
  }
  writeFileSync(`${tree}/init`, INIT, { mode: 0o755 });
  const initrd = path.join(work, 'initrd.img');
  execFileSync('bsdtar', ['--format', 'newc', '-czf', initrd, '-C', tree, '.']);
  const vmlinuz = readdirSync(path.join(kernel, 'boot')).find((name) => name.startsWith('vmlinuz'));
  return { kernel: path.join(kernel, 'boot', vmlinuz!), initrd };
}

function linkBusybox(tree: string, name: string): void {
  execFileSync('ln', ['-sf', 'busybox', `${tree}/bin/${name}`]);
}
