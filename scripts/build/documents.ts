import { mkdir, writeFile } from 'node:fs/promises';
import { completionScript } from '../../src/command-line/completion.ts';
import { manualPage } from '../../src/command-line/manual.ts';

/** Writes the manual page and the shells' completions, named as packages install them. */
export async function writeDocuments(directory: string): Promise<void> {
  const completions = `${directory}/completions`;
  await mkdir(completions, { recursive: true });
  await writeFile(`${completions}/dlrootfs.bash`, completionScript('bash'));
  await writeFile(`${completions}/_dlrootfs`, completionScript('zsh'));
  await writeFile(`${completions}/dlrootfs.fish`, completionScript('fish'));
  await writeFile(`${directory}/dlrootfs.1`, manualPage());
}
