import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process';
import type { Writable } from 'node:stream';

export interface BoundOptions {
  readonly environment: Readonly<Record<string, string>>;
  /** Descriptors from 0 on, at most nine. */
  readonly stdio: readonly ('pipe' | 'ignore' | number)[];
}

/**
 * Starts a program that ends with this process, even after SIGKILL. A shell starts another one, and becomes
 * the program. The other shell waits at a pipe that only this process has open. If the pipe ends without a
 * word, it kills the program. PR_SET_PDEATHSIG of prctl(2) would need native code in the child.
 *
 * @param binary an absolute path
 */
export function spawnBound(
  binary: string,
  words: readonly string[],
  { environment, stdio }: BoundOptions,
): ChildProcess {
  const pipe = stdio.length;
  const child = spawn('/bin/sh', ['-c', boundScript(pipe), 'sh', binary, ...words], {
    env: environment,
    stdio: [...stdio, 'pipe'] as StdioOptions,
  });
  const life = child.stdio[pipe] as Writable | null | undefined;
  // The waiting shell may have ended with its process group.
  life?.on('error', () => undefined);
  child.once('exit', () => life?.end('over\n'));
  return child;
}

/**
 * `$$` is the process that becomes the program. The waiting shell closes the program's descriptors, so that
 * its outputs end with it.
 */
function boundScript(pipe: number): string {
  const others = Array.from({ length: pipe - 3 }, (_, index) => ` ${index + 3}>&-`).join('');
  const wait = `(read -r word || kill -9 $$) <&${pipe} ${pipe}<&- >/dev/null 2>&1${others} &`;
  return `${wait} exec "$@" ${pipe}<&-`;
}
