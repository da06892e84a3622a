import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { secondsAndRest } from './index-file.ts';
import type { Repository } from './repository.ts';
import type { RootfsState } from './rootfs-state.ts';
import type { TreeFiles } from './tree-files.ts';
import { isHoldable } from './tree-path.ts';

/** A directory in the repository, while a checkout needs it. */
const aside = 'dlrootfs-contents';

/** Files that git cannot hold, put ready by it all the same: path where they belong → path where they are, both from the root. */
export interface ReadyContents {
  readonly files: ReadonlyMap<string, string>;
  /** Removes what was not taken. */
  discard(): void;
}

/** Has git write the contents of a rootfs that only records keep, but for those that are on disk. */
export async function readyContents(
  repository: Repository,
  state: RootfsState,
  onDisk: TreeFiles,
): Promise<ReadyContents> {
  const directory = path.join(repository.gitDirectory, aside);
  const indexFile = `${directory}.index`;
  const discard = (): void => {
    rmSync(directory, { recursive: true, force: true });
    for (const file of [indexFile, `${indexFile}.lock`]) rmSync(file, { force: true });
  };
  discard();
  const missing = missingContents(state, onDisk);
  if (missing.size === 0) return { files: new Map(), discard };

  mkdirSync(directory, { mode: 0o700 });
  const names = [...new Set(missing.values())];
  const wanted = Buffer.from(names.map((name) => `${name}\n`).join(''));
  const answer = await repository.run(['cat-file', '--batch-check=%(objectname)'], wanted);
  const ids = answer.split('\n');
  const entries = names.map((_, number) => `100644 ${ids[number]}\t${number}\n`);
  const place = { workTree: directory, indexFile };
  await repository.run(['update-index', '--index-info'], Buffer.from(entries.join('')), place);
  await repository.run(['checkout-index', '--all'], undefined, place);
  const ready = new Map(names.map((name, number) => [name, `.git/${aside}/${number}`]));
  const files = new Map([...missing].map(([belongs, name]) => [belongs, ready.get(name)!]));
  return { files, discard };
}

/** Where content is missing → what gitrevisions(7) would call it. */
function missingContents(state: RootfsState, onDisk: TreeFiles): Map<string, string> {
  const missing = new Map<string, string>();
  for (const [place, { inode }] of state) {
    if (inode.type !== 'file' || inode.contents === undefined || isHoldable(place, 'file')) continue;
    const stat = onDisk.find(place);
    const there =
      stat?.isFile() === true &&
      stat.size === BigInt(inode.size) &&
      secondsAndRest(stat.mtimeNs)[0] === BigInt(inode.mtimeSeconds);
    if (!there) missing.set(place, inode.contents);
  }
  return missing;
}
