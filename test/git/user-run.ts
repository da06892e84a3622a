// Run by tests as another user: `pull DIR` or `checkout DIR BRANCH`.
import { readFileSync } from 'node:fs';
import { GitLayers } from '../../src/git/git-layers.ts';
import { checkout } from '../../src/git/checkout.ts';
import { Rootfs } from '../../src/rootfs/rootfs.ts';

const environment = { PATH: process.env['PATH'] };
const [command, directory, ...rest] = process.argv.slice(2);

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  yield bytes;
}

async function pull(layers: readonly string[]): Promise<void> {
  const layersOfGit = await GitLayers.open(directory!, { environment });
  const rootfs = await Rootfs.open(directory!, {
    mode: 'stage',
    name: directory!,
    recordChanges: true,
    contents: layersOfGit.contents,
  });
  try {
    await commitLayers(rootfs, layersOfGit, layers);
  } catch (error) {
    const cause = await layersOfGit.explainFailure(error);
    await layersOfGit.discard();
    // Its thread would keep the process alive.
    await rootfs.discard();
    throw cause;
  }
}

async function commitLayers(
  rootfs: Rootfs,
  layersOfGit: GitLayers,
  layers: readonly string[],
): Promise<void> {
  for (const [number, name] of layers.entries()) {
    const onChanges = (lines: Uint8Array): void => layersOfGit.note(lines);
    await rootfs.apply(once(readFileSync(name)), { label: `layer ${number}`, onChanges });
    await layersOfGit.commit({ id: String(number).padStart(64, '0') }, []);
  }
  await rootfs.close({ mode: 0o755, uid: undefined, gid: undefined });
  await layersOfGit.finish();
}

try {
  if (command === 'pull') await pull(rest);
  else {
    await checkout(directory!, rest[0]!, { environment, force: false });
  }
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 7;
}
