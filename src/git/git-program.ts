import { pid } from 'node:process';
import { simpleGit } from 'simple-git';
import { GitError } from '../errors.ts';
import { type Environment, findProgram } from '../sys/os-path.ts';

const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin';

/**
 * Returns the absolute path of git.
 *
 * @throws GitError if it is not in PATH
 */
export function findGit(environment: Environment): string {
  const binary = findProgram('git', { PATH: environment['PATH'] ?? DEFAULT_PATH });
  if (binary !== undefined) return binary;
  throw new GitError('git was not found, and -g needs it', {
    code: 'GIT_MISSING',
    hint: 'install git, or pull without -g',
  });
}

/**
 * Makes branches by git-update-ref(1), all or none. git checks that each commit exists and can be read. It
 * uses only the new repository and its configuration, no hook and no log.
 *
 * @param gitDirectory `.git`, by a path that stays valid if another directory takes its name: git resolves it
 * again
 * @param branches full names, with the id of their commit
 * @throws git's errors, the signal's reason
 */
export async function makeBranches(
  binary: string,
  gitDirectory: string,
  branches: ReadonlyMap<string, string>,
  signal?: AbortSignal,
): Promise<void> {
  const directory = gitDirectory.replace('/proc/self/', `/proc/${pid}/`);
  const variables = {
    LC_ALL: 'C',
    HOME: '/dev/null',
    XDG_CONFIG_HOME: '/dev/null',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_DIR: '.',
    // git makes relative paths absolute by PWD.
    PWD: directory,
  };
  const commands = [...branches].map(([name, commit]) => `create ${name} ${commit}\n`).join('');
  const git = simpleGit({
    baseDir: directory,
    binary,
    allowEnvironment: Object.keys(variables),
    allowConfig: ['core.bare', 'core.logAllRefUpdates'],
    unsafe: { allowUnsafeConfigPaths: true, allowUnsafeCustomBinary: true },
    completion: { onClose: true, onExit: false },
    input: () => Buffer.from(commands),
    ...(signal && { abort: signal }),
  }).env(variables);
  await git.raw('-c', 'core.bare=true', '-c', 'core.logAllRefUpdates=false', 'update-ref', '--stdin');
}
