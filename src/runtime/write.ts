import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { printable } from '../errors.ts';
import type { ImageConfig } from '../oci/config.ts';
import {
  configPath,
  attempt,
  type ContainerPlace,
  containerPlaceOf,
  openBeside,
  refuseExisting,
  replacedByAnother,
  type Runtime,
  startCommand,
  writeConfig,
} from './config-files.ts';
import { ConfinedRoot } from '../rootfs/confined-root.ts';
import { pathInContainer, type Container, containerOf, resolveUser, type RootfsFacts } from './container.ts';
import { lxcConfig } from './lxc.ts';
import type { Report } from '../report/event.ts';
import { nspawnConfig } from './nspawn.ts';
import { OpenDirectory } from '../sys/open-directory.ts';
import { prepareRootfs } from './prepare.ts';
import { type IDMappings, runcConfig } from './runc.ts';
import type { Environment } from '../sys/os-path.ts';
import type { RuntimeConfig } from './config-text.ts';

/** LXC's defaults in distributions: capabilities, devices, seccomp, mounts. */
const lxcIncludes = ['/usr/share/lxc/config/common.conf'];
/** With LXC's changes for a container in a user namespace. */
const lxcNamespaceIncludes = [...lxcIncludes, '/usr/share/lxc/config/userns.conf'];

/** The options of a pull that the files for runtimes depend on. */
export interface RuntimeOptions {
  /** DIR as typed. */
  readonly destination: string;
  readonly runtimes: readonly Runtime[];
  /** Replace existing configurations. */
  readonly force: boolean;
  /** With runc: a container without root, for the caller with these ids. */
  readonly rootless: boolean;
  readonly uid: number;
  readonly gid: number;
  readonly idMappings?: IDMappings | undefined;
  /** True if the caller has a terminal; the container of runc gets one then. */
  readonly terminal: boolean;
  /** True if the rootfs holds a repository, which the container must not see. */
  readonly git: boolean;
  readonly prepare: boolean;
  readonly environment: Environment;
  readonly report: Report;
}

/**
 * Adds the files and directories of `--prepare` to a rootfs, if that was given.
 *
 * @param directory the rootfs, before it gets its name
 * @throws DestinationError
 */
export function prepareFiles(options: RuntimeOptions, directory?: string): void {
  const { destination, report, git, prepare } = options;
  if (!prepare) return;
  const made = prepareRootfs(destination, directory);
  const inGit = git ? ': no layer has them, so git shows files among them as changes of yours' : '';
  if (made.length > 0) report({ type: 'notice', message: `prepared ${printable(made.join(', '))}${inGit}` });
}

/**
 * Checks before a pull that the configurations can be written.
 *
 * @throws UsageError if none can be written for the directory; DestinationError if one exists and `force` is
 * not given
 */
export function checkRuntimeConfigs(runtimes: readonly Runtime[], destination: string, force: boolean): void {
  if (runtimes.length === 0) return;
  const place = containerPlaceOf(destination);
  if (!force) refuseExisting(runtimes.map((runtime) => configPath(runtime, place)));
}

/**
 * Writes the configuration of each runtime of `--for` beside the finished rootfs, from the image's config and
 * the rootfs's own passwd and group. Reports the settings that a configuration cannot hold, then the files
 * and the commands that start them.
 *
 * @param identity of the finished rootfs (see `OpenDirectory.identity`), so that no other directory is used
 * @throws as `checkRuntimeConfigs`, and IntegrityError if the image does not have its user
 */
export async function writeRuntimeConfigs(
  image: ImageConfig,
  options: RuntimeOptions,
  identity: string,
): Promise<void> {
  const { runtimes, destination, force, report } = options;
  if (runtimes.length === 0) return;
  const place = containerPlaceOf(destination);
  const inNamespace = options.idMappings !== undefined;
  const isRoot = options.uid === 0 && !inNamespace;
  const withoutSystemd = !existsSync('/run/systemd/system');
  const needsState = !isRoot && options.environment['XDG_RUNTIME_DIR'] === undefined;
  const { directory, name } = attempt(`read ${printable(destination)}`, () =>
    openBeside(destination, identity),
  );
  using _ = directory;
  const written = attempt(`read ${printable(destination)}`, () => {
    using root = openFinished(destination, identity);
    const bundled = directory.stat(name)?.isSymbolicLink() === true ? root.currentPath : name;
    const container = inspectRootfs(root, image, place, options);
    return runtimes.map((runtime) => ({
      ...configFor(runtime, container, bundled, image, options),
      file: configPath(runtime, place),
      command: startCommand(runtime, place, { ...container, inNamespace, needsState, withoutSystemd }),
    }));
  });
  for (const { file, text } of written) await writeConfig({ directory, name: basename(file) }, text, force);
  for (const { notices } of written)
    for (const message of notices) report({ type: 'notice', message: printable(message) });
  const ofRoot = runtimes.filter((runtime) => runtime !== 'runc');
  if (!isRoot && !inNamespace && ofRoot.length > 0)
    report({ type: 'notice', message: `only root can start the container with ${ofRoot.join(' or ')}` });
  if (inNamespace && runtimes.includes('nspawn'))
    report({
      type: 'notice',
      message: 'systemd-nspawn has no user namespace with these ids: pull as root for it',
    });
  for (const { file, command } of written) report({ type: 'runtime-config', file, command });
}

function configFor(
  runtime: Runtime,
  container: Container,
  root: string,
  image: ImageConfig,
  { rootless, uid, gid, idMappings: ids, terminal }: RuntimeOptions,
): RuntimeConfig {
  if (runtime === 'lxc') {
    const includes = ids ? lxcNamespaceIncludes : lxcIncludes;
    return lxcConfig(container, { includes: includes.filter((path) => existsSync(path)), ids });
  }
  if (runtime === 'nspawn') return nspawnConfig(container);
  const owner = rootless ? { uid, gid, ids } : undefined;
  return runcConfig(container, image, root, { rootless: owner, terminal });
}

/**
 * Opens the finished rootfs.
 *
 * @throws DestinationError for another directory
 */
function openFinished(destination: string, identity: string): OpenDirectory {
  const root = OpenDirectory.open(destination);
  if (root.identity === identity) return root;
  root.close();
  throw replacedByAnother(destination);
}

function inspectRootfs(
  directory: OpenDirectory,
  { config }: ImageConfig,
  place: ContainerPlace,
  { git }: RuntimeOptions,
): Container {
  using root = new ConfinedRoot(directory.self);
  const accounts = { passwd: root.readText('etc/passwd') ?? '', group: root.readText('etc/group') ?? '' };
  const user = resolveUser(config.User ?? '', accounts);
  const facts = factsOf(root, config.Volumes ?? []);
  const named = { name: place.name, rootfs: directory.currentPath, hidden: git ? ['/.git'] : [] };
  return containerOf(config, user, facts, named);
}

function factsOf(root: ConfinedRoot, volumes: readonly string[]): RootfsFacts {
  const has = (path: string) => root.stat(path)?.type === 'file';
  const directories = volumes.flatMap((path) => {
    const stat = root.stat(path);
    return stat?.type === 'directory'
      ? [[pathInContainer(path), { uid: stat.uid, gid: stat.gid, mode: stat.mode }] as const]
      : [];
  });
  return {
    shell: has('bin/sh'),
    init: has('sbin/init'),
    getent: has('usr/bin/getent') || has('bin/getent'),
    usr: root.stat('usr') !== undefined,
    osRelease: has('etc/os-release') || has('usr/lib/os-release'),
    volumes: new Map(directories),
  };
}
