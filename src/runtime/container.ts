import { constants } from 'node:os';
import { IntegrityError, printable } from '../errors.ts';
import type { ContainerConfig } from '../oci/config.ts';
import { parseGroup, parseId, parsePasswd } from '../sys/passwd.ts';

/** Facts that the rootfs itself shows. */
export interface RootfsFacts {
  /** /bin/sh exists. */
  readonly shell: boolean;
  /** /sbin/init exists. */
  readonly init: boolean;
  /** getent exists; systemd-nspawn finds users with it. */
  readonly getent: boolean;
  /** /usr exists; systemd-nspawn requires it. */
  readonly usr: boolean;
  /** os-release exists; systemd-nspawn requires it to boot. */
  readonly osRelease: boolean;
  /** Owner and mode of the existing directories that the image declares as volumes, by path. */
  readonly volumes: ReadonlyMap<
    string,
    { readonly uid: number; readonly gid: number; readonly mode: number }
  >;
}

/** A container of the image, for any runtime. */
export interface Container {
  /** Hostname of the container, and the runtime's name for it: letters, digits, hyphens and dots. */
  readonly name: string;
  /** The rootfs, absolute, with no symlink in it. */
  readonly rootfs: string;
  /** Command line, never empty; its first word may have to be looked up in PATH. */
  readonly args: readonly string[];
  /** True if the command is an init: a system boots. */
  readonly boots: boolean;
  readonly environment: ReadonlyMap<string, string>;
  readonly user: ContainerUser;
  /** Absolute. */
  readonly workingDirectory: string;
  /** `SIGTERM`; undefined if the image names none. */
  readonly stopSignal: string | undefined;
  readonly volumes: readonly string[];
  readonly ports: readonly string[];
  /** Absolute paths that the container must not see: the repository of -g. */
  readonly hidden: readonly string[];
  readonly facts: RootfsFacts;
}

/** PATH of Docker and containerd for an image that sets none. */
const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Makes a container of the image's config: entrypoint followed by command (conversion.md); without both
 * /sbin/init, or a shell if no init exists. HOME and PATH are set if the image does not set them, as Docker
 * does.
 */
export function containerOf(
  config: ContainerConfig,
  user: ContainerUser,
  facts: RootfsFacts,
  place: Pick<Container, 'name' | 'rootfs' | 'hidden'>,
): Container {
  const said = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  const args = said.length > 0 ? said : [facts.init ? '/sbin/init' : '/bin/sh'];
  return {
    ...place,
    args,
    boots: isInit(args[0]!),
    environment: environmentOf(config.Env ?? [], user),
    user,
    workingDirectory: pathInContainer(config.WorkingDir ?? '/'),
    stopSignal: signalName(config.StopSignal),
    volumes: (config.Volumes ?? []).map((path) => pathInContainer(path)).filter((path) => path !== '/'),
    ports: config.ExposedPorts ?? [],
    facts,
  };
}

/** True for the programs that systemd-nspawn looks for when it boots, and LXC's default. */
function isInit(program: string): boolean {
  return /^(init|(\/usr)?\/sbin\/init|(\/usr)?\/lib\/systemd\/systemd)$/.test(program);
}

function environmentOf(entries: readonly string[], user: ContainerUser): Map<string, string> {
  const environment = new Map([
    ['PATH', defaultPath],
    ['HOME', user.home],
  ]);
  for (const entry of entries) {
    const equals = entry.indexOf('=');
    // Nothing else can be in an environment (environ(7)).
    if (equals > 0 && !entry.includes('\0')) environment.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  return environment;
}

/** Returns a path of the image's config with the slash that may be missing. */
export function pathInContainer(path: string): string {
  const clean = path.replaceAll('\0', '');
  return clean.startsWith('/') ? clean : `/${clean}`;
}

/**
 * Returns the name of a signal given as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3` (image specification,
 * StopSignal); undefined for anything else.
 */
export function signalName(text: string | undefined): string | undefined {
  const name = (text ?? '').toUpperCase();
  const known = Object.entries(constants.signals);
  if (/^\d+$/.test(name)) return known.find(([, number]) => number === Number(name))?.[0];
  const full = name.startsWith('SIG') ? name : `SIG${name}`;
  const isRealTime = /^SIGRTM(?:IN\+|AX-)\d{1,2}$|^SIGRTM(?:IN|AX)$/.test(full);
  return isRealTime || known.some(([each]) => each === full) ? full : undefined;
}

/** User and groups of a container's process, as numbers. */
export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, ascending. */
  readonly groups: readonly number[];
  /** The name in the image's passwd, if it has one. */
  readonly name?: string | undefined;
  readonly home: string;
}

/** The texts of the image's /etc/passwd and /etc/group; empty if missing. */
export interface Accounts {
  readonly passwd: string;
  readonly group: string;
}

/**
 * Resolves `Config.User` (`user`, `uid`, `user:group`, `uid:gid`, and mixed; empty is root) as Docker and the
 * image specification's conversion.md do. Names are looked up in the image. A number is an id; if passwd has
 * it, that entry gives group and home. Supplementary groups are those that list the user's name, none if a
 * group is named.
 *
 * @throws IntegrityError for a name that the image does not have
 */
export function resolveUser(text: string, accounts: Accounts): ContainerUser {
  const colon = text.indexOf(':');
  const userText = (colon < 0 ? text : text.slice(0, colon)) || '0';
  const groupText = colon < 0 ? '' : text.slice(colon + 1);
  const uid = parseId(userText);
  const users = parsePasswd(accounts.passwd);
  const entry = users.find((each) => each.name === userText) ?? users.find((each) => each.uid === uid);
  if (!entry && uid === undefined) throw unknown('user', userText, '/etc/passwd');
  const groups = parseGroup(accounts.group);
  const who = { uid: entry?.uid ?? uid ?? 0, name: entry?.name, home: entry?.home || '/' };
  if (groupText === '') {
    const member = groups
      .filter((group) => entry && group.members.includes(entry.name))
      .map(({ gid }) => gid);
    const supplementary = [...new Set(member)].toSorted((a, b) => a - b);
    return { ...who, gid: entry?.gid ?? 0, groups: supplementary };
  }
  const gid = groups.find((group) => group.name === groupText)?.gid ?? parseId(groupText);
  if (gid === undefined) throw unknown('group', groupText, '/etc/group');
  return { ...who, gid, groups: [] };
}

function unknown(what: string, name: string, file: string): IntegrityError {
  return new IntegrityError(`the image runs as ${what} ${printable(name)}, which its ${file} does not have`, {
    code: 'UNKNOWN_USER',
    hint: `the rootfs is complete: leave --for out and write the runtime's configuration by hand`,
  });
}
