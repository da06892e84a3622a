import { constants } from 'node:fs';
import { open, readdir, type FileHandle } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { printable, UsageError } from '../errors.ts';
import { hasCode, osErrorOf, reasonOf } from './os-error.ts';
import type { Environment } from './os-path.ts';

/** Limit in bytes on each file: certificates, logins, registries.conf. */
const MAX_FILE_BYTES = 4 * 1024 * 1024;
/** Limit on the files of one directory. */
const MAX_FILES = 1000;
/** Milliseconds within which a pipe that the user named must deliver data, as in `--ca-file <(command)`. */
const PIPE_TIMEOUT = 5000;

const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/** Returns `$XDG_CONFIG_HOME`, else `~/.config`; undefined without a home. */
export function configHome(environment: Environment): string | undefined {
  const { XDG_CONFIG_HOME: xdg, HOME: home } = environment;
  if (xdg) return xdg;
  return home ? join(home, '.config') : undefined;
}

/**
 * Returns HOME, else the home in passwd(5). Undefined for a relative HOME, and for a user id without an
 * entry, as in many containers.
 */
export function homeDirectory({ HOME: home }: Environment): string | undefined {
  if (home !== undefined) return isAbsolute(home) ? home : undefined;
  try {
    return homedir();
  } catch {
    return undefined;
  }
}

/** The places of configuration files. */
export interface ConfigPlaces {
  readonly environment: Environment;
  /** Directories that replace `/etc` as the parents of `containers/` and `docker/`. */
  readonly configDirs?: readonly string[] | undefined;
}

/**
 * Returns the directories of `containers` or `docker`, best first: the user's, then that in `/etc` or its
 * replacements.
 */
export function configDirectories(
  { environment, configDirs = ['/etc'] }: ConfigPlaces,
  name: 'containers' | 'docker',
): readonly string[] {
  const home = configHome(environment);
  return [...(home === undefined ? [] : [home]), ...configDirs].map((directory) => join(directory, name));
}

/** A pipe or a terminal delivered no data in time. */
export class NoDataError extends Error {
  constructor() {
    super('it delivers no data');
  }
}

/** Reads a configuration file as text, as `readConfigBytes` does. */
export async function readConfigFile(
  path: string,
  options: { readonly named: boolean; readonly signal: AbortSignal | undefined },
): Promise<string> {
  return (await readConfigBytes(path, options)).toString('utf8');
}

/**
 * Reads a file that the user or a policy names.
 *
 * @param what for the message: `the key`
 * @throws UsageError
 */
export async function readNamedFile(
  file: string,
  what: string,
  hint: string,
  signal?: AbortSignal,
): Promise<string> {
  try {
    return await readConfigFile(file, { named: true, signal });
  } catch (error) {
    signal?.throwIfAborted();
    const reason = osErrorOf(error)?.text ?? reasonOf(error);
    throw new UsageError(`cannot read ${what} ${printable(file)}: ${reason}`, { hint, cause: error });
  }
}

/**
 * Reads a configuration file of at most 4 MiB. Never blocks on a FIFO or device.
 *
 * @param options.named true if the user named the file: then a pipe gets time to deliver data
 * @throws system errors, NoDataError, and Error for a file that is too long
 */
export async function readConfigBytes(
  path: string,
  { named, signal }: { readonly named: boolean; readonly signal: AbortSignal | undefined },
): Promise<Buffer> {
  const file = await open(path, READ_FLAGS);
  try {
    const isPipe = (await file.stat()).isFIFO();
    const deadline = performance.now() + (named ? PIPE_TIMEOUT : 0);
    const chunks: Uint8Array[] = [];
    for (let size = 0; ;) {
      const chunk = await readChunk(file);
      size += chunk?.length ?? 0;
      if (size > MAX_FILE_BYTES) throw new Error(`it is longer than ${MAX_FILE_BYTES} bytes`);
      if (chunk !== undefined && chunk.length > 0) chunks.push(chunk);
      // A pipe without a writer yet seems to be at its end.
      else if (chunk !== undefined && !(isPipe && size === 0)) break;
      else if (performance.now() >= deadline) throw new NoDataError();
      else await sleep(20, undefined, { signal });
    }
    return Buffer.concat(chunks);
  } finally {
    await file.close();
  }
}

/** Reads a chunk: undefined without data yet, empty at the end. */
async function readChunk(file: FileHandle): Promise<Uint8Array | undefined> {
  try {
    const { buffer, bytesRead } = await file.read(new Uint8Array(65_536), 0, 65_536, null);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    if (hasCode(error, 'EAGAIN')) return undefined;
    throw error;
  }
}

/** Returns the names in a configuration directory, sorted; undefined if it cannot be read. */
export async function listConfigDirectory(directory: string): Promise<readonly string[] | undefined> {
  try {
    return (await readdir(directory)).toSorted().slice(0, MAX_FILES);
  } catch {
    return undefined;
  }
}
