import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import { simpleGit, type SimpleGit } from 'simple-git';
import { GitError, printable } from '../errors.ts';
import { asGitError } from './git-error.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** The first that can be told to read no user's configuration (GIT_CONFIG_GLOBAL). */
const oldest = [2, 32] as const;
const defaultPath = '/usr/local/bin:/usr/bin:/bin';

/**
 * Configuration of every call, over whatever the repository, and all else, says: nothing of an image's or a user's may run or change
 * a byte. git's own refusals of names are for other systems' file systems; what this one cannot hold, `isHoldable` knows.
 */
const configuration = [
  'core.hooksPath=/dev/null',
  'core.fsmonitor=false',
  'core.attributesFile=/dev/null',
  'core.excludesFile=/dev/null',
  'core.autocrlf=false',
  'core.safecrlf=false',
  'core.ignoreCase=false',
  'core.precomposeUnicode=false',
  'core.protectHFS=false',
  'core.protectNTFS=false',
  'core.symlinks=true',
  'core.fileMode=true',
  'core.trustctime=true',
  'core.checkStat=default',
  'core.sparseCheckout=false',
  'core.untrackedCache=false',
  'core.splitIndex=false',
  'core.quotePath=true',
  'core.multiPackIndex=true',
  // The rootfs is not synced either; both are whole or not at all by one rename.
  'core.fsync=none',
  'core.bigFileThreshold=16m',
  'commit.gpgSign=false',
  'submodule.recurse=false',
  'gc.auto=0',
  'maintenance.auto=false',
  'advice.detachedHead=false',
  // Owner and user of DIR often differ: the image says who owns it. git asks only where a directory was not named outright.
  'safe.directory=*',
];

export interface GitOptions {
  readonly environment: Environment;
  readonly signal?: AbortSignal | undefined;
}

/** Where a call works. */
export interface GitPlace {
  /** The repository, `.git`. */
  readonly gitDirectory: string;
  readonly workTree: string;
  /** Instead of the repository's own. */
  readonly indexFile?: string;
}

/** git, found and known to be new enough. */
export interface GitProgram {
  /** Absolute path. */
  readonly binary: string;
  readonly version: string;
}

/**
 * Looks for git and asks for its version.
 *
 * @throws GitError when there is none, or it is too old, or does not run
 */
export async function findGit(environment: Environment): Promise<GitProgram> {
  const binary = whereIs('git', absolutePath(environment));
  if (binary === undefined) {
    throw new GitError('git was not found, and -g needs it', {
      code: 'GIT_MISSING',
      hint: 'install git, or pull without -g',
    });
  }
  const answer = await runGitOutside({ binary, version: '' }, { environment }, '/', ['version']).catch(
    (error: unknown) => {
      throw asGitError(error, `${binary} does not run`);
    },
  );
  const version = /^git version (\d+)\.(\d+)\S*/.exec(answer);
  if (!version) {
    throw new GitError(`${binary} says it is ${printable(answer.trim(), 80)}, which is no version of git`, {
      code: 'GIT_MISSING',
      hint: 'install git, or pull without -g',
    });
  }
  const [major, minor] = [Number(version[1]), Number(version[2])];
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
    throw new GitError(`${binary} is version ${major}.${minor}, and -g needs ${oldest.join('.')} or newer`, {
      code: 'GIT_TOO_OLD',
      hint: 'install a newer git, or pull without -g',
    });
  }
  return { binary, version: version[0].slice('git version '.length) };
}

/**
 * Runs git in one place, out of reach of hooks, filters, monitors, templates, signing, includes and variables.
 *
 * @param input what the command reads from stdin
 * @returns what it wrote to stdout
 */
export async function runGit(
  program: GitProgram,
  options: GitOptions,
  place: GitPlace,
  command: readonly string[],
  input?: Buffer,
): Promise<string> {
  const { gitDirectory, workTree, indexFile } = place;
  const git = guarded(program.binary, options.environment, {
    baseDir: gitDirectory,
    variables: {
      GIT_DIR: gitDirectory,
      GIT_WORK_TREE: workTree,
      ...(indexFile === undefined ? {} : { GIT_INDEX_FILE: indexFile }),
    },
    signal: options.signal,
    input,
  });
  return await git.raw([...command]);
}

/** Runs git where there is no repository yet. */
export async function runGitOutside(
  program: GitProgram,
  options: GitOptions,
  directory: string,
  command: readonly string[],
): Promise<string> {
  const git = guarded(program.binary, options.environment, { baseDir: directory, signal: options.signal });
  return await git.raw([...command]);
}

interface Guard {
  readonly baseDir: string;
  readonly variables?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  readonly input?: Buffer | undefined;
}

/** simple-git, unlocked for the constants above and the variables here, all of them ours. */
function guarded(binary: string, environment: Environment, guard: Guard): SimpleGit {
  const variables = {
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_ATTR_NOSYSTEM: '1',
    GIT_TERMINAL_PROMPT: '0',
    GIT_NO_REPLACE_OBJECTS: '1',
    GIT_LITERAL_PATHSPECS: '1',
    ...guard.variables,
  };
  return simpleGit({
    baseDir: guard.baseDir,
    binary,
    config: configuration,
    allowEnvironment: Object.keys(variables),
    unsafe: {
      allowUnsafeConfigPaths: true,
      allowUnsafeCustomBinary: true,
      allowUnsafeFsMonitor: true,
      allowUnsafeHooksPath: true,
      allowUnsafeTemplateDir: true,
    },
    completion: { onClose: true, onExit: false },
    ...(guard.signal === undefined ? {} : { abort: guard.signal }),
    ...(guard.input === undefined ? {} : { input: () => guard.input }),
  }).env({
    PATH: absolutePath(environment),
    LC_ALL: 'C',
    HOME: '/dev/null',
    XDG_CONFIG_HOME: '/dev/null',
    ...variables,
  });
}

/** PATH without what depends on the directory we are in, which an image may have filled. */
function absolutePath(environment: Environment): string {
  const directories = (environment['PATH'] ?? defaultPath).split(path.delimiter);
  return directories.filter((directory) => path.isAbsolute(directory)).join(path.delimiter);
}

function whereIs(name: string, directories: string): string | undefined {
  return directories
    .split(path.delimiter)
    .map((directory) => path.join(directory, name))
    .find((candidate) => {
      try {
        accessSync(candidate, constants.X_OK);
        return statSync(candidate).isFile();
      } catch {
        return false;
      }
    });
}
