import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;

/**
 * Returns the time of the commit (or SOURCE_DATE_EPOCH) in seconds since 1970: the same sources give the same
 * files.
 */
export async function commitTime(): Promise<string> {
  const fromGit = await run('git', ['log', '-1', '--format=%ct'], { cwd: root })
    .then(({ stdout }) => stdout.trim())
    .catch(() => '0');
  return process.env['SOURCE_DATE_EPOCH'] ?? fromGit;
}
