import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dir, file, hardlink, symlink, tar, whiteout } from '../../test/support/archive.ts';
import { FakeRegistry } from '../../test/support/fake-registry.ts';

const training = new URL('training.ts', import.meta.url).pathname;
const accepted = new URL('accepted.ts', import.meta.url).pathname;

const layers = [
  { tar: tar(dir('etc'), file('etc/motd', 'hi\n'), symlink('bin', 'usr/bin'), dir('usr'), dir('usr/bin')) },
  {
    tar: tar(
      file('usr/bin/true', 'x'.repeat(100_000), { mode: 0o755 }),
      hardlink('usr/bin/false', 'usr/bin/true'),
    ),
  },
  { tar: tar(whiteout('etc/motd'), file('etc/issue', 'new\n')) },
];

/**
 * Code caches for the scripts of the single executable, by asset name: what V8 has compiled once each was used, so that a
 * run starts with compiled functions instead of a megabyte of source. Made by really pulling a small image from a registry
 * on loopback, under the flags that the executable will run with (V8 turns down a cache made under others).
 */
export async function codeCaches(
  scripts: ReadonlyMap<string, string>,
  flags: readonly string[],
): Promise<Map<string, Uint8Array>> {
  const directory = await mkdtemp(`${tmpdir()}/dlrootfs-build-`);
  try {
    await mkdir(`${directory}/scripts`);
    for (const [name, source] of scripts) await writeFile(`${directory}/scripts/${name}`, source);
    await using registry = await FakeRegistry.start();
    registry.push('library/small', 'latest', { layers });
    const pull = [registry.reference('library/small'), '--no-cache', '-d', `${directory}/rootfs`];
    await runScript([...flags, training, ...pull], `${directory}/scripts`);
    const refused = await runScript([...flags, accepted], `${directory}/scripts`);
    if (refused !== '') throw new Error(`V8 turns down the code caches of ${refused.split('\n').join(' ')}`);
    const caches = new Map<string, Uint8Array>();
    for (const name of await readdir(`${directory}/scripts`)) {
      if (name.endsWith('.cache')) caches.set(name, await readFile(`${directory}/scripts/${name}`));
    }
    return caches;
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Runs a script of this folder, and answers what it printed. */
async function runScript(argv: readonly string[], directory: string): Promise<string> {
  const child = spawn(process.execPath, argv, {
    env: { PATH: process.env['PATH'], HOME: directory, TRAINING_DIRECTORY: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr.on('data', (text: Buffer) => (output += text.toString()));
  const status = await new Promise((resolve) => child.on('close', resolve));
  if (status !== 0) throw new Error(`${argv.join(' ')} ended with ${String(status)}:\n${output}`);
  return output.trim();
}
