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
import { BLOCK_SIZE, paddingOf } from '../tar/header.ts';
import { debugfsCommands, type Ext4Layout } from './ext4.ts';
import {
  type Addition,
  additionEntry,
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

/** Files with more bytes than these together, their holes included, would take too long: the tools read holes as zeros. */
const MOST_BYTES = 2 ** 40;
const BATCH_CHARACTERS = 256 * 1024;
/** mke2fs 1.47.2 on a machine of 2024: 20,000 names in one directory take it 34 seconds. */
const SECONDS_PER_PAIR = 8.5e-8;

/** The tool and its file. */
export interface DiskTarget {
  readonly format: DiskFormat;
  readonly tool: DiskTool;
  /** What messages call the file. */
  readonly name: string;
  /** The empty file, open for writing. */
  readonly descriptor: number;
  /** Of an ext4, in bytes; left out: by its content. */
  readonly size?: number | undefined;
  /** Of an erofs. */
  readonly compression?: ErofsCompression | undefined;
  /** The file is in it; a tool may have temporary files there. */
  readonly directory: OpenDirectory;
  readonly signal: AbortSignal;
}

export interface DiskRequest extends DiskTarget {
  readonly identity: DiskIdentity;
  /** Directories before what is in them. */
  readonly additions: readonly Addition[];
  /** Called with what takes long, before it begins. */
  readonly notice: (message: string) => void;
  /** A new empty file, open for reading and writing, that nobody else has. */
  readonly temporaryFile: () => Promise<FileHandle>;
}

/**
 * Finds out before anything is fetched whether the tool reads tars.
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
      `cannot write ${format}: ${tool.program} reads no tar here: ${lastLine(result.output, tool, name)}`,
      { code: 'TOOL_MISSING', hint: trial.hint },
    );
  }
  if (result.exitCode !== 0) throw failed(tool, result, request);
  ftruncateSync(descriptor, 0);
}

async function* emptyTar(): AsyncGenerator<Buffer, void, void> {
  yield Buffer.alloc(2 * BLOCK_SIZE);
}

/**
 * Writes a tree as a file system into a file, by the tool of its format. The same tree and identity give the same bytes.
 *
 * @returns where the file system differs from the image
 * @throws DestinationError, and what the tree's layers throw
 */
export async function writeDiskImage(tree: ImageTree, request: DiskRequest): Promise<NotRestored> {
  const { format, tool, descriptor, identity, signal } = request;
  const description = diskFormats[format];
  const { tar, rootInTar, takesOnly } = description;
  const layout = await measure(tree, request);
  const sayLong = (path: BytePath, names: number): void => {
    const seconds = Math.round(SECONDS_PER_PAIR * names ** 2);
    const why = `mke2fs searches ${displayPath(path)} for each of its ${names} directories`;
    request.notice(`${printable(request.name)} takes about ${seconds} seconds more: ${why}`);
  };
  const wide = format === 'ext4' ? WideDirectories.of(tree, request.additions, sayLong) : undefined;
  const lost = { ...tree.counts };
  function* entries(): Generator<ImageTreeEntry, void, void> {
    // The root comes first, and has the same name for each image: no tool takes what comes for another format than a tar.
    for (const entry of tree.walk(true)) {
      const fitted = fit(format, entry, lost).entry;
      if (entry.path !== '' || rootInTar) yield placed(fitted, wide);
      else lost.xattrs += fitted.xattrs?.size ?? 0;
      if (entry.path !== '') continue;
      for (const path of wide?.directories() ?? [])
        yield additionEntry({ path, mode: 0o700, content: undefined }, identity);
    }
  }
  const more = request.additions.map((addition) => additionBlocks(addition, identity, tar.names));
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

function additionBlocks(addition: Addition, identity: DiskIdentity, names: NameRecords): Buffer {
  const { blocks, dataSize } = entryBlocks(additionEntry(addition, identity), undefined, names);
  return Buffer.concat([blocks, Buffer.from(addition.content ?? ''), Buffer.alloc(paddingOf(dataSize))]);
}

/** sqfstar exits with 0 even if it has left out a file. Its messages about names that are not UTF-8 are about no file. */
function leavesOut({ output }: ToolResult): boolean {
  return output.split('\n').some((line) => /, ignoring!?$/.test(line) && !line.includes('"hdrcharset"'));
}

/** @throws DestinationError for what no tool, or the format, can take, or the disk has no room for */
async function measure(tree: ImageTree, request: DiskRequest): Promise<Ext4Layout | undefined> {
  const { format, size, name, additions, identity } = request;
  const usage = diskFormats[format].usage?.();
  let bytes = 0;
  for (const entry of tree) {
    usage?.add(entry);
    if (entry.linkTo === undefined) bytes += entry.size;
    if (bytes > MOST_BYTES) {
      throw new DestinationError(
        `cannot write ${printable(name)}: its files take more than 1 TiB with their holes`,
        {
          code: 'EFBIG',
          hint: 'use -o FILE.tar, or -d for a directory',
        },
      );
    }
  }
  for (const addition of additions) {
    const entry = additionEntry(addition, identity);
    usage?.add(entry);
  }
  await checkSpace(bytes, request);
  return usage?.layout(size);
}

/** An entry where mke2fs gets it. */
function placed(entry: ImageTreeEntry, wide: WideDirectories | undefined): ImageTreeEntry {
  if (!wide) return entry;
  const { path, type, linkTo } = entry;
  return { ...entry, path: wide.placeOf(path, type), linkTo: linkTo && wide.placeOf(linkTo, type) };
}

/** Gives directories of several blocks an index. */
async function giveIndexes(request: DiskRequest): Promise<void> {
  const { format, tool, descriptor, identity, signal } = request;
  const e2fsck = besideTool(tool, 'e2fsck');
  const environment = diskFormats[format].environment(identity.madeAt);
  const result = await runTool(e2fsck, ['-fyD', OUTPUT_FILE], { files: [descriptor], environment, signal });
  // 1: it has changed something.
  if (result.exitCode !== 0 && result.exitCode !== 1) throw failed(e2fsck, result, request);
}

/** Does by debugfs what the tool does not do with a tar. */
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
  // ext4 has room for 4 KiB of attributes of a file.
  const refused = messages.filter((line) => /^ea_set: .* while setting extended attribute/.test(line));
  lost.xattrs += refused.length;
  if (result.endedBy !== undefined || refused.length < messages.length)
    throw failed(
      debugfs,
      { ...result, output: messages.filter((line) => !refused.includes(line)).join('\n') },
      request,
    );
}

/** Texts of some size, to be written at once. */
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

/** Compares the free space with what a tool needs that copies the files. */
async function checkSpace(bytes: number, { format, directory, name }: DiskTarget): Promise<void> {
  if (!diskFormats[format].copiesFiles) return;
  const { bavail, bsize } = await statfs(osPath(directory.self));
  if (2 * bytes > bavail * bsize) throw unwritable(name, new SyscallError(ENOSPC, 'write'));
}

function temporaryFiles({ directory }: DiskTarget): Record<string, string> {
  // Without /proc its path is all there is.
  const name = directory.isNamedByDescriptor ? WORK_DIRECTORY : directory.path;
  return name.isWellFormed() ? { TMPDIR: name } : {};
}

function rootOf(tree: ImageTree, format: DiskFormat): ImageTreeEntry {
  for (const root of tree.walk(true)) return fit(format, root).entry;
  throw new Error('a tree has a root');
}

/** The error for a tool that did not do its work. */
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
