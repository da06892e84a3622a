import type { ImageConfig } from '../oci/config.ts';
import type { RuntimeConfig } from './config-text.ts';
import type { IDMapping } from '../sys/privileges.ts';
import type { Container } from './container.ts';

/** The caller's ids, for a container that runs without root (`runc spec --rootless`). */
export interface Rootless {
  readonly uid: number;
  readonly gid: number;
  /**
   * The user namespace in which the rootfs got its owners; default: one with root alone, who is the caller.
   */
  readonly ids?: IDMappings | undefined;
}

export interface IDMappings {
  readonly uids: readonly IDMapping[];
  readonly gids: readonly IDMapping[];
}

/**
 * Makes the `config.json` of an OCI runtime bundle: the image's config by the image specification's
 * conversion.md, the rest as `runc spec` and containerd choose it.
 *
 * @param root the rootfs as seen from the bundle
 * @param options.terminal true if the command gets a terminal
 */
export function runcConfig(
  container: Container,
  image: ImageConfig,
  root: string,
  {
    rootless,
    terminal = false,
  }: { readonly rootless?: Rootless | undefined; readonly terminal?: boolean } = {},
): RuntimeConfig {
  const isRootless = rootless !== undefined;
  const { user, notices } = processUser(container, rootless);
  const document = {
    ociVersion: '1.0.2',
    process: {
      terminal,
      user,
      args: container.args,
      env: [...container.environment].map(([name, value]) => `${name}=${value}`),
      cwd: container.workingDirectory,
      capabilities: capabilitySets(user.uid),
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: false,
    },
    root: { path: root, readonly: false },
    hostname: container.name,
    mounts: [...systemMounts(isRootless), ...volumeMounts(container, isRootless)],
    annotations: annotations(image, notices),
    linux: {
      ...(rootless ? mappingsFor(rootless) : { resources: { devices: [{ allow: false, access: 'rwm' }] } }),
      namespaces: namespaces(isRootless).map((type) => ({ type })),
      maskedPaths: [...maskedPaths, ...container.hidden],
      readonlyPaths,
    },
  };
  if (terminal) {
    notices.push(
      'the container gets a terminal, as this command has; for a pipe, set "terminal" to false in config.json',
    );
  }
  if (container.volumes.length > 0) {
    notices.push(`with runc, the image's volumes are in memory: ${container.volumes.join(' ')}`);
  }
  return { text: `${JSON.stringify(document, undefined, 2)}\n`, notices };
}

/** The user of a process, in the words of the runtime specification. */
interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids?: readonly number[];
}

/** Returns the user that the container's process gets, with notices if it is not quite the image's. */
function processUser(
  { user }: Container,
  rootless: Rootless | undefined,
): { readonly user: ProcessUser; readonly notices: string[] } {
  // A user namespace with one id has only root.
  const isAlone = rootless !== undefined && rootless.ids === undefined;
  const { uid, gid } = isAlone ? { uid: 0, gid: 0 } : user;
  // runc refuses additional groups in a container that it starts without root.
  const additionalGids = rootless ? [] : user.groups;
  const notices: string[] = [];
  if (isAlone && (user.uid !== 0 || user.gid !== 0))
    notices.push(`without root, runc runs the container as its root, not as ${user.uid}:${user.gid}`);
  else if (additionalGids.length < user.groups.length)
    notices.push(
      `without root, runc gives the user no further groups: ${user.groups.join(', ')} are left out`,
    );
  return { user: { uid, gid, ...(additionalGids.length > 0 && { additionalGids }) }, notices };
}

/**
 * Returns the capabilities: root has them all; another user gets only those of a program's file capabilities
 * or setuid bit, as with Docker.
 */
function capabilitySets(uid: number): Record<string, readonly string[]> {
  return uid === 0
    ? { bounding: DEFAULT_CAPABILITIES, effective: DEFAULT_CAPABILITIES, permitted: DEFAULT_CAPABILITIES }
    : { bounding: DEFAULT_CAPABILITIES };
}

