import { DestinationError, DlrootfsError, ExitCode, IntegrityError } from '../errors.ts';
import type { NotRestored } from './not-restored.ts';
import type { RunOptions } from './run.ts';

/** Which of the two back ends writes: libc's calls, or Node's. */
export type Backend = 'libc' | 'node';

export interface RootfsOptions extends Omit<RunOptions, 'name'> {
  /** Its name in messages: DIR as the user gave it; left out: its path. */
  readonly name?: string | undefined;
  /** Left out: libc where it can be called, else Node. */
  readonly backend?: Backend | undefined;
  /** A ring for the contents of all files and symlinks of layers, for a ContentReader; `close` ends it. */
  readonly contents?: SharedArrayBuffer | undefined;
  /** `DEVICE:INODE` that the directory must have; left out: any. */
  readonly expected?: string | undefined;
}

/** The data for the start of the writing thread. */
export interface ThreadData {
  readonly ring: SharedArrayBuffer;
  /** The queue of FileJobs. */
  readonly jobs: SharedArrayBuffer;
  /** The memory of a TarDigest. */
  readonly digest: SharedArrayBuffer;
  /** The root, as bytes: an existing directory. */
  readonly path: Uint8Array;
  readonly options: RootfsOptions & RunOptions;
}

/** Commands to the thread, one at a time; it answers each. */
export type Command =
  | { readonly kind: 'open' }
  /** The bytes come through the ring. */
  | { readonly kind: 'layer'; readonly label: string }
  | { readonly kind: 'file'; readonly name: string; readonly bytes: Uint8Array }
  /** The last command of a successful run. */
  | { readonly kind: 'finish'; readonly root: RootMetadata | undefined }
  /** Remove all that is in the root, and nothing more after it. */
  | { readonly kind: 'empty' }
  /** Leave everything as it is, and nothing more after it. */
  | { readonly kind: 'close' };

/** What the root is given when no layer has an entry for it. */
export interface RootMetadata {
  readonly mode: number;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

export interface OpenedRoot {
  readonly backend: Backend;
  /** Device and inode of the root. */
  readonly identity: string;
}

/** The answer to each kind of command. */
export interface Answers {
  readonly open: OpenedRoot;
  /** Entries of the archive. */
  readonly layer: number;
  readonly file: boolean;
  readonly finish: NotRestored;
  readonly empty: null;
  readonly close: null;
}

export type Answer = { readonly value: Answers[Command['kind']] } | { readonly failure: SerializedError };

/** With `recordChanges`: changes of a layer, lines of `composeLine`, before its answer. */
export interface Notice {
  readonly changes: Uint8Array;
}

/** An error on its way between threads. */
export interface SerializedError {
  readonly message: string;
  readonly exitCode: number;
  readonly code: string;
  readonly hint: string | undefined;
  readonly stack: string | undefined;
}

export function serializeError(error: unknown): SerializedError {
  if (error instanceof DlrootfsError) {
    const { message, exitCode, code, hint, stack } = error;
    return { message, exitCode, code, hint, stack };
  }
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { message, exitCode: ExitCode.bug, code: 'BUG', hint: undefined, stack };
}

export function deserializeError(failure: SerializedError): Error {
  const { message, code, hint, stack } = failure;
  if (failure.exitCode === ExitCode.integrity) return new IntegrityError(message, { code, hint });
  if (failure.exitCode === ExitCode.destination) return new DestinationError(message, { code, hint });
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}
