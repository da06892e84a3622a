import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process';
import type { Writable } from 'node:stream';

export interface BoundOptions {
  readonly environment: Readonly<Record<string, string>>;
  /** Of descriptors 0 to 8 at most. */
  readonly stdio: readonly ('pipe' | 'ignore' | number)[];
}

/**
 * Starts a program that ends with this process, also where this is ended by SIGKILL. A shell starts another one, which waits at a pipe
 * that only this process has open, and becomes the program. At the end of the pipe without a word the other one kills the program.
 * PR_SET_PDEATHSIG of prctl(2) would need code of ours in the child.
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
  // The other shell may have ended with its process group.
  life?.on('error', () => undefined);
  child.once('exit', () => life?.end('over\n'));
  return child;
}

/** `$$` is the process that becomes the program. The waiting one keeps no descriptor of it, so that its outputs end with it. */
function boundScript(pipe: number): string {
  const others = Array.from({ length: pipe - 3 }, (_, index) => ` ${index + 3}>&-`).join('');
  const wait = `(read -r word || kill -9 $$) <&${pipe} ${pipe}<&- >/dev/null 2>&1${others} &`;
  return `${wait} exec "$@" ${pipe}<&-`;
}
