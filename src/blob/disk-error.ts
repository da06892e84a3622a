import { printable } from '../errors.ts';
import { explainOsError } from '../sys/os-error.ts';

/** Names the disk where a blob could not be written or read; what is no error of the system's stays as it is. */
export function diskError(error: unknown, where: string): unknown {
  return explainOsError(
    error,
    `keep blobs in ${printable(where)}`,
    'choose another directory with --cache-dir or -d',
  );
}
