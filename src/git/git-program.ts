import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import path from 'node:path';
import { geteuid, umask } from 'node:process';
import type { Readable } from 'node:stream';
import { simpleGit } from 'simple-git';
import { GitError, printable } from '../errors.ts';
import { asGitError, damaged } from './git-error.ts';
import { SyscallError } from '../sys/os-error.ts';
import { findProgram, type Environment } from '../sys/os-path.ts';

/** The first version that can be made to read no user's configuration (GIT_CONFIG_GLOBAL). */
const oldest = [2, 32] as const;
const defaultPath = '/usr/local/bin:/usr/bin:/bin';

export interface GitOptions {
  readonly environment: Environment;
  readonly signal?: AbortSignal | undefined;
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
 * @throws GitError when git is missing, too old, or does not run; also when the umask would deny this process its own files
 */
export async function findGit(environment: Environment): Promise<GitProgram> {
  refuseUmask();
  const binary = findProgram('git', pathOf(environment));
  if (binary === undefined) {
    throw new GitError('git was not found, and -g needs it', {
      code: 'GIT_MISSING',
      hint: 'install git, or pull without -g',
    });
  }
  // Not by simple-git's own `version`, which does not report the answer of a program other than git.
  const answer = await runGit({ binary }, { environment }, '/', ['version']).catch((error: unknown) => {
    throw asGitError(error, `${binary} does not run`, undefined);
  });
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

/** With such a umask git could not enter a directory that was made for it. Root may enter any. */
function refuseUmask(): void {
  const mask = umask();
  if ((mask & 0o700) === 0 || geteuid?.() === 0) return;
  throw new GitError(`cannot use git with the umask ${mask.toString(8).padStart(4, '0')}`, {
    code: 'UMASK',
    hint: 'leave the owner of new files their rights: umask 022',
  });
}

/**
 * Runs git in a private GIT_DIR. No hooks, filters, monitors, templates, signing, includes, remotes or variables have an effect.
 *
 * @param input what the command reads from stdin
 * @returns what it wrote to stdout
 */
export async function runGit(
  { binary }: Pick<GitProgram, 'binary'>,
  { environment, signal }: GitOptions,
  gitDirectory: string,
  command: readonly string[],
  input?: Buffer,
): Promise<string> {
  const variables = variablesOf(environment, gitDirectory);
  const git = simpleGit({
    baseDir: gitDirectory,
    binary,
    allowEnvironment: Object.keys(variables),
    unsafe: { allowUnsafeConfigPaths: true, allowUnsafeCustomBinary: true },
    completion: { onClose: true, onExit: false },
    ...(signal === undefined ? {} : { abort: signal }),
    ...(input === undefined ? {} : { input: () => input }),
  }).env(variables);
  return await git.raw([...command]).catch((error: unknown) => {
    // So simple-git fails where no descriptor is left for its pipes.
    throw String(error).includes('TypeError') ? new SyscallError(constants.errno.EMFILE, 'start git') : error;
  });
}

/**
 * Contents of objects, in the order in which they are asked for. Not by simple-git, which keeps all that a command writes in memory.
 *
 * @param names as gitrevisions(7) has them, one line each
 * @returns for each a stream of its bytes, to be read to its end before the next one is taken
 */
export async function* readObjects(
  { binary }: GitProgram,
  { environment, signal }: GitOptions,
  gitDirectory: string,
  names: readonly string[],
): AsyncGenerator<GitObject, void, void> {
  const git = spawn(binary, ['cat-file', '--batch'], {
    cwd: gitDirectory,
    env: variablesOf(environment, gitDirectory),
    stdio: ['pipe', 'pipe', 'pipe'],
    signal,
  });
  let said = '';
  git.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < LONGEST_COMPLAINT) said += text;
  });
  const ended = new Promise<Error | undefined>((resolve) => {
    git.once('error', resolve).once('close', (code, killer) => {
      const how = killer ? `it was ended by ${killer}` : `it ended with code ${code}`;
      resolve(code === 0 ? undefined : new Error(said.trim() === '' ? how : said));
    });
  });
  // When git ends early, its own message is reported, not the broken pipe.
  git.stdin.on('error', () => undefined);
  git.stdin.end(names.map((name) => `${name}\n`).join(''));
  const output = new OutputReader(git.stdout);
  try {
    for (const name of names) {
      const header = await output.line();
      const [, type, size] = /^[0-9a-f]+ (\w+) (\d+)$/.exec(header ?? '') ?? [];
      if (type === undefined) {
        const failure = header === undefined ? await ended : undefined;
        throw failure ?? damaged(`the repository lacks the object ${name}`);
      }
      yield { type, size: Number(size), content: output.take(Number(size)) };
      await output.line();
    }
  } finally {
    git.stdout.destroy();
    git.kill();
    await ended;
  }
  signal?.throwIfAborted();
}

/** An object as git hands it out. */
export interface GitObject {
  readonly type: string;
  /** In bytes. */
  readonly size: number;
  readonly content: AsyncIterable<Buffer>;
}

const LONGEST_COMPLAINT = 2000;

/** Lines and counted bytes of a stream. */
class OutputReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #chunk: Buffer = Buffer.alloc(0);

  constructor(stream: Readable) {
    this.#chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  /** The next line without its end; undefined at the end of the stream. */
  async line(): Promise<string | undefined> {
    let line = '';
    for (;;) {
      const end = this.#chunk.indexOf(0x0a);
      if (end >= 0) {
        line += this.#chunk.toString('latin1', 0, end);
        this.#chunk = this.#chunk.subarray(end + 1);
        return line;
      }
      line += this.#chunk.toString('latin1');
      if (!(await this.#fill())) return undefined;
    }
  }

  /** The next `size` bytes. @throws where the stream ends before */
  async *take(size: number): AsyncGenerator<Buffer, void, void> {
    for (let rest = size; rest > 0;) {
      if (this.#chunk.length === 0 && !(await this.#fill())) throw new Error('an object was cut off');
      const part = this.#chunk.subarray(0, rest);
      this.#chunk = this.#chunk.subarray(part.length);
      rest -= part.length;
      yield part;
    }
  }

  async #fill(): Promise<boolean> {
    const next = await this.#chunks.next();
    this.#chunk = next.done === true ? Buffer.alloc(0) : next.value;
    return next.done !== true;
  }
}

/** The environment of git's process. */
function variablesOf(environment: Environment, gitDirectory?: string): Record<string, string> {
  return {
    PATH: pathOf(environment).join(path.delimiter),
    LC_ALL: 'C',
    HOME: '/dev/null',
    XDG_CONFIG_HOME: '/dev/null',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_ATTR_NOSYSTEM: '1',
    GIT_TERMINAL_PROMPT: '0',
    GIT_NO_REPLACE_OBJECTS: '1',
    GIT_NO_LAZY_FETCH: '1',
    GIT_ALLOW_PROTOCOL: '',
    GIT_LITERAL_PATHSPECS: '1',
    GIT_ALLOC_LIMIT: LARGEST_ALLOCATION,
    ...(gitDirectory === undefined ? {} : { GIT_DIR: gitDirectory }),
  };
}

/** For one allocation of git's: an object that is larger is streamed, or is an attack. */
const LARGEST_ALLOCATION = '1g';

/** The absolute directories of PATH: an image may have filled the working directory. */
function pathOf(environment: Environment): string[] {
  const directories = (environment['PATH'] ?? defaultPath).split(path.delimiter);
  return directories.filter((directory) => path.isAbsolute(directory));
}
