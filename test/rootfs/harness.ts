import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, realpathSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { readerOf } from '../../src/blob/decode/byte-reader.ts';
import type { Decoder } from '../../src/blob/decode/decoder.ts';
import { applyLayer, startRun } from '../../src/rootfs/apply.ts';
import { type TreeChange, ChangeLog, readChanges } from '../../src/rootfs/changes.ts';
import { ContentWriter } from '../../src/rootfs/contents.ts';
import type { DiskFilesystem, Filesystem } from '../../src/rootfs/filesystem.ts';
import { finishRun, type RootMetadata } from '../../src/rootfs/directory-metadata.ts';
import { systemCalls } from '../../src/sys/system-calls.ts';
import { LinuxFilesystem } from '../../src/rootfs/linux.ts';
import { PortableFilesystem } from '../../src/rootfs/portable.ts';
import type { NotRestored } from '../../src/rootfs/not-restored.ts';
import { createRing } from '../../src/sys/ring.ts';
import { Rootfs, type RootfsOptions } from '../../src/rootfs/rootfs.ts';
import type { RunOptions } from '../../src/rootfs/run.ts';
import { MemoryFilesystem } from '../../src/rootfs/memory.ts';
import type { ByteSource, EntryReader } from '../../src/tar/entry.ts';
import { storedSize } from '../../src/tar/sparse.ts';
import { printMemory } from './print-memory.ts';
import { TarReader } from '../../src/tar/reader.ts';
import { printTree, type TreeOptions } from '../support/tree.ts';

/** `node-paths` is Node's back end as on macOS. */
export const diskBackends = ['libc', 'node', 'node-paths'] as const;
export const backends = [...diskBackends, 'memory'] as const;
export type DiskBackend = (typeof diskBackends)[number];
export type TestedBackend = (typeof backends)[number];
export const isRoot = process.geteuid!() === 0;

/** Makes a directory that is removed after the test with all that is in it. */
export function temporaryDirectory(t: TestContext): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'dlrootfs-test-')));
  t.after(() => removeTree(directory));
  return directory;
}

/** Removes a directory with all that is in it, also if its modes forbid that. */
export function removeTree(directory: string): void {
  if (!isRoot) spawnSync('chmod', ['-R', 'u+rwx', directory], { stdio: 'ignore' });
  rmSync(directory, { recursive: true, force: true });
}

/**
 * Mounts a file system at a new directory until the test ends; undefined if that is not possible. `words` are
 * mount's arguments. The space in the directory's name is escaped in /proc/self/mountinfo.
 */
export function mounted(t: TestContext, ...words: readonly string[]): string | undefined {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'dlrootfs test ')));
  const done = isRoot && spawnSync('mount', [...words, directory]).status === 0;
  t.after(() => {
    if (done) spawnSync('umount', ['-l', directory]);
    rmSync(directory, { recursive: true, force: true });
  });
  return done ? directory : undefined;
}

/**
 * Opens a rootfs whose thread ends with the test, also if the test fails. Otherwise the test file would wait
 * for the thread.
 */
export async function openRootfs(
  path: string,
  options: RootfsOptions,
): Promise<AsyncDisposable & { readonly rootfs: Rootfs }> {
  const rootfs = await Rootfs.open(path, options);
  return { rootfs, [Symbol.asyncDispose]: () => rootfs.discard() };
}

