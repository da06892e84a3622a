import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { configOf } from '../../src/oci/config.ts';
import type { Runtime } from '../../src/runtime/config-files.ts';
import { writeRuntimeConfigs } from '../../src/runtime/write.ts';
import { Scratch } from './program.ts';
import { probeScript } from './rootfs-trees.ts';

/** What the tests need of each runtime. */
export const runtimeProgram: Readonly<Record<Runtime, string>> = {
  runc: 'runc',
  lxc: 'lxc-execute',
  nspawn: 'systemd-nspawn',
};

export interface Started {
  readonly status: number | null;
  readonly output: string;
}

/** Runs a start command as dlrootfs names it; without a system bus there is no machined to register with, nor a unit to make. */
export function startContainer(command: string): Started {
  const here = '--quiet --pipe --register=no --keep-unit';
  const line = command.replace('systemd-nspawn', `systemd-nspawn ${here}`);
  // systemd makes it when the host boots; this host may have another init.
  if (command.includes('--inaccessible')) mkdirSync('/run/systemd/inaccessible/dir', { recursive: true });
  for (let tries = 0; ; tries += 1) {
    const { status, stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8', timeout: 120_000 });
    // Another test's machine of the same name is just starting or ending: nspawn takes one of a name at a time.
    if (tries === 50 || !/unix-export|already exists/.test(stderr))
      return { status, output: stdout + stderr };
    spawnSync('sleep', ['0.2']);
  }
}

/** Writes the configuration for an image config beside a rootfs and starts the container. */
export async function configureAndStart(
  runtime: Runtime,
  rootfs: string,
  config: object,
  hidden: readonly string[] = [],
): Promise<Started> {
  const image = configOf({ os: 'linux', architecture: 'amd64', config });
  const { next } = await writeRuntimeConfigs([runtime], { destination: rootfs, image, force: true, hidden });
  return startContainer(next[0] ?? 'false');
}

export interface Machine extends Disposable {
  readonly rootfs: string;
  /** @param hidden paths that the container must not see */
  start(hidden?: readonly string[]): Promise<Started>;
}

/** A rootfs of the test's own, with the probe in it, for one runtime. */
export function machine(runtime: Runtime, config: object, fill: (rootfs: string) => void): Machine {
  const scratch = new Scratch();
  chmodSync(scratch.path, 0o755);
  const rootfs = scratch.join('box', 'rootfs');
  mkdirSync(rootfs, { recursive: true });
  fill(rootfs);
  writeFileSync(`${rootfs}/probe`, probeScript, { mode: 0o755 });
  return {
    rootfs,
    start: (hidden) => configureAndStart(runtime, rootfs, config, hidden),
    [Symbol.dispose]: () => scratch[Symbol.dispose](),
  };
}

/** Texts that a shell, a configuration file or a sloppy split would change. */
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
