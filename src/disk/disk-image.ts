import { ftruncateSync } from 'node:fs';
import { type FileHandle, statfs, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { unwritable } from '../archive/archive-file.ts';
import { entryBlocks, type NameRecords } from '../archive/entry-blocks.ts';
import { flattenedTree } from '../archive/flatten.ts';
import { DestinationError, printable } from '../errors.ts';
import type { ImageTree, ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import type { OpenDirectory } from '../sys/open-directory.ts';
import { SyscallError } from '../sys/os-error.ts';
import { osPath } from '../sys/os-path.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';
import { TAR_BLOCK_BYTES, paddingOf } from '../tar/header.ts';
import { debugfsCommands, type Ext4Layout } from './ext4.ts';
import {
  type GuestFile,
  guestEntry,
  type DiskFormat,
  diskFormats,
  type DiskIdentity,
  type ErofsCompression,
  fit,
} from './format.ts';
import {
  besideTool,
  type DiskTool,
  lastLine,
  OUTPUT_FILE,
  runTool,
  SCRIPT_FILE,
  type ToolResult,
  WORK_DIRECTORY,
} from './tools.ts';
import { WideDirectories } from './wide-directories.ts';

const { EFBIG, ENOSPC } = constants.errno;

/**
 * Limit on the bytes of all files together, holes included: the tools read holes as zeros, which takes too
 * long.
 */
const MAX_CONTENT_BYTES = 2 ** 40;
const BATCH_CHARACTERS = 256 * 1024;
/** Measured with mke2fs 1.47.2 on a machine of 2024: 20,000 names in one directory take 34 seconds. */
const SECONDS_PER_PAIR = 8.5e-8;

/** A tool and the file that it writes. */
export interface DiskTarget {
  readonly format: DiskFormat;
  readonly tool: DiskTool;
  /** The file in messages. */
  readonly name: string;
  /** The empty file, open for writing. */
  readonly descriptor: number;
  /** Size of an ext4 in bytes; default: computed from its content. */
  readonly size?: number | undefined;
  /** Compression of an EROFS. */
  readonly compression?: ErofsCompression | undefined;
  /** The directory of the file; a tool may write temporary files there. */
  readonly directory: OpenDirectory;
  readonly signal: AbortSignal;
}

export interface DiskRequest extends DiskTarget {
  readonly identity: DiskIdentity;
  /** Files for the guest; directories before their content. */
  readonly guestFiles: readonly GuestFile[];
  /** Called before work that takes long, with a message about it. */
  readonly notice: (message: string) => void;
  /** Called about once per second with the number of entries that the tool has taken, and of all. */
  readonly onEntries: (entries: number, total: number) => void;
  /** Makes a new, empty temporary file, open for reading and writing. */
  readonly temporaryFile: () => Promise<FileHandle>;
}

/**
 * Checks, before anything is fetched, that the tool can read tars.
 *
 * @throws DestinationError
 */
export async function checkDiskTool(request: DiskTarget): Promise<void> {
  const { format, tool, descriptor, signal, name } = request;
  const { trial, environment: variables } = diskFormats[format];
  if (!trial) return;
  const environment = variables(0);
  const result = await runTool(tool, trial.arguments(OUTPUT_FILE), {
    input: emptyTar(),
    files: [descriptor],
    environment,
    signal,
  });
  if (result.exitCode !== 0 && result.output.includes(trial.library)) {
    throw new DestinationError(
      `cannot write ${format}: ${tool.program} cannot read a tar: ${lastLine(result.output, tool, name)}`,
      { code: 'TOOL_MISSING', hint: trial.hint },
    );
  }
  if (result.exitCode !== 0) throw failed(tool, result, request);
  ftruncateSync(descriptor, 0);
}

async function* emptyTar(): AsyncGenerator<Buffer, void, void> {
  yield Buffer.alloc(2 * TAR_BLOCK_BYTES);
}

/**
 * Runs the tool of a format to write a tree as a file system. The same tree and identity give the same bytes.
 *
 * @returns the metadata that the file system could not restore
 * @throws DestinationError, and errors of the tree's layers
 */
export async function writeDiskImage(tree: ImageTree, request: DiskRequest): Promise<NotRestored> {
  const { format, tool, descriptor, identity, signal } = request;
  const description = diskFormats[format];
  const { tar, rootInTar, takesOnly } = description;
  const { layout, total } = await measureTree(tree, request);
  const sayLong = (path: BytePath, names: number): void => {
    const seconds = Math.round(SECONDS_PER_PAIR * names ** 2);
    const why = `mke2fs searches ${displayPath(path)} for each of its ${names} directories`;
    request.notice(`${printable(request.name)} takes about ${seconds} seconds more: ${why}`);
  };
  const wide = format === 'ext4' ? WideDirectories.of(tree, request.guestFiles, sayLong) : undefined;
  const lost = { ...tree.counts };
  const count = countEverySecond((taken) => request.onEntries(taken, total));
  function* entries(): Generator<ImageTreeEntry, void, void> {
    // The root comes first and has the same name in all images. Tools recognize a tar by the start of their
    // input.
    for (const entry of tree.walk(true)) {
      if (entry.path !== '') count();
      const fitted = fit(format, entry, lost).entry;
      if (entry.path !== '' || rootInTar) yield placed(fitted, wide);
      else lost.xattrs += fitted.xattrs?.size ?? 0;
      if (entry.path !== '') continue;
      for (const path of wide?.directories() ?? [])
        yield guestEntry({ path, mode: 0o700, content: undefined }, identity);
    }
  }
  const more = request.guestFiles.map((guestFile) => guestBlocks(guestFile, identity, tar.names));
  const root = rootOf(tree, format);
  const words = description.arguments({
    file: OUTPUT_FILE,
    identity,
    root,
    layout,
    compression: request.compression,
  });
  const result = await runTool(tool, words, {
    input: flattenedTree(tree, entries(), tar, more),
    files: [descriptor, request.directory.descriptor],
    environment: { ...temporaryFiles(request), ...description.environment(identity.madeAt) },
    signal,
  });
  if (result.exitCode !== 0 || leavesOut(result)) throw failed(tool, result, request, layout);
  if (wide) await giveIndexes(request);
  if (takesOnly) await setTheRest(tree, lost, wide, request);
  return lost;
}

function guestBlocks(guestFile: GuestFile, identity: DiskIdentity, names: NameRecords): Buffer {
  const { blocks, dataSize } = entryBlocks(guestEntry(guestFile, identity), undefined, names);
  return Buffer.concat([blocks, Buffer.from(guestFile.content ?? ''), Buffer.alloc(paddingOf(dataSize))]);
}

/**
 * True if sqfstar omitted a file, which its exit code does not tell. Messages about names that are not UTF-8
 * do not mean that.
 */
function leavesOut({ output }: ToolResult): boolean {
  return output.split('\n').some((line) => /, ignoring!?$/.test(line) && !line.includes('"hdrcharset"'));
}

/** Returns a function that counts its calls, and passes their number on about once per second. */
function countEverySecond(pass: (count: number) => void): () => void {
  let count = 0;
  let last = performance.now();
  return () => {
    count += 1;
    const now = performance.now();
    if (now - last < 1000) return;
    last = now;
    pass(count);
  };
}

/**
 * Adds up the size of the tree, and counts its entries.
 *
 * @throws DestinationError if the tool or the format cannot take the tree, or the disk has no room
 */
async function measureTree(
  tree: ImageTree,
  request: DiskRequest,
): Promise<{ readonly layout: Ext4Layout | undefined; readonly total: number }> {
  const { format, size, name, guestFiles, identity } = request;
  const usage = diskFormats[format].usage?.();
  let bytes = 0;
  let total = 0;
  for (const entry of tree) {
    total += 1;
    usage?.add(entry);
    if (entry.linkTo === undefined) bytes += entry.size;
    if (bytes > MAX_CONTENT_BYTES) {
      throw new DestinationError(
        `cannot write ${printable(name)}: its files take more than 1 TiB with their holes`,
        {
          code: 'EFBIG',
          hint: 'use -o FILE.tar, or -d for a directory',
        },
      );
    }
  }
  for (const guestFile of guestFiles) {
    const entry = guestEntry(guestFile, identity);
    usage?.add(entry);
  }
  await checkSpace(bytes, request);
  return { layout: usage?.layout(size), total };
}

/** Returns the entry at the path that mke2fs gets. */
function placed(entry: ImageTreeEntry, wide: WideDirectories | undefined): ImageTreeEntry {
  if (!wide) return entry;
  const { path, type, linkTo } = entry;
  return { ...entry, path: wide.placeOf(path, type), linkTo: linkTo && wide.placeOf(linkTo, type) };
}

/** Gives directories of several blocks an index, by e2fsck(8). */
async function giveIndexes(request: DiskRequest): Promise<void> {
  const { format, tool, descriptor, identity, signal } = request;
  const e2fsck = besideTool(tool, 'e2fsck');
  const environment = diskFormats[format].environment(identity.madeAt);
  const result = await runTool(e2fsck, ['-fyD', OUTPUT_FILE], { files: [descriptor], environment, signal });
  // 1: it changed something.
  if (result.exitCode !== 0 && result.exitCode !== 1) throw failed(e2fsck, result, request);
}

/** Sets the attributes and times that the tool does not take from a tar, by debugfs(8). */
async function setTheRest(
  tree: ImageTree,
  lost: NotRestored,
  wide: WideDirectories | undefined,
  request: DiskRequest,
): Promise<void> {
  const { format, tool, descriptor, directory, identity, signal } = request;
  const debugfs = besideTool(tool, 'debugfs');
  function* commands(): Generator<string, void, void> {
    for (const entry of tree.walk(true)) {
      const fitted = fit(format, entry);
      yield* debugfsCommands({ ...fitted, entry: placed(fitted.entry, wide) }, lost);
    }
    if (wide) yield* wide.commands(tree);
  }
  const script = await request.temporaryFile();
  let result: ToolResult;
  try {
    await writeFile(script, inBatches(commands()), 'latin1').catch((error: unknown) => {
      throw unwritable(request.name, error);
    });
    if ((await script.stat()).size === 0) return;
    const words = ['-w', '-f', SCRIPT_FILE, OUTPUT_FILE];
    const environment = diskFormats[format].environment(identity.madeAt);
    result = await runTool(debugfs, words, {
      files: [descriptor, directory.descriptor, script.fd],
      environment,
      signal,
    });
  } finally {
    await script.close();
  }
  const messages = result.output.split('\n').filter((line) => line !== '' && !/^debugfs \d/.test(line));
  // ext4 has room for 4 KiB of attributes per file.
  const refused = messages.filter((line) => /^ea_set: .* while setting extended attribute/.test(line));
  lost.xattrs += refused.length;
  if (result.endedBy !== undefined || refused.length < messages.length)
    throw failed(
      debugfs,
      { ...result, output: messages.filter((line) => !refused.includes(line)).join('\n') },
      request,
    );
}

/** Joins lines into larger texts. */
function* inBatches(lines: Iterable<string>): Generator<string, void, void> {
  let batch = '';
  for (const line of lines) {
    batch += line;
    if (batch.length < BATCH_CHARACTERS) continue;
    yield batch;
    batch = '';
  }
  yield batch;
}

/**
 * Checks the free space for a tool that copies the files.
 *
 * @throws DestinationError
 */
async function checkSpace(bytes: number, { format, directory, name }: DiskTarget): Promise<void> {
  if (!diskFormats[format].copiesFiles) return;
  const { bavail, bsize } = await statfs(osPath(directory.self));
  if (2 * bytes > bavail * bsize) throw unwritable(name, new SyscallError(ENOSPC, 'write'));
}

function temporaryFiles({ directory }: DiskTarget): Record<string, string> {
  // Without /proc only its path can name it.
  const name = directory.isNamedByDescriptor ? WORK_DIRECTORY : directory.path;
  return name.isWellFormed() ? { TMPDIR: name } : {};
}

function rootOf(tree: ImageTree, format: DiskFormat): ImageTreeEntry {
  for (const root of tree.walk(true)) return fit(format, root).entry;
  throw new Error('a tree has a root');
}

/** Returns the error for a tool that failed. */
function failed(
  tool: DiskTool,
  result: ToolResult,
  { name, size }: DiskTarget,
  layout?: Ext4Layout,
): unknown {
  const { endedBy, output } = result;
  if (/No space left on device/i.test(output)) return unwritable(name, new SyscallError(ENOSPC, 'write'));
  if (endedBy === 'SIGXFSZ') return unwritable(name, new SyscallError(EFBIG, 'write'));
  const shown = printable(name);
  if (
    layout &&
    /could not allocate|no free space|not enough space|too (?:small|big)|invalid blocks/i.test(output)
  ) {
    const given = formatMebibytes(size ?? layout.bytes);
    return new DestinationError(`cannot write ${shown}: the image does not fit into ${given}`, {
      code: 'TOO_SMALL',
      hint: size === undefined ? 'give a size: --size 10G' : 'give a larger --size, or leave it out',
    });
  }
  const reason =
    endedBy === undefined
      ? `${tool.program}: ${lastLine(output, tool, name)}`
      : `${tool.program} was ended by ${endedBy}`;
  return new DestinationError(`cannot write ${shown}: ${reason}`, {
    code: 'TOOL_FAILED',
    hint:
      size === undefined
        ? 'use -o FILE.tar, or another format'
        : 'try a smaller --size, leave it out, or use -o FILE.tar',
  });
}

function formatMebibytes(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20)} MiB`;
}
