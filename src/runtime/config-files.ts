import { lstatSync } from 'node:fs';
import path from 'node:path';
import { ANOTHER_DIRECTORY, DestinationError, printable, UsageError } from '../errors.ts';
import { writeFileAtomically } from '../sys/temp-file.ts';
import { absolutePath, shellWord } from '../sys/os-path.ts';
import { type EntryPlace, OpenDirectory } from '../sys/open-directory.ts';
import { explainOsError, hasCode } from '../sys/os-error.ts';
import { isOneLine } from './config-text.ts';

/** Container engines for which dlrootfs writes a configuration. */
export const runtimes = ['runc', 'lxc', 'nspawn'] as const;
export type Runtime = (typeof runtimes)[number];

/** Virtual machines for which dlrootfs writes a file that starts a disk image. */
export const virtualMachines = ['qemu'] as const;
export type VirtualMachine = (typeof virtualMachines)[number];

/** A rootfs and its parent directory. */
export interface ContainerPlace {
  /** DIR as typed, made absolute; may be a symlink. */
  readonly directory: string;
  /** The directory of its configurations. */
  readonly parent: string;
  /** See `containerName`. */
  readonly name: string;
}

/**
 * Returns the place of a rootfs.
 *
 * @throws UsageError if the directory has no parent, or its path cannot be written in a configuration
 */
export function containerPlaceOf(destination: string): ContainerPlace {
  const directory = absolutePath(destination);
  const parent = path.dirname(directory);
  if (directory === parent) {
    throw new UsageError('--for cannot write a file beside the rootfs /', {
      hint: 'use -d DIR',
    });
  }
  if (!isOneLine(directory)) {
    throw new UsageError(
      '--for cannot write configurations for a directory with control characters in its path',
      { hint: ANOTHER_DIRECTORY },
    );
  }
  if (!directory.isWellFormed()) {
    throw new UsageError('--for cannot write configurations for a directory whose path is not UTF-8', {
      hint: ANOTHER_DIRECTORY,
    });
  }
  return { directory, parent, name: containerName(directory) };
}

/**
 * Returns a hostname for a container: the directory's name, or its parent's if that is `rootfs`, as LXC names
 * directories.
 */
export function containerName(directory: string): string {
  const base = path.basename(directory);
  const name = base === 'rootfs' ? path.basename(path.dirname(directory)) : base;
  const clean = name.replaceAll(/[^A-Za-z0-9.-]+/g, '-').replaceAll(/^[.-]+|[.-]+$/g, '');
  return clean.slice(0, 63) || 'dlrootfs';
}

/**
 * Returns the file of a configuration in the parent directory: `config.json`, as runc requires; for LXC
 * `config` beside a directory `rootfs`; else NAME.lxc and NAME.nspawn beside NAME, so that several can be in
 * one directory.
 */
export function configPath(runtime: Runtime, { parent, directory }: ContainerPlace): string {
  const names: Readonly<Record<Runtime, string>> = {
    runc: 'config.json',
    lxc: path.basename(directory) === 'rootfs' ? 'config' : `${machineName(directory)}.lxc`,
    nspawn: `${machineName(directory)}.nspawn`,
  };
  return path.join(parent, names[runtime]);
}

/**
 * Returns the machine's name, which systemd-nspawn derives from the directory's without characters that no
 * hostname has.
 */
function machineName(directory: string): string {
  return path.basename(directory).replaceAll(/[^A-Za-z0-9_.-]/g, '') || 'rootfs';
}

/**
 * Opens the parent directory of something that this run has made; its name may be a symlink to it.
 *
 * @param identity of what was made: see `OpenDirectory.identity`
 * @throws DestinationError if another process has replaced it, or the directory
 */
export function openBeside(made: string, identity: string): EntryPlace {
  const place = OpenDirectory.openParent(made, { followLast: false });
  if (place.directory.identityBehind(place.name) === identity) return place;
  place.directory.close();
  throw replacedByAnother(made);
}

export function replacedByAnother(made: string): DestinationError {
  return new DestinationError(`${printable(made)} was complete, and then replaced by another process`, {
    code: 'SWAPPED',
    hint: `see who else writes there, or ${ANOTHER_DIRECTORY}`,
  });
}

