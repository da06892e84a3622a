import { accessSync, constants } from 'node:fs';

/** Debian's packages for programs with another name; the list that `make test` installs has the reasons. */
const packageOf: Readonly<Record<string, string>> = {
  bsdtar: 'libarchive-tools',
  busybox: 'busybox-static',
  debugfs: 'e2fsprogs',
  getcap: 'libcap2-bin',
  getfacl: 'acl',
  getfattr: 'attr',
  'lxc-execute': 'lxc',
  'lxc-start': 'lxc',
  man: 'man-db',
  mke2fs: 'e2fsprogs',
  'fsck.erofs': 'erofs-utils',
  'mkfs.erofs': 'erofs-utils',
  newuidmap: 'uidmap',
  prlimit: 'util-linux',
  'qemu-aarch64': 'qemu-user libc6-arm64-cross libstdc++6-arm64-cross libgcc-s1-arm64-cross',
  'qemu-system-x86_64': 'qemu-system-x86',
  setcap: 'libcap2-bin',
  setfacl: 'acl',
  setfattr: 'attr',
  setpriv: 'util-linux',
  sqfstar: 'squashfs-tools',
  'systemd-nspawn': 'systemd-container',
  unshare: 'util-linux',
  xz: 'xz-utils',
};

/** Returns the path of a program; also in directories that are only in root's PATH. */
export function findProgram(name: string): string | undefined {
  const directories = `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`.split(':');
  return directories.map((directory) => `${directory}/${name}`).find((path) => isExecutable(path));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Returns a value for `skip`: false if all of `needs` exist, else the missing ones and their packages. */
export function missing(...needs: readonly ('root' | (string & {}))[]): string | false {
  const absent = needs.filter((need) => (need === 'root' ? process.getuid?.() !== 0 : !findProgram(need)));
  if (absent.length === 0) return false;
  if (absent.includes('root')) return 'needs root';
  return `needs ${absent.join(', ')}: apt-get install ${absent.map((name) => packageOf[name] ?? name).join(' ')}`;
}