function mappingsFor({ uid, gid, ids }: Rootless): Record<string, unknown> {
  return {
    uidMappings: ids?.uids ?? [{ containerID: 0, hostID: uid, size: 1 }],
    gidMappings: ids?.gids ?? [{ containerID: 0, hostID: gid, size: 1 }],
  };
}

/**
 * Returns the namespaces. Without root a network namespace has no device, so the container shares the host's
 * network.
 */
function namespaces(rootless: boolean): string[] {
  return ['pid', 'ipc', 'uts', 'mount', 'cgroup', ...(rootless ? ['user'] : ['network'])];
}

interface RuncMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options?: readonly string[];
}

function systemMounts(rootless: boolean): RuncMount[] {
  const closed = ['nosuid', 'noexec', 'nodev'];
  const terminals = ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'];
  const dev = ['nosuid', 'strictatime', 'mode=755', 'size=65536k'];
  const shm = [...closed, 'mode=1777', 'size=65536k'];
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: closed },
    { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: dev },
    // Group 5 is tty, which a namespace of one id does not have.
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: rootless ? terminals : [...terminals, 'gid=5'],
    },
    { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: shm },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: closed },
    rootless
      ? { destination: '/sys', type: 'none', source: '/sys', options: ['rbind', ...closed, 'ro'] }
      : { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...closed, 'ro'] },
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: [...closed, 'relatime', 'ro'],
    },
  ];
}

/**
 * Mounts a tmpfs on each volume, so that its data is not written to the rootfs (conversion.md). Files of the
 * image there are copied into it.
 */
function volumeMounts({ volumes, facts }: Container, rootless: boolean): RuncMount[] {
  return volumes.map((destination) => {
    const directory = facts.volumes.get(destination);
    const mode = directory ? [`mode=${directory.mode.toString(8).padStart(4, '0')}`] : [];
    // A namespace of one id has no id for the owner.
    const owner = directory && !rootless ? [`uid=${directory.uid}`, `gid=${directory.gid}`] : [];
    const options = ['nosuid', 'nodev', 'tmpcopyup', ...mode, ...owner];
    return { destination, type: 'tmpfs', source: 'tmpfs', options };
  });
}

/** Labels that runtimes act on: an image must not start hooks or configure the host's units. */
const unsafeLabel =
  /^(run\.oci\.|org\.systemd\.|org\.criu\.|io\.kubernetes\.|io\.katacontainers\.|module\.wasm\.)/;

/**
 * Returns the annotations (conversion.md, "Annotation Fields"): labels override those made from the config.
 */
function annotations(image: ImageConfig, notices: string[]): Record<string, string> {
  const { platform, config } = image;
  const made: Record<string, string | undefined> = {
    os: platform.os,
    architecture: platform.architecture,
    variant: platform.variant,
    'os.version': platform.osVersion,
    author: image.author,
    created: image.created,
    stopSignal: config.StopSignal,
    exposedPorts: config.ExposedPorts?.join(','),
  };
  const all = new Map<string, string>();
  for (const [key, value] of Object.entries(made)) {
    if (value !== undefined && value !== '') all.set(`org.opencontainers.image.${key}`, value);
  }
  const labels = Object.entries(config.Labels ?? {}).filter(([key]) => key !== '');
  for (const [key, value] of labels) if (!unsafeLabel.test(key)) all.set(key, value);
  const left = labels.filter(([key]) => unsafeLabel.test(key)).length;
  if (left > 0) notices.push(`${left} labels of the image were left out: the runtime would obey them`);
  return Object.fromEntries(all);
}

/**
 * The capabilities of Docker, and of containerd up to version 1, which images are made for: `ping` needs one
 * of them.
 */
const DEFAULT_CAPABILITIES: readonly string[] = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
];

/** Paths that `runc spec` and containerd hide. */
const maskedPaths: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
];

/** Paths that `runc spec` and containerd make read-only. */
const readonlyPaths: readonly string[] = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];
