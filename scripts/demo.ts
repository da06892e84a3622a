// `make demo` pulls an image without internet. It builds an image of this machine's shell, serves it from a
// registry on loopback, pulls it with dist/dlrootfs and runs a command in the rootfs. With --image NAME it
// pulls that image instead.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { FakeRegistry } from '../test/support/fake-registry.ts';
import { shellImage } from './demo/shell-image.ts';

const program = new URL('../dist/dlrootfs', import.meta.url).pathname;
const isRoot = process.getuid?.() === 0;
const bold = (text: string) => (process.stdout.isTTY ? `\u001b[1m${text}\u001b[0m` : text);

function say(text: string): void {
  process.stdout.write(`${bold(text)}\n`);
}

/** Prints a command, runs it, and returns its exit status. */
async function run(...words: readonly string[]): Promise<number> {
  const typed = words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`));
  say(`$ ${typed.join(' ').replace(program, 'dlrootfs')}`);
  const child = spawn(words[0]!, words.slice(1), { stdio: ['ignore', 'inherit', 'inherit'] });
  const status = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 1));
  });
  process.stdout.write('\n');
  return status;
}

/** Runs a shell script inside the rootfs with chroot: directly as root, else in a user namespace. */
async function enter(rootfs: string, script: string): Promise<number> {
  const enterAsUser = isRoot ? [] : ['unshare', '--map-root-user'];
  const status = await run(...enterAsUser, 'chroot', rootfs, '/bin/sh', '-c', script);
  if (status !== 0 && !isRoot) process.stderr.write('cannot create a user namespace: run the demo as root\n');
  return status;
}

async function demoOwnShell(rootfs: string): Promise<number> {
  await using registry = await FakeRegistry.start();
  registry.push('demo/shell', 'latest', shellImage());
  say(
    `${registry.host} is now a registry with demo/shell: this machine's shell and libraries, in three layers.\n`,
  );
  const pulled = await run(program, registry.reference('demo/shell'), '-d', rootfs, '--no-cache');
  if (pulled !== 0) return pulled;
  const entered = await enter(rootfs, 'cat /etc/motd; echo; ls -l /; echo; ls /etc; id');
  if (entered === 0) say('The rootfs is ready for chroot, runc, LXC or systemd-nspawn.');
  return entered;
}

async function demoImage(image: string, rootfs: string): Promise<number> {
  const pulled = await run(program, image, '-d', rootfs);
  return pulled === 0 ? await enter(rootfs, 'cat /etc/os-release; ls -l /') : pulled;
}

const { values } = parseArgs({ options: { image: { type: 'string' } } });
const scratch = mkdtempSync(`${tmpdir()}/dlrootfs-demo-`);
process.once('SIGINT', () => process.exit(130));
process.once('exit', () => rmSync(scratch, { recursive: true, force: true }));
const rootfs = `${scratch}/rootfs`;
process.exitCode =
  values.image === undefined ? await demoOwnShell(rootfs) : await demoImage(values.image, rootfs);
