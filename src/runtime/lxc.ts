import type { IDMapping } from '../sys/privileges.ts';
import type { Container } from './container.ts';
import { commented, isOneLine, configLines, type RuntimeConfig } from './config-text.ts';
import type { IDMappings } from './runc.ts';

/**
 * The host's LXC configurations to include, as paths of existing files; and the user namespace of the
 * rootfs's owners.
 */
export interface LxcHost {
  readonly includes: readonly string[];
  readonly ids?: IDMappings | undefined;
}

/**
 * Makes the `config` of an LXC container (lxc.container.conf(5), LXC 3 and later): one `key = value` per
 * line. Values from the image are quoted; LXC removes the outermost pair of quotes. A line break has no
 * notation, so a shell in the container builds words with one.
 */
export function lxcConfig(container: Container, host: LxcHost): RuntimeConfig {
  const { user, boots, facts } = container;
  const { variables, command, notices: lost } = configLines(container, 'LXC', facts.shell, quoted);
  const notices = [...lost];
  if (command === undefined)
    notices.push('LXC cannot express the command of the image, and the image has no shell: set lxc.init.cmd');
  // LXC omits them silently.
  const groups = host.ids ? [] : user.groups;
  if (groups.length < user.groups.length)
    notices.push(
      `without root, LXC gives the user no further groups: ${user.groups.join(', ')} are left out`,
    );
  const signal = boots ? undefined : (container.stopSignal ?? 'SIGTERM');
  const lines = [
    '# LXC 3 or later. Made from the image; edit it as you like.',
    ...host.includes.map((path) => setting('lxc.include', path)),
    // The settings of the missing file.
    ...(host.includes.length > 0
      ? []
      : ['lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed', 'lxc.pty.max = 1024']),
    '',
    setting('lxc.rootfs.path', `dir:${container.rootfs}`),
    setting('lxc.uts.name', container.name),
    '',
    ...(command === undefined ? [] : [setting('lxc.init.cmd', command), setting('lxc.execute.cmd', command)]),
    ...(isOneLine(container.workingDirectory) ? [setting('lxc.init.cwd', container.workingDirectory)] : []),
    ...(user.uid === 0 && user.gid === 0 ? [] : [`lxc.init.uid = ${user.uid}`, `lxc.init.gid = ${user.gid}`]),
    ...(groups.length > 0 ? [`lxc.init.groups = ${groups.join(',')}`] : []),
    ...variables.map(([name, value]) => setting('lxc.environment', `${name}=${value}`)),
    ...(signal === undefined
      ? []
      : [`# lxc-stop sends this, and kills what is left after a minute.`, `lxc.signal.halt = ${signal}`]),
    '',
    '# A network of its own with nothing but loopback. On the bridge of lxc-net it is instead:',
    '#lxc.net.0.type = veth',
    '#lxc.net.0.link = lxcbr0',
    '#lxc.net.0.flags = up',
    'lxc.net.0.type = empty',
    '',
    ...idLines(host.ids),
    ...container.hidden.flatMap((path) => [
      `# What the container writes to ${commented(path)} would be read on the host.`,
      `lxc.mount.entry = none ${mountTarget(path)} tmpfs ro,nosuid,nodev,noexec,size=4k,mode=000,optional 0 0`,
    ]),
    ...container.ports.map((port) => `# The image exposes the port ${commented(port)}.`),
    ...container.volumes.flatMap((path) => [
      `# The image has a volume at ${commented(path)}: its data is in the rootfs. Kept elsewhere it is`,
      `#lxc.mount.entry = /PATH/ON/HOST ${commented(mountTarget(path))} none bind,create=dir 0 0`,
    ]),
  ];
  if (!isOneLine(container.workingDirectory))
    notices.push('LXC cannot express the working directory of the image: it has a line break');
  return { text: `${lines.join('\n')}\n`, notices };
}

/**
 * Returns the lines with the ids of the container, which are the owners in the rootfs. LXC maps them by
 * newuidmap(1), without root.
 */
function idLines(ids: IDMappings | undefined): string[] {
  if (ids === undefined)
    return [
      '# In a user namespace: the ids of /etc/subuid and /etc/subgid. The rootfs has to be owned by them.',
      '#lxc.include = /usr/share/lxc/config/userns.conf',
      '#lxc.idmap = u 0 100000 65536',
      '#lxc.idmap = g 0 100000 65536',
    ];
  return [
    '# The user namespace in which the rootfs got its owners (--userns): root is the user who made it.',
    ...ids.uids.map((range) => idmap('u', range)),
    ...ids.gids.map((range) => idmap('g', range)),
  ];
}

function idmap(kind: 'u' | 'g', { containerID, hostID, size }: IDMapping): string {
  return `lxc.idmap = ${kind} ${containerID} ${hostID} ${size}`;
}

function setting(key: string, value: string): string {
  return `${key} = "${value}"`;
}

/**
 * Quotes a word for LXC, which splits a command at blanks, with words in either kind of quotes and no
 * escapes.
 */
function quoted(word: string): string | undefined {
  if (/^[^\s"'][^\s]*$/.test(word)) return word;
  if (!word.includes("'")) return `'${word}'`;
  return word.includes('"') ? undefined : `"${word}"`;
}

/** Returns the path as in fstab(5), with blanks in octal, and relative to the rootfs, as LXC requires. */
function mountTarget(path: string): string {
  return path
    .slice(1)
    .replaceAll(/[ \t\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
}
