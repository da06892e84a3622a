import { existsSync, realpathSync } from 'node:fs';
import { printable } from '../errors.ts';
import type { ImageConfig } from '../oci/config.ts';
import {
  configPath,
  attempt,
  type ContainerPlace,
  containerPlaceOf,
  refuseExisting,
  rootInBundle,
  type Runtime,
  startCommand,
  writeConfig,
} from './config-files.ts';
import { ConfinedRoot } from '../rootfs/confined-root.ts';
import { pathInContainer, type Container, containerOf, resolveUser, type RootfsFacts } from './container.ts';
import { lxcConfig } from './lxc.ts';
import type { Report } from '../report/event.ts';
import { nspawnConfig } from './nspawn.ts';
import { prepareRootfs } from './prepare.ts';
import { type IdMappings, runcConfig, type Rootless } from './runc.ts';
import type { RuntimeConfig } from './config-text.ts';

export interface RuntimeRequest {
  /** DIR as typed, the finished rootfs. */
  readonly destination: string;
  readonly image: ImageConfig;
  /** Replace existing configurations. */
  readonly force: boolean;
  /** The caller's ids when that is not root. */
  readonly rootless?: Rootless | undefined;
  /** The caller works on a terminal, and so will the container of runc. */
  readonly terminal?: boolean;
  /** Absolute paths that the container must not see. */
  readonly hidden?: readonly string[];
}

export interface RuntimeResult {
  /** What was written, absolute paths. */
  readonly files: readonly string[];
  /** One command per runtime, in their order: what to type next. */
  readonly next: readonly string[];
  /** Settings of the image that the runtime's configuration cannot have, one line each. */
  readonly notices: readonly string[];
}

/** LXC's own defaults, where distributions have them: capabilities, devices, seccomp, mounts. */
const lxcIncludes = ['/usr/share/lxc/config/common.conf'];

/** The options of a pull that its files for runtimes need. */
export interface RuntimeOptions extends Pick<RuntimeRequest, 'destination' | 'force'> {
  readonly runtimes: readonly Runtime[];
  readonly rootless: boolean;
  readonly terminal: boolean;
  readonly uid: number;
  readonly gid: number;
  readonly idMappings?: IdMappings | undefined;
  readonly git: boolean;
  readonly prepare: boolean;
  readonly report: Report;
}

/**
 * Adds to a rootfs what `--prepare` names, if that was given.
 *
 * @param directory where the rootfs is until it gets its name
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
 * Writes the configurations that `--for` names for a finished rootfs.
 *
 * @throws DestinationError, IntegrityError
 */
export async function writeRuntimeFiles(image: ImageConfig, options: RuntimeOptions): Promise<void> {
  const { report, runtimes, uid, gid, idMappings: ids } = options;
  if (runtimes.length === 0) return;
  const written = await writeRuntimeConfigs(runtimes, {
    ...options,
    image,
    rootless: options.rootless ? { uid, gid, ids } : undefined,
    hidden: options.git ? ['/.git'] : [],
  });
  for (const message of written.notices) report({ type: 'notice', message: printable(message) });
  for (const [index, file] of written.files.entries()) {
    report({ type: 'runtime-config', file, command: written.next[index]! });
  }
}

/**
 * Checks before a pull that the configurations can be written.
 *
 * @throws UsageError where none can be written for the directory; DestinationError where one exists and `force` is not given
 */
export function checkRuntimeConfigs(runtimes: readonly Runtime[], destination: string, force: boolean): void {
  if (runtimes.length === 0) return;
  const place = containerPlaceOf(destination);
  if (!force) refuseExisting(runtimes.map((runtime) => configPath(runtime, place)));
}

/**
 * Writes a configuration for each runtime beside the rootfs, made from the image's config and the rootfs's own passwd and
 * group.
 *
 * @throws what `checkRuntimeConfigs` does, and IntegrityError where the image's user is not in the image
 */
export async function writeRuntimeConfigs(
  runtimes: readonly Runtime[],
  request: RuntimeRequest,
): Promise<RuntimeResult> {
  const place = containerPlaceOf(request.destination);
  const container = attempt(`read ${printable(request.destination)}`, () => inspectRootfs(request, place));
  const files: string[] = [];
  const notices: string[] = [];
  for (const runtime of runtimes) {
    const config = attempt(`read ${printable(request.destination)}`, () =>
      configFor(runtime, container, place, request),
    );
    const file = configPath(runtime, place);
    await writeConfig(file, config.text, request.force);
    files.push(file);
    notices.push(...config.notices);
  }
  return {
    files,
    notices,
    next: runtimes.map((runtime) => startCommand(runtime, place, container.boots, container.hidden)),
  };
}

function configFor(
  runtime: Runtime,
  container: Container,
  place: ContainerPlace,
  { image, rootless, terminal }: RuntimeRequest,
): RuntimeConfig {
  const configs: Readonly<Record<Runtime, () => RuntimeConfig>> = {
    runc: () => runcConfig(container, image, rootInBundle(place), { rootless, terminal }),
    lxc: () => lxcConfig(container, { includes: lxcIncludes.filter((path) => existsSync(path)) }),
    nspawn: () => nspawnConfig(container),
  };
  return configs[runtime]();
}

function inspectRootfs({ image, hidden = [] }: RuntimeRequest, place: ContainerPlace): Container {
  using root = new ConfinedRoot(place.directory);
  const accounts = { passwd: root.readText('etc/passwd') ?? '', group: root.readText('etc/group') ?? '' };
  const user = resolveUser(image.config.User ?? '', accounts);
  const facts = factsOf(root, image.config.Volumes ?? []);
  const named = { name: place.name, rootfs: realpathSync(place.directory), hidden };
  return containerOf(image.config, user, facts, named);
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
