import { spawn } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { TrainingRegistry } from './training-image.ts';
import { SIGNED_NAME } from './training-signatures.ts';

const training = new URL('training.ts', import.meta.url).pathname;
const accepted = new URL('accepted.ts', import.meta.url).pathname;

/**
 * Code caches for the scripts of the single executable, by asset name: compiled functions, so that a run does
 * not compile a megabyte of source. They are made by a pull of a small image from a registry on loopback,
 * with a key and a policy that demand its signature, and with the flags of the executable (V8 rejects a cache
 * that was made with other flags).
 */
export async function codeCaches(
  scripts: ReadonlyMap<string, string>,
  koffi: string,
  flags: readonly string[],
): Promise<Map<string, Uint8Array>> {
  const directory = await mkdtemp(`${tmpdir()}/dlrootfs-build-`);
  try {
    await mkdir(`${directory}/scripts`);
    await copyFile(koffi, `${directory}/scripts/koffi.node`);
    for (const [name, source] of scripts) await writeFile(`${directory}/scripts/${name}`, source);
    await using registry = await TrainingRegistry.start();
    const demands = await demandSignature(directory, registry.key);
    const pull = [registry.reference, '--no-cache', '-d', `${directory}/rootfs`, ...demands];
    await runScript([...flags, training, ...pull], `${directory}/scripts`);
    const refused = await runScript([...flags, accepted], `${directory}/scripts`);
    if (refused !== '') throw new Error(`V8 rejects the code caches of ${refused.split('\n').join(' ')}`);
    const caches = new Map<string, Uint8Array>();
    for (const name of await readdir(`${directory}/scripts`)) {
      if (name.endsWith('.cache')) caches.set(name, await readFile(`${directory}/scripts/${name}`));
    }
    return caches;
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Makes a key file and a policy in `directory`; returns flags of a pull that demand a signature by the key. */
async function demandSignature(directory: string, key: string): Promise<string[]> {
  const [keyPath, policy] = [`${directory}/cosign.pub`, `${directory}/policy.json`];
  const signedIdentity = { type: 'exactRepository', dockerRepository: SIGNED_NAME };
  await writeFile(keyPath, key);
  await writeFile(policy, JSON.stringify({ default: [{ type: 'sigstoreSigned', keyPath, signedIdentity }] }));
  const registries = `${directory}/scripts/.config/containers/registries.d`;
  await mkdir(registries, { recursive: true });
  await writeFile(`${registries}/all.yaml`, 'default-docker:\n  use-sigstore-attachments: true\n');
  return ['--verify-key', keyPath, '--policy', policy];
}

/** Runs a script of this directory, and returns its output. */
async function runScript(argv: readonly string[], directory: string): Promise<string> {
  const child = spawn(process.execPath, argv, {
    env: { PATH: process.env['PATH'], HOME: directory, TRAINING_DIRECTORY: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr.on('data', (text: Buffer) => (output += text.toString()));
  const status = await new Promise((resolve) => child.on('close', (code, signal) => resolve(code ?? signal)));
  if (status !== 0) throw new Error(`${argv.join(' ')} ended with ${String(status)}:\n${output}`);
  return output.trim();
}