/** Returns the paths of files below `directory` that this process has open, without directories. */
export function openBelow(directory: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((name) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${name}`);
      return path.startsWith(`${directory}/`) && !statSync(`/proc/self/fd/${name}`).isDirectory()
        ? [path]
        : [];
    } catch {
      return [];
    }
  });
}

/** Yields `bytes` in pieces of at most `size`. */
export async function* chunks(bytes: Uint8Array, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}

/** Returns a function for `Rootfs.applyFrom`: it makes the decoder fill the ring with a blob in gzip. */
export function decoding(
  decoder: Decoder,
  blob: Uint8Array | AsyncIterable<Uint8Array>,
): () => Promise<void> {
  const bytes = blob instanceof Uint8Array ? chunks(blob) : blob;
  return async () => void (await decoder.decode('gzip', readerOf(bytes), undefined));
}

export interface BuildOptions<Backend = DiskBackend> extends Partial<RunOptions> {
  readonly backend?: Backend;
  readonly rootMetadata?: RootMetadata;
  /** Records changes, as for -g. */
  readonly recordChanges?: boolean;
}

export interface Built {
  readonly counts: NotRestored;
  readonly entries: readonly number[];
  /** The changes of each layer, if `recordChanges` is set. */
  readonly changes: readonly TreeChange[][];
}

/** Returns a source with all of its bytes. */
export function source(bytes: Uint8Array): ByteSource {
  let at = 0;
  return {
    read: (max) =>
      at === bytes.length ? undefined : bytes.subarray(at, (at = Math.min(bytes.length, at + max))),
  };
}

export function openFilesystem(directory: string, backend: DiskBackend): DiskFilesystem {
  const path = Buffer.from(directory);
  const filesystem =
    backend === 'libc'
      ? LinuxFilesystem.open(systemCalls()!, path)
      : PortableFilesystem.open(path, backend === 'node' ? '/proc/self/fd' : '/none');
  if (typeof filesystem === 'number') throw new Error(`cannot open ${directory}: ${filesystem}`);
  return filesystem;
}

/**
 * Applies layers to an existing directory, in this thread. After an error the directory is not changed back.
 */
export function build(directory: string, layers: readonly Uint8Array[], options: BuildOptions = {}): Built {
  const { backend = 'libc', ...others } = options;
  return buildOn(openFilesystem(directory, backend), layers, { name: directory, ...others });
}

/** Applies layers to a tree in memory, with the source of each file's content. */
export function buildInMemory(
  layers: readonly Uint8Array[],
  options: Omit<BuildOptions, 'backend'> = {},
): Built & { readonly filesystem: MemoryFilesystem } {
  const filesystem = new MemoryFilesystem();
  return { ...buildOn(filesystem, layers, { mode: 'stage', ...options }), filesystem };
}

function buildOn(
  filesystem: Filesystem,
  layers: readonly Uint8Array[],
  options: Omit<BuildOptions, 'backend'>,
): Built {
  const { rootMetadata, recordChanges = false, ...others } = options;
  let told: TreeChange[] = [];
  const log = recordChanges
    ? new ChangeLog(new ContentWriter(createRing()), (records) => told.push(...readChanges(records)))
    : undefined;
  const run = startRun(filesystem, { name: 'the tree', mode: 'empty', ...others }, log);
  try {
    const entries: number[] = [];
    const changes: TreeChange[][] = [];
    for (const [index, layer] of layers.entries()) {
      const label = `layer ${index}`;
      const reader = new TarReader(source(layer), label);
      entries.push(
        applyLayer(run, filesystem instanceof MemoryFilesystem ? noting(reader, filesystem) : reader, label),
      );
      log?.flush();
      changes.push(told);
      told = [];
    }
    finishRun(run, rootMetadata);
    return { counts: run.counts, entries, changes };
  } finally {
    run.directories.close();
    filesystem.close();
  }
}

/** Sets the source of a file's content before each entry, as the image's tree does. */
function noting(reader: EntryReader, filesystem: MemoryFilesystem): EntryReader {
  let ordinal = -1;
  return {
    data: () => reader.data(),
    next() {
      const entry = reader.next();
      ordinal += 1;
      if (entry) {
        const { size, sparse } = entry;
        filesystem.source = {
          layer: 0,
          ordinal,
          size,
          stored: storedSize(entry),
          sparse: sparse !== undefined,
          linkMode: 0o777,
        };
      }
      return entry;
    },
  };
}

/** Returns the printed tree that `layers` make in an empty directory or in memory. */
export function builtTree(
  t: TestContext,
  layers: readonly Uint8Array[],
  options: BuildOptions<TestedBackend> & TreeOptions = {},
): string {
  const { backend, ...others } = options;
  if (backend === 'memory') return printMemory(buildInMemory(layers, others).filesystem, options);
  const directory = temporaryDirectory(t);
  build(directory, layers, { ...others, ...(backend && { backend }) });
  return printTree(directory, options);
}
