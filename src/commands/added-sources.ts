import { constants, existsSync, fstatSync, realpathSync, type Stats, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { DestinationError, IntegrityError, printable, UsageError } from '../errors.ts';
import type { PullOptions } from '../options.ts';
import { spoolPlace } from '../rootfs/destination.ts';
import { shellWord } from '../sys/os-path.ts';
import { type EntryPlace, OpenDirectory } from '../sys/open-directory.ts';
import { explainOsError, hasCode, osErrorOf } from '../sys/os-error.ts';

/** Runs `work`; errors of the system and of an archive then name the source of --add. */
export async function namingSource<T>(source: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof IntegrityError)
      throw error.withHint(`${printable(source)} is malformed or incomplete: make it again`);
    throw explainOsError(
      error,
      `add ${printable(source)}`,
      meantDestination(source) ?? 'check the path behind --add, and whether you may read it',
    );
  }
}

/** Returns a hint for `FILE=DEST`, and for `FILE:DEST` with a relative DEST, if FILE exists. */
function meantDestination(source: string): string | undefined {
  const [, file = '', destination = ''] = /^([^:=]+)[:=]\/*([^:=]+)$/s.exec(source) ?? [];
  if (file === '' || !existsSync(file) || existsSync(source)) return undefined;
  return `write --add ${shellWord(`${file}:/${destination}`)}`;
}

/**
 * Refuses to add a directory that the run itself writes into: each run would add other files.
 *
 * @param destination DIR, or a name beside the file of `-o`; undefined: none is written
 * @throws UsageError; DestinationError for a source that cannot be read
 */
export async function refuseOwnPlace(
  { additions, store }: Pick<PullOptions, 'additions' | 'store'>,
  destination: string | undefined,
): Promise<void> {
  const places: (readonly [place: string, reason: string, flag: string])[] = [];
  if (destination !== undefined)
    places.push([realpathSync(spoolPlace(destination)), 'this run writes into it', '-d or -o']);
  if (store.directory !== undefined)
    places.push([nearestExisting(store.directory), 'the cache is in it', '--cache-dir']);
  for (const { source } of additions) {
    await namingSource(source, async () => {
      const [real, isDirectory] = [realpathSync(source), statSync(source).isDirectory()];
      const written = places.find(([place]) => !path.relative(real, place).startsWith('..'));
      if (isDirectory && written)
        throw new UsageError(`cannot add ${printable(source)}: ${written[1]}`, {
          hint: `choose another place with ${written[2]}, or add what is in that directory one by one`,
        });
    });
  }
}

/** Returns the real path of a directory, or of the nearest one above that exists. */
function nearestExisting(directory: string): string {
  try {
    return realpathSync(directory);
  } catch (error) {
    const above = path.dirname(path.resolve(directory));
    if (!hasCode(error, 'ENOENT')) return above;
    return nearestExisting(above);
  }
}

const READ_BYTES = 1024 * 1024;

/** Yields the bytes of a file from `start` to `end`, or to its end if that comes first. */
export async function* bytesOf(
  handle: FileHandle,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array, void, void> {
  for (let at = start; at < end;) {
    const piece = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, end - at));
    const { bytesRead } = await handle.read(piece, 0, piece.length, at);
    if (bytesRead === 0) return;
    yield piece.subarray(0, bytesRead);
    at += bytesRead;
  }
}

/**
 * Reads a file or directory that must not change at this time.
 *
 * @throws DestinationError if it was changed, also where that made `read` fail
 */
export async function whileUnchanged(
  descriptor: number,
  shown: string,
  read: (stat: Stats) => Promise<void>,
): Promise<void> {
  const state = () => {
    const { size, mtimeNs } = fstatSync(descriptor, { bigint: true });
    return `${size} ${mtimeNs}`;
  };
  const before = state();
  const failure = await read(fstatSync(descriptor)).catch((error: unknown) => {
    if (!(error instanceof IntegrityError) && !osErrorOf(error)) throw error;
    return error as Error;
  });
  if (state() !== before)
    throw new DestinationError(`cannot add ${printable(shown)}: it was changed while it was read`, {
      code: 'CHANGED',
      hint: 'run it again when nothing writes there, or add a copy',
      cause: failure,
    });
  if (failure) throw failure;
}

/** The parent directory of a path, open, and the name in it. Symlinks are resolved. */
export class OpenPlace implements Disposable {
  readonly place: EntryPlace;
  readonly stat: Stats;

  private constructor(place: EntryPlace, stat: Stats) {
    this.place = place;
    this.stat = stat;
  }

  static open(source: string): OpenPlace {
    const place = OpenDirectory.openParent(source);
    const stat = place.directory.stat(place.name);
    if (stat) return new OpenPlace(place, stat);
    place.directory.close();
    throw Object.assign(new Error('ENOENT'), { code: 'ENOENT', errno: -2, syscall: 'open' });
  }

  [Symbol.dispose](): void {
    this.place.directory.close();
  }
}

/** @throws UsageError unless it is a regular file */
export async function openFile(
  { place }: { readonly place: EntryPlace },
  shown: string,
): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(place.directory.at(place.name), flags);
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw unfit(shown);
}

export function unfit(source: string): UsageError {
  return new UsageError(`cannot add ${printable(source)}: it is no file, directory or symlink`, {
    hint: 'leave it out, or add an archive that has it',
  });
}