/** Facts that the command which starts a container depends on, besides its place. */
export interface StartConditions {
  readonly boots: boolean;
  readonly hidden?: readonly string[];
  /** True if LXC starts it in a user namespace, for a user other than root. */
  readonly inNamespace?: boolean;
  /**
   * True if runc starts it for a user other than root without XDG_RUNTIME_DIR, as after `su -`: its state is
   * beside the rootfs then.
   */
  readonly needsState?: boolean;
  /** True if systemd does not run here (sd_booted(3)): then systemd-nspawn finds no bus to register with. */
  readonly withoutSystemd?: boolean;
}

/** Returns the command that starts the container. */
export function startCommand(runtime: Runtime, place: ContainerPlace, conditions: StartConditions): string {
  return START[runtime](place, conditions);
}

const START: Readonly<Record<Runtime, (place: ContainerPlace, conditions: StartConditions) => string>> = {
  runc: ({ parent, name }, { needsState = false }) => {
    const state = needsState ? ` --root ${shellWord(path.join(parent, '.runc'))}` : '';
    return `runc${state} run -b ${shellWord(parent)} ${name}`;
  },
  lxc: (place, { boots, inNamespace = false }) => {
    const { directory, parent, name } = place;
    const start = boots ? 'lxc-start' : 'lxc-execute';
    // A user's directory of containers may not exist yet, and LXC fails without one.
    const containers = inNamespace ? path.dirname(parent) : '/var/lib/lxc';
    const isKnown = directory === path.join(containers, name, 'rootfs');
    const from = inNamespace ? ` -P ${shellWord(isKnown ? containers : parent)}` : '';
    const file = isKnown ? '' : ` -f ${shellWord(configPath('lxc', place))}`;
    return `${start}${from} -n ${name}${file}`;
  },
  nspawn: ({ directory, parent }, { hidden = [], withoutSystemd = false }) => {
    const known = parent === '/var/lib/machines';
    const machine = known ? `-M ${machineName(directory)}` : `-D ${shellWord(directory)}`;
    // systemd.nspawn(5): a file beside the machine is not trusted with Inaccessible=.
    const inaccessible = hidden.map((inside) => `--inaccessible=${shellWord(inside)}`);
    const alone = withoutSystemd ? ['--register=no', '--keep-unit'] : [];
    return ['systemd-nspawn', ...alone, ...inaccessible, machine].join(' ');
  },
};

const OWN_DIRECTORY =
  'give each container a directory of its own, as in -d NAME/rootfs, or replace it with --force';

/**
 * Returns the result of `work`.
 *
 * @param action verb and object, for messages: `prepare rootfs`
 * @throws DestinationError for a system error of its file calls; any other error unchanged
 */
export function attempt<T>(action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw explainOsError(error, action, ANOTHER_DIRECTORY);
  }
}

/**
 * Checks before a pull that no configuration exists already.
 *
 * @param other the hint if one exists
 * @throws DestinationError
 */
export function refuseExisting(files: readonly string[], other = OWN_DIRECTORY): void {
  const found = files.filter((file) =>
    attempt(`write ${printable(file)}`, () => lstatSync(file, { throwIfNoEntry: false }) !== undefined),
  );
  if (found.length > 0) throw existing(found, other);
}

function existing(files: readonly string[], hint: string): DestinationError {
  const names = files.map((file) => printable(file)).join(' and ');
  return new DestinationError(`cannot write ${names}: a file of that name exists already`, {
    code: 'FILE_EXISTS',
    hint,
  });
}

/**
 * Writes a configuration, whole or not at all. An existing file or symlink is replaced only with `force`.
 *
 * @throws DestinationError
 */
export async function writeConfig(
  place: EntryPlace,
  text: string,
  force: boolean,
  { mode = 0o644, other = OWN_DIRECTORY }: { readonly mode?: number; readonly other?: string } = {},
): Promise<void> {
  try {
    await writeFileAtomically(place, text, { mode, replace: force });
  } catch (error) {
    const file = place.directory.shown(place.name);
    if (hasCode(error, 'EEXIST')) throw existing([file], other);
    throw explainOsError(error, `write ${printable(file)}`, `the rootfs is complete: ${ANOTHER_DIRECTORY}`);
  }
}
