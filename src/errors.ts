/** The details of a failure that a user can act on. Any other error is a bug. */
export interface ErrorDetails {
  /** Stable name for programs, upper case with underscores. */
  readonly code?: string;
  /** The next step of the user, one sentence without a full stop. */
  readonly hint?: string | undefined;
  /** The wait that a server asked for before the next request, in milliseconds. */
  readonly retryAfter?: number | undefined;
  readonly cause?: unknown;
}

/** Process exit codes, as the README lists them. */
export const ExitCode = {
  done: 0,
  bug: 1,
  usage: 2,
  notFound: 3,
  unauthorized: 4,
  network: 5,
  integrity: 6,
  destination: 7,
  rateLimit: 8,
  /** No failure: a comparison found differences. */
  different: 9,
} as const;

/** The defaults of a kind of error, which its thrower can replace. */
interface Defaults {
  readonly exitCode: number;
  readonly code: string;
  /** The hint for most failures of the kind; undefined if none helps. */
  readonly hint: string | undefined;
}

export abstract class DlrootfsError extends Error {
  /** Replaced by each subclass; these are the defaults of a bug. */
  protected static readonly defaults: Defaults = { exitCode: ExitCode.bug, code: 'BUG', hint: undefined };
  readonly exitCode: number;
  readonly code: string;
  readonly hint: string | undefined;
  /** See `ErrorDetails`. */
  readonly retryAfter: number | undefined;
  /** True if the same command, run again, resumes the download: the bytes of this run are in the cache. */
  kept = false;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { cause: details.cause });
    const { exitCode, code, hint } = new.target.defaults;
    this.name = new.target.name;
    this.exitCode = exitCode;
    this.code = details.code ?? code;
    this.hint = details.hint ?? hint;
    this.retryAfter = details.retryAfter;
  }

  /** Returns a copy of the error with another hint. */
  withHint(hint: string): this {
    const { hint: property, ...others } = Object.getOwnPropertyDescriptors(this);
    // V8's accessor of `stack` works only on the original error.
    const changed = { hint: { ...property, value: hint }, stack: { value: this.stack } };
    return Object.create(Object.getPrototypeOf(this) as object, { ...others, ...changed }) as this;
  }
}

const kind = (
  exitCode: keyof typeof ExitCode,
  code: string,
  { hint }: Required<Pick<ErrorDetails, 'hint'>>,
): Defaults => ({ exitCode: ExitCode[exitCode], code, hint });

/** The command line, the environment or an option of the library is invalid. */
export class UsageError extends DlrootfsError {
  protected static override readonly defaults = kind('usage', 'USAGE', {
    hint: 'dlrootfs --help shows what goes where',
  });
}

/** A hint with the ways by which no other user of the machine sees the password. */
export const LOG_IN =
  'use -u USER, which asks for the password, --password-stdin or DLROOTFS_CREDS, ' +
  'or log in with docker, podman or skopeo';

/** The image, tag, platform or blob does not exist, according to the registry. */
export class NotFoundError extends DlrootfsError {
  protected static override readonly defaults = kind('notFound', 'NOT_FOUND', {
    hint: 'check the spelling of image and tag; dlrootfs tags IMAGE lists the tags',
  });
  /** If the repository does not have the tag: the tag, and those that it has. */
  tags?: { readonly tag: string; readonly tags: readonly string[] };
}

/** The registry requires other credentials, or denies these. */
export class UnauthorizedError extends DlrootfsError {
  protected static override readonly defaults = kind('unauthorized', 'UNAUTHORIZED', {
    hint: LOG_IN,
  });
}

/** The registry cannot be reached, or its answer is not one of a registry. */
export class NetworkError extends DlrootfsError {
  protected static override readonly defaults = kind('network', 'NETWORK', {
    hint: 'check the address and the network; -v shows the requests',
  });
}

/** A failure after which a retry may succeed: a reset, a timeout, 408, a 5xx answer, a broken body. */
export class TransientError extends NetworkError {}

/** Bytes do not have their digest, or a manifest, config or layer is malformed. */
export class IntegrityError extends DlrootfsError {
  protected static override readonly defaults = kind('integrity', 'INTEGRITY', {
    hint: 'pull again; if it fails again, the image is corrupt: report it to its publisher',
  });
}

/** The image is not signed as the caller or the policy of this machine demands. */
export class UntrustedError extends DlrootfsError {
  protected static override readonly defaults = kind('integrity', 'UNTRUSTED', {
    hint: 'check the key or the identity with the publisher of the image; dlrootfs help trust',
  });
}

/** The hint where any other DIR would do. */
export const ANOTHER_DIRECTORY = 'choose another directory with -d';

/** DIR cannot be written or replaced, or its disk is full. */
export class DestinationError extends DlrootfsError {
  protected static override readonly defaults = kind('destination', 'DESTINATION', {
    hint: ANOTHER_DIRECTORY,
  });
}

/** git is missing or refused. */
export class GitError extends DlrootfsError {
  protected static override readonly defaults = kind('destination', 'GIT', {
    hint: `${ANOTHER_DIRECTORY}, or pull without -g`,
  });
}

/** The registry limits the number of requests, and this one exceeds it. */
export class RateLimitError extends DlrootfsError {
  protected static override readonly defaults = kind('rateLimit', 'RATE_LIMIT', {
    hint: 'log in for a larger quota, use a mirror (--mirror), or try again later',
  });
}

/** For `catch`: resolves to undefined after a NotFoundError. @throws any other error as it is */
export function undefinedIfNotFound(error: unknown): undefined {
  if (error instanceof NotFoundError) return undefined;
  throw error;
}

/** True if a retry may succeed: after a TransientError, or 429. */
export function isTransient(error: unknown): error is TransientError | RateLimitError {
  return error instanceof TransientError || error instanceof RateLimitError;
}

/** A signal that ended a run; SIGPIPE means that the reader of standard output is gone. */
export type EndingSignal = 'SIGHUP' | 'SIGINT' | 'SIGPIPE' | 'SIGTERM';

/** A signal ended the run; the exit code is 128 plus its number (129, 130, 141, 143). */
export class InterruptedError extends DlrootfsError {
  override readonly exitCode: number;
  readonly signal: EndingSignal;
  /** @param early the run ended before all its files were removed */
  constructor(signal: EndingSignal, early = false) {
    super(`interrupted by ${signal}${early ? ' before all was removed' : ''}`, {
      code: 'INTERRUPTED',
      hint: early ? 'run it again: that removes what this run left beside DIR or FILE' : undefined,
    });
    this.signal = signal;
    this.exitCode = 128 + { SIGHUP: 1, SIGINT: 2, SIGPIPE: 13, SIGTERM: 15 }[signal];
  }
}

/**
 * Makes text from outside (a server, an archive, a file name) safe for a terminal: control characters,
 * bidirectional overrides and broken surrogates become `\xNN` or `\u{NNNN}`. A text longer than `max`
 * characters is cut.
 */
export function printable(text: string, max = 400): string {
  const cut = text.length > max ? `${text.slice(0, max)}…` : text;
  return cut.replaceAll(
    // eslint-disable-next-line no-control-regex
    /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]/gu,
    (character) => {
      const point = character.codePointAt(0)!;
      // A byte that is not UTF-8: see sys/os-path.ts.
      if (point >= 0xdc80 && point <= 0xdcff) return `\\x${(point - 0xdc00).toString(16)}`;
      return point < 0x100 ? `\\x${point.toString(16).padStart(2, '0')}` : `\\u{${point.toString(16)}}`;
    },
  );
}
