import { mkdir, writeFile } from 'node:fs/promises';
import { completionScript } from '../../src/command-line/completions.ts';
import { manualPage } from '../../src/command-line/manual.ts';
import { commitTime } from './commit-time.ts';
import { copyrightText } from './copyright.ts';

/**
 * Writes the man page, the completions under their installed names, and the licences of all parts of the
 * binary.
 */
export async function writeDocuments(directory: string): Promise<void> {
  const completions = `${directory}/completions`;
  await mkdir(completions, { recursive: true });
  await writeFile(`${completions}/dlrootfs.bash`, completionScript('bash'));
  await writeFile(`${completions}/_dlrootfs`, completionScript('zsh'));
  await writeFile(`${completions}/dlrootfs.fish`, completionScript('fish'));
  await writeFile(`${directory}/copyright`, await copyrightText());
  const date = new Date(Number(await commitTime()) * 1000).toISOString().slice(0, 10);
  await writeFile(`${directory}/dlrootfs.1`, manualPage(date));
}
