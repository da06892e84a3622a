import { DestinationError, printable, seeKernelLog, systemError } from '../errors.ts';

const FULL: Readonly<Record<string, string>> = {
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'disk quota exceeded',
};
const ELSEWHERE = 'choose another directory with --cache-dir or -d';

/** Names the disk where a blob could not be written or read; what is no error of the system's stays as it is. */
export function diskError(error: unknown, where: string): unknown {
  if (!isSystemError(error)) return error;
  const { code, text } = systemError(error.errno);
  const reason = FULL[code] ?? (code === 'EIO' ? `the disk fails: ${text}` : text);
  const hint =
    code in FULL
      ? 'free some space there'
      : code === 'EIO'
        ? `${seeKernelLog}, or ${ELSEWHERE}`
        : code === 'EMFILE'
          ? 'raise the limit of open files (ulimit -n)'
          : ELSEWHERE;
  return new DestinationError(`cannot keep blobs in ${printable(where)}: ${reason}`, {
    code,
    hint,
    cause: error,
  });
}

export function isSystemError(error: unknown): error is Error & { errno: number } {
  return error instanceof Error && 'syscall' in error && 'errno' in error && typeof error.errno === 'number';
}
