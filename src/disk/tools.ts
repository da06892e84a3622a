import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { DestinationError, printable } from '../errors.ts';
import { spawnBound } from '../sys/child.ts';
import { explainOsError } from '../sys/os-error.ts';
import { findProgram, type Environment } from '../sys/os-path.ts';
import { type DiskFormat, diskFormats } from './format.ts';

/** Directories of Debian for these programs, which a plain user's PATH may lack. */
const MORE_DIRECTORIES = ['/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
/** The output file of the tools: an inherited descriptor, so its path is irrelevant. */
export const OUTPUT_FILE = '/proc/self/fd/3';
/** The directory for temporary files, and a script. */
export const WORK_DIRECTORY = '/proc/self/fd/4';
export const SCRIPT_FILE = '/proc/self/fd/5';
/** Limit on a tool's messages; only their end is kept. */
const MAX_MESSAGE_CHARACTERS = 1024 * 1024;

/** A program that makes file systems, found and new enough. */
export interface DiskTool {
  /** The name in messages. */
  readonly program: string;
  /** Absolute. */
  readonly binary: string;
}

/**
 * Finds the program that makes a format, and checks its version.
 *
 * @throws DestinationError if it does not exist, is too old, or does not run
 */
export async function findDiskTool(
  format: DiskFormat,
  environment: Environment,
  signal: AbortSignal,
): Promise<DiskTool> {
  const { program, versionFlag, oldest, packages } = diskFormats[format].tool;
  const binary = findProgram(program, environment, MORE_DIRECTORIES);
  if (binary === undefined) {
    throw new DestinationError(`cannot write ${format}: ${program} was not found`, {
      code: 'TOOL_MISSING',
      hint: `install ${packages[0]} (apt-get install ${packages.join(' ')})`,
    });
  }
  const tool = { program, binary };
  const { output } = await runTool(tool, [versionFlag], { signal, environment: {} });
  const found = /\b(\d+)\.(\d+)(?:\.(\d+))?/.exec(output);
  const version = [1, 2, 3].map((index) => Number(found?.[index] ?? 0));
  const at = version.findIndex((number, index) => number !== oldest[index]);
  if (!found || (at >= 0 && version[at]! < oldest[at]!)) {
    const shown = found ? found[0] : 'of no known version';
    const needed = oldest.slice(0, oldest[2] > 0 ? 3 : 2).join('.');
    throw new DestinationError(
      `cannot write ${format}: ${program} is ${shown}, and ${needed} or newer is needed`,
      { code: 'TOOL_TOO_OLD', hint: `install a newer ${packages[0]}, or use -o FILE.tar` },
    );
  }
  return tool;
}

/** Returns another program of the same package. */
export function besideTool({ binary }: DiskTool, program: string): DiskTool {
  return { program, binary: path.join(path.dirname(binary), program) };
}

export interface ToolRun {
  /** The standard input of the program; without it /dev/null. */
  readonly input?: AsyncIterable<Uint8Array> | undefined;
  /** Descriptors that it inherits, from 3 on. */
  readonly files?: readonly number[];
  /** All its environment variables besides PATH and the language. */
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface ToolResult {
  /** 0 on success; undefined after a signal. */
  readonly exitCode: number | undefined;
  readonly endedBy: NodeJS.Signals | undefined;
  /** The end of its standard error; without `files`, also of its standard output. */
  readonly output: string;
}

/**
 * Runs a program to its end. It is killed if its input fails, the signal aborts, or this process ends.
 *
 * @throws DestinationError if it cannot be started, errors of `input`, and the signal's reason
 */
export async function runTool(
  { program, binary }: DiskTool,
  words: readonly string[],
  run: ToolRun,
): Promise<ToolResult> {
  const { input, files, signal } = run;
  signal.throwIfAborted();
  const child = spawnBound(binary, words, {
    environment: { PATH: MORE_DIRECTORIES.join(':'), LC_ALL: 'C.UTF-8', ...run.environment },
    stdio: [input ? 'pipe' : 'ignore', files ? 'ignore' : 'pipe', 'pipe', ...(files ?? [])],
  });
  const kill = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  const ended = (once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>).catch(
    (error: unknown) => {
      throw explainOsError(error, `run ${program}`, 'use -o FILE.tar');
    },
  );
  // It may reject while the input is still written.
  ended.catch(() => undefined);
  try {
    const messages = lastOutput(child);
    const failure = input && (await feed(input, child.stdin!));
    if (failure) kill();
    const [code, by] = await ended;
    signal.throwIfAborted();
    if (failure) throw failure.error;
    return { exitCode: code ?? undefined, endedBy: by ?? undefined, output: messages() };
  } finally {
    signal.removeEventListener('abort', kill);
  }
}

function lastOutput({ stdout, stderr }: ChildProcess): () => string {
  let text = '';
  for (const stream of [stdout, stderr]) {
    stream?.setEncoding('utf8').on('data', (piece: string) => {
      text = (text + piece).slice(-MAX_MESSAGE_CHARACTERS);
    });
  }
  return () => text;
}

/**
 * Writes the input to a program. Returns the input's own error. If the program ended early, its exit code
 * tells.
 */
async function feed(
  input: AsyncIterable<Uint8Array>,
  stdin: Writable,
): Promise<{ readonly error: unknown } | undefined> {
  let failure: { readonly error: unknown } | undefined;
  async function* source(): AsyncGenerator<Uint8Array, void, void> {
    try {
      yield* input;
    } catch (error) {
      failure = { error };
      throw error;
    }
  }
  await pipeline(source(), stdin).catch(() => undefined);
  return failure;
}

/** The general message of mke2fs after the reason. */
const GENERAL = /while populating file system$/;

/**
 * Returns the last line of a tool's messages that has a reason, without the tool's name, and with `name` for
 * the output file.
 */
export function lastLine(output: string, { program }: DiskTool, name: string): string {
  const lines = output.split('\n').map((line) => line.trim());
  const told = lines.filter((line) => line !== '');
  const last = told.findLast((line) => !GENERAL.test(line)) ?? told.at(-1) ?? 'it failed without a message';
  const own = last.startsWith(`${program}: `) ? last.slice(program.length + 2) : last;
  return printable(
    own.replaceAll(OUTPUT_FILE, () => name),
    300,
  );
}
