import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { configOf, type ImageConfig } from '../../src/oci/config.ts';
import type { PullEvent } from '../../src/report/event.ts';
import type { Runtime } from '../../src/runtime/config-files.ts';
import { type RuntimeOptions, writeRuntimeConfigs } from '../../src/runtime/write.ts';
import { OpenDirectory } from '../../src/sys/open-directory.ts';
import { Scratch } from './program.ts';
import { probeScript } from './rootfs-trees.ts';

/** The program that tests need for each runtime. */
export const runtimeProgram: Readonly<Record<Runtime, string>> = {
  runc: 'runc',
  lxc: 'lxc-execute',
  nspawn: 'systemd-nspawn',
};

export interface Started {
  readonly status: number | null;
  readonly output: string;
}

/**
 * Runs a start command that dlrootfs printed. Neither machined nor units of systemd exist without a system
 * bus.
 */
export function startContainer(command: string): Started {
  const here = '--quiet --pipe --register=no --keep-unit';
  const line = command.replace('systemd-nspawn', `systemd-nspawn ${here}`);
  // systemd makes this directory when the host boots; this host may have another init.
  if (command.includes('--inaccessible')) mkdirSync('/run/systemd/inaccessible/dir', { recursive: true });
  for (let tries = 0; ; tries += 1) {
    const { status, stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8', timeout: 120_000 });
    // A machine with the same name, of another test, is starting or ending: nspawn allows only one.
    if (tries === 50 || !/unix-export|already exists/.test(stderr))
      return { status, output: stdout + stderr };
    spawnSync('sleep', ['0.2']);
  }
}

/** Writes the configurations of runtimes beside a rootfs: their files, and the commands that start them. */
export async function configure(
  runtimes: readonly Runtime[],
  destination: string,
  image: ImageConfig,
  options: Partial<RuntimeOptions> = {},
): Promise<{ readonly files: readonly string[]; readonly next: readonly string[] }> {
  const events: PullEvent[] = [];
  const request: RuntimeOptions = {
    destination,
    runtimes,
    force: false,
    rootless: false,
    uid: 0,
    gid: 0,
    terminal: false,
    git: false,
    prepare: false,
    environment: {},
    report: (event) => events.push(event),
    ...options,
  };
  using rootfs = OpenDirectory.open(destination);
  await writeRuntimeConfigs(image, request, rootfs.identity);
  const written = events.filter((event) => event.type === 'runtime-config');
  return { files: written.map(({ file }) => file), next: written.map(({ command }) => command) };
}

/** Writes the configuration for an image's config beside a rootfs, and starts the container. */
export async function configureAndStart(
  runtime: Runtime,
  rootfs: string,
  config: object,
  git = false,
): Promise<Started> {
  const image = configOf({ os: 'linux', architecture: 'amd64', config });
  const { next } = await configure([runtime], rootfs, image, { force: true, git });
  return startContainer(next[0] ?? 'false');
}

export interface Machine extends Disposable {
  readonly rootfs: string;
  /** True if the rootfs has a repository. */
  start(git?: boolean): Promise<Started>;
}

/** Makes a rootfs with the probe in it, for one runtime. */
export function machine(runtime: Runtime, config: object, fill: (rootfs: string) => void): Machine {
  const scratch = new Scratch();
  chmodSync(scratch.path, 0o755);
  const rootfs = scratch.join('box', 'rootfs');
  mkdirSync(rootfs, { recursive: true });
  fill(rootfs);
  writeFileSync(`${rootfs}/probe`, probeScript, { mode: 0o755 });
  return {
    rootfs,
    start: (git) => configureAndStart(runtime, rootfs, config, git),
    [Symbol.dispose]: () => scratch[Symbol.dispose](),
  };
}

/** Texts that a shell, a configuration file or a wrong split would change. */
export const difficultTexts: readonly string[] = [
  'plain',
  'two  words ',
  '',
  `it's`,
  'say "hi"',
  `both ' and " here`,
  'back\\slash\\',
  'two\nlines\n',
  '$HOME `id` %h',
  'tab\there',
  '-n',
  'ümlaut ✓',
];
