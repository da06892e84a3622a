// Pulls layers with -g in a process of another user. Arguments: DIR and the files of the layers.
import { readFileSync } from 'node:fs';
import { GitLayers } from '../../src/git/git-layers.ts';
import { findGit } from '../../src/git/git-program.ts';
import { Rootfs } from '../../src/rootfs/rootfs.ts';

const [directory, ...layers] = process.argv.slice(2);

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  yield bytes;
}

async function pull(): Promise<void> {
  const layersOfGit = GitLayers.open(findGit(process.env), directory!);
  const rootfs = await Rootfs.open(directory!, {
    mode: 'stage',
    name: directory!,
    contents: layersOfGit.contents,
    onChanges: (records) => layersOfGit.note(records),
  });
  try {
    await commitLayers(rootfs, layersOfGit);
  } catch (error) {
    const cause = await layersOfGit.explainFailure(error);
    await layersOfGit.discard();
    // Its thread would keep the process running.
    await rootfs.discard();
    throw cause;
  }
}

async function commitLayers(rootfs: Rootfs, layersOfGit: GitLayers): Promise<void> {
  for (const [number, name] of layers.entries()) {
    await rootfs.apply(once(readFileSync(name)), { label: `layer ${number}` });
    await layersOfGit.commit({ id: String(number).padStart(64, '0') });
  }
  await rootfs.close({ mode: 0o755, uid: undefined, gid: undefined });
  await layersOfGit.finish();
}

try {
  await pull();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 7;
}
