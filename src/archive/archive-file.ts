import { randomBytes } from 'node:crypto';
import { constants, readlinkSync, statfsSync, statSync, type Stats } from 'node:fs';
import { open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { geteuid } from 'node:process';
import path from 'node:path';
import { type Duplex, Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { DestinationError, DlrootfsError, printable } from '../errors.ts';
import { type EntryPlace, OpenDirectory } from '../sys/open-directory.ts';
import { absolutePath, osPath } from '../sys/os-path.ts';
import { hasCode, osErrorOf, reasonOf } from '../sys/os-error.ts';
import { lockFile } from '../sys/system-calls.ts';
import { hiddenBeside, hiddenName } from '../sys/temp-file.ts';

/** The wait before a FIFO or device that is not ready is tried again. */
const POLL_MILLISECONDS = 20;
/** The text of a link in /proc to an open file that has no path: proc_pid_fd(5). */
const NO_PATH = /^[a-z]+:\[\d+\]$/;
/** The type of /proc in statfs(2). */
const PROC_SUPER_MAGIC = 0x9fa0;
/** The number of first tries without a wait: a fast reader empties a pipe in less than a millisecond. */
const EAGER_TRIES = 50;

/**
 * A file that appears completely or not at all: it is written under another name in the same directory and
 * renamed when complete. Symlinks are followed, except those that another user may have made. A FIFO or
 * device is written directly.
 */
export class ArchiveFile {
  /** The name in messages. */
  readonly #name: string;
  readonly #handle: FileHandle;
  /** The file under its temporary name; undefined for a FIFO or device. */
  readonly #partial: Partial | undefined;

  private constructor(name: string, handle: FileHandle, partial?: Partial) {
    this.#name = name;
    this.#handle = handle;
    this.#partial = partial;
  }

  /** Appends bytes. A FIFO or device does not block: it is tried again while it accepts no bytes. */
  async write(bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    let tries = 0;
    for (let written = 0; written < bytes.length;) {
      try {
        written += (await this.#handle.write(bytes, written)).bytesWritten;
        tries = 0;
      } catch (error) {
        if (!hasCode(error, 'EAGAIN')) throw error;
        tries += 1;
        await (tries > EAGER_TRIES ? sleep(POLL_MILLISECONDS, undefined, { signal }) : nextTurn());
      }
    }
  }

  /** The descriptor, for a program that writes the content; undefined for a FIFO or device. */
  get descriptor(): number | undefined {
    return this.#partial && this.#handle.fd;
  }

  /** The directory of the file; undefined for a FIFO or device. */
  get directory(): OpenDirectory | undefined {
    return this.#partial?.place.directory;
  }

  /** See `OpenDirectory.identityOf`; undefined for a FIFO or device. */
  get identity(): string | undefined {
    return this.#partial?.identity;
  }

  /**
   * Opens a new file. An existing file is replaced only if this user may write to it; its permissions are
   * kept.
   *
   * @param signal ends the wait for the reader of a FIFO
   * @throws DestinationError if it cannot be written there
   */
  static async create(name: string, signal?: AbortSignal): Promise<ArchiveFile> {
    let place: EntryPlace | undefined;
    try {
      place = OpenDirectory.openParent(name);
      const { directory, name: last } = place;
      const existing = directory.stat(last);
      if (existing?.isDirectory() === true) throw isDirectory(name);
      if (existing?.isFile() === false) {
        const handle = await openReady(directory.at(last), name, signal, constants.O_NOFOLLOW);
        directory.close();
        return new ArchiveFile(name, handle);
      }
      const pipe = existing ? undefined : pipeOf(place);
      if (pipe !== undefined) {
        const handle = await openReady(directory.at(pipe), name, signal, 0);
        directory.close();
        return new ArchiveFile(name, handle);
      }
      // The kernel decides whether this user may write to it.
      if (existing) await (await openToWrite(directory.at(last), constants.O_NOFOLLOW)).close();
      const partial = await createPartial(place, existing ? existing.mode & 0o777 : 0o666);
      return new ArchiveFile(directory.shown(last), partial.file, partial);
    } catch (error) {
      place?.directory.close();
      signal?.throwIfAborted();
      throw unwritable(name, error);
    }
  }

  /** Gives the file its name. Call it when everything is written. */
  async commit(): Promise<void> {
    try {
      await this.#handle.close();
      if (this.#partial === undefined) return;
      const { place, name, identity } = this.#partial;
      if (place.directory.identityOf(name) !== identity) throw replacedWhileWritten(this.#name);
      await rename(place.directory.at(name), place.directory.at(place.name));
    } catch (error) {
      throw unwritable(this.#name, error);
    }
    await this.#release();
  }

  /** Removes what was written. */
  async discard(): Promise<void> {
    await this.#handle.close().catch(() => undefined);
    if (this.#partial === undefined) return;
    const { place, name } = this.#partial;
    await unlink(place.directory.at(name)).catch(() => undefined);
    await this.#release();
  }

  async #release(): Promise<void> {
    await this.#partial?.lock?.close();
    this.#partial?.place.directory.close();
  }
}

interface Partial {
  /** The final place of the file. */
  readonly place: EntryPlace;
  /** The temporary name. */
  readonly name: string;
  readonly file: FileHandle;
  /** See `OpenDirectory.identityOf`. */
  readonly identity: string;
  /**
   * Keeps the file locked until it is renamed or removed, even after `file` is closed. An unlocked file
   * belongs to a killed run.
   */
  readonly lock: FileHandle | undefined;
}

/**
 * Makes a new file beside `place`, and removes those of killed runs. If another run removes the new file
 * before it is locked, makes another one.
 */
async function createPartial(place: EntryPlace, mode: number): Promise<Partial> {
  await removeAbandoned(place);
  const { directory } = place;
  for (;;) {
    const name = `${hiddenName(place.name)}.${randomBytes(6).toString('hex')}.part`;
    const file = await open(directory.at(name), 'wx', mode);
    // A user who may not read the file cannot lock it, and no other run of that user can remove it.
    const lock = await open(directory.at(name), constants.O_RDONLY | constants.O_NOFOLLOW).catch(
      () => undefined,
    );
    const isBusy = lock !== undefined && lockFile(lock.fd, 'exclusive') === 'busy';
    const { nlink, dev, ino } = await file.stat({ bigint: true });
    if (!isBusy && nlink > 0n) return { place, name, file, identity: `${dev}:${ino}`, lock };
    await file.close();
    await lock?.close();
  }
}

async function removeAbandoned(place: EntryPlace): Promise<void> {
  const { directory } = place;
  for (const [abandoned] of hiddenBeside(place, /^\.[0-9a-f]{12}\.part$/)) {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const handle = await open(directory.at(abandoned), flags).catch(() => undefined);
    if (handle === undefined) continue;
    try {
      const found = await handle.stat();
      const isOurs = found.isFile() && found.uid === geteuid?.() && !mayBeAnother(directory, found);
      if (isOurs && lockFile(handle.fd, 'exclusive') === 'locked')
        await unlink(directory.at(abandoned)).catch(() => undefined);
    } finally {
      await handle.close();
    }
  }
}

/**
 * Returns the name of a descriptor in a directory of /proc, if `place` is the text of its link. A pipe has no
 * path, so the text names no file: proc_pid_fd(5).
 */
function pipeOf({ directory, name }: EntryPlace): string | undefined {
  if (!directory.isNamedByDescriptor || !NO_PATH.test(name)) return undefined;
  if (statfsSync(directory.self).type !== PROC_SUPER_MAGIC) return undefined;
  return directory.names().find((descriptor) => readLinkText(directory.at(descriptor)) === name);
}

/** Returns the text of a link; undefined if there is none. */
function readLinkText(link: string | Buffer): string | undefined {
  try {
    return readlinkSync(link);
  } catch {
    return undefined;
  }
}

/** True for root if another user may have given this name to a file of root's. */
function mayBeAnother(directory: OpenDirectory, file: Stats): boolean {
  return geteuid?.() === 0 && directory.mayOthersRename(file);
}

/**
 * Writes the bytes of `source` to `output`, which stays open if it is a stream. Each piece may be valid only
 * until the next one is requested.
 *
 * @param by.name the output in messages: a file as the user named it, or `standard output`
 * @param by.compressor transforms the bytes
 * @throws the signal's reason; errors of `source`; DestinationError if the output cannot be written
 */
export async function writeBytes(
  source: AsyncIterable<Uint8Array>,
  output: Writable | ArchiveFile,
  { name, compressor, signal }: WriteOptions,
): Promise<void> {
  let sourceError: unknown;
  const isFile = output instanceof ArchiveFile;
  async function* bytes(): AsyncGenerator<Uint8Array, void, void> {
    try {
      // A stream requests pieces early and may keep them: it gets copies. A file and Node's compressors use
      // them at once.
      for await (const piece of source) yield isFile ? piece : Uint8Array.from(piece);
    } catch (error) {
      // If the stream failed first, its error is thrown here.
      if (isFile || output.errored !== error) sourceError = error;
      throw error;
    }
  }
  const sink = isFile
    ? async (pieces: AsyncIterable<Uint8Array>): Promise<void> => {
        for await (const piece of pieces) await output.write(piece, signal);
      }
    : output;
  try {
    const options = { end: isFile, signal };
    const input = isFile ? bytes() : Readable.from(bytes(), { objectMode: false });
    await (compressor ? pipeline(input, compressor, sink, options) : pipeline(input, sink, options));
  } catch (error) {
    signal?.throwIfAborted();
    throw error === sourceError ? error : unwritable(name, error);
  }
}

interface WriteOptions {
  readonly name: string;
  readonly compressor?: Duplex | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Returns the error for an archive that cannot be written.
 *
 * @param name a file as the user named it, or `standard output`
 */
export function unwritable(name: string, error: unknown): unknown {
  if (error instanceof DlrootfsError || !(error instanceof Error)) return error;
  const os = osErrorOf(error);
  const disk = os?.disk === 'is full' && isOnDisk(name) ? `${diskOf(name)} is full: ` : '';
  return new DestinationError(`cannot write ${printable(name)}: ${disk}${os?.text ?? reasonOf(error)}`, {
    ...(os && { code: os.code }),
    hint: HINTS[os?.code ?? ''] ?? os?.hint(ANOTHER_FILE) ?? DIRECTORY_HINT,
    cause: error,
  });
}

/** Standard output in messages. */
export const STANDARD_OUTPUT = 'standard output';

/** True for a file: devices and standard output are on no disk with a name. */
function isOnDisk(name: string): boolean {
  return name !== STANDARD_OUTPUT && statSync(osPath(name), { throwIfNoEntry: false })?.isFile() !== false;
}

function diskOf(name: string): string {
  return `the disk of ${printable(path.dirname(absolutePath(name)))}`;
}

const ANOTHER_FILE = 'name another file';
const DIRECTORY_HINT = 'name a file in a directory that exists and that you may write to';
const HINTS: Readonly<Record<string, string>> = {
  EACCES: DIRECTORY_HINT,
  ENXIO: 'name a file, or -o - for standard output',
  EPERM: DIRECTORY_HINT,
  EPIPE: 'see why the reader of the archive ended',
};

function isDirectory(name: string): DestinationError {
  return new DestinationError(`cannot write ${printable(name)}: it is a directory`, {
    code: 'EISDIR',
    hint: 'name a file for -o, or use -d for a directory',
  });
}

function replacedWhileWritten(name: string): DestinationError {
  return new DestinationError(`cannot write ${printable(name)}: another process has replaced it`, {
    code: 'SWAPPED',
    hint: 'see who else writes there, or name another file with -o',
  });
}

function openToWrite(place: string | Buffer, flags: number): Promise<FileHandle> {
  return open(place, constants.O_WRONLY | constants.O_NONBLOCK | flags);
}

/**
 * Opens a FIFO or device, and waits until a FIFO has a reader. It polls, since a thread that blocks in
 * open(2) does not end on a signal.
 *
 * @param flags more flags of open(2): O_NOFOLLOW where a symlink means that the name was replaced
 */
async function openReady(
  place: string | Buffer,
  name: string,
  signal: AbortSignal | undefined,
  flags: number,
): Promise<FileHandle> {
  for (;;) {
    try {
      const handle = await openToWrite(place, flags);
      if (!(await handle.stat()).isFile()) return handle;
      await handle.close();
      throw replacedWhileWritten(name);
    } catch (error) {
      if (hasCode(error, 'ELOOP')) throw replacedWhileWritten(name);
      // Sockets, and devices without a driver, have this error at each try.
      if (!hasCode(error, 'ENXIO') || !statSync(place).isFIFO()) throw error;
      await sleep(POLL_MILLISECONDS, undefined, { signal });
    }
  }
}
