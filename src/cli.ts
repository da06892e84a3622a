import { fstatSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { answersVersion, shortUsage } from './quick-answer.ts';
import { type TooLow, tooLowLimit } from './process-limits.ts';
import { ownProcess } from './sys/native.ts';
import type { CliContext } from './command-line/context.ts';
import { describeFailure, type FailureOutput } from './command-line/failure.ts';
import { DestinationError, ExitCode, InterruptedError } from './errors.ts';
import { exactArguments } from './sys/os-path.ts';
import { explainOsError } from './sys/os-error.ts';
import { isInUserNamespace } from './sys/privileges.ts';
import { Secrets } from './sys/secrets.ts';

/**
 * Signals that end a run, in the order in which their handlers are set. SIGHUP is last: Node does not catch
 * it itself, so its handler shows that all are set.
 */
const endingSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Milliseconds in which a run may remove its stage after an uncaught error. */
const GRACE_MILLISECONDS = 10_000;

/** Results of checks that ran before this script was loaded. */
export interface Start {
  readonly low: TooLow | undefined;
  /** The error if no thread could be started. */
  readonly failure: unknown;
}

/**
 * Runs the program: parses the process's arguments, runs one command, and ends the process with its exit
 * code.
 *
 * @param start the results of the first script of the single executable
 */
export async function main(start?: Start): Promise<void> {
  const argv = process.argv.slice(2);
  if (answersVersion(argv)) return;
  ownProcess();
  const abort = new AbortController();
  const secrets = new Secrets();
  const failureOf = (error: unknown): FailureOutput =>
    describeFailure(secrets.maskError(error), wantsJsonLines(argv));
  for (const signal of endingSignals) {
    process.on(signal, () => {
      if (!abort.signal.aborted) return abort.abort(new InterruptedError(signal));
      const { text, exitCode } = failureOf(new InterruptedError(signal, true));
      process.stderr.write(text);
      process.exit(exitCode);
    });
  }
  if (isInUserNamespace(process.env)) followOutside(abort.signal);
  // Without a listener Node opens a debugger, which any local user can reach; the binary also runs with
  // --disable-sigusr1.
  process.on('SIGUSR1', () => undefined);
  process.on('uncaughtException', (error) => {
    abort.abort(error);
    const end = (): never => {
      const { text, exitCode } = failureOf(abort.signal.reason);
      process.stderr.write(text);
      process.exit(exitCode);
    };
    setTimeout(end, GRACE_MILLISECONDS);
  });
  // Node ends with 0 when nothing is left to wait for, even if the run waits for something that cannot come.
  process.on('beforeExit', () => {
    process.stderr.write(failureOf(new Error('nothing is left to wait for')).text);
    process.exit(ExitCode.bug);
  });
  process.stdout.on('error', (error: NodeJS.ErrnoException) => abort.abort(outputFailure(error)));
  process.stderr.on('error', () => undefined);
  let exitCode: number = ExitCode.done;
  try {
    if (start?.failure !== undefined) throw start.failure;
    exitCode = await run(argv, { signal: abort.signal, secrets }, start);
    await drained(process.stdout, abort.signal);
    abort.signal.throwIfAborted();
  } catch (error) {
    const described = failureOf(abort.signal.aborted ? abort.signal.reason : error);
    process.stderr.write(described.text);
    exitCode = described.exitCode;
  }
  await Promise.all([drained(process.stdout, abort.signal), drained(process.stderr, abort.signal)]);
  process.exit(exitCode);
}

/**
 * Delay in milliseconds: a signal of the terminal reaches both runs of --userns at about the same time, and a
 * second one would end a run at once.
 */
const TOLD_LATE = 100;

/** Ends this run, in the user namespace of --userns, when the run outside gets a signal or ends. */
function followOutside(signal: AbortSignal): void {
  const end = (name: string): void => {
    setTimeout(() => {
      if (!signal.aborted) process.kill(process.pid, name);
    }, TOLD_LATE);
  };
  process.on('message', (told) => {
    const name = endingSignals.find((each) => each === told);
    if (name !== undefined) end(name);
  });
  process.on('disconnect', () => end('SIGTERM'));
  process.channel?.unref();
}

async function run(
  argv: readonly string[],
  shared: Pick<CliContext, 'signal' | 'secrets'>,
  start?: Start,
): Promise<number> {
  if (argv.length === 0) {
    process.stderr.write(shortUsage);
    return ExitCode.done;
  }
  const low = start ? start.low : tooLowLimit();
  if (low) throw new DestinationError(`cannot run: ${low.what}`, { code: 'LIMIT', hint: low.hint });
  const { runCommand } = await import('./command-line/execute.ts');
  return await runCommand(exactArguments(argv), {
    environment: process.env,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    isSharedOutput,
    workingDirectoryExists,
    ...shared,
  });
}

/** True for `--progress json`. The arguments are not parsed, since that may fail. */
function wantsJsonLines(argv: readonly string[]): boolean {
  return /(?:^|\0)--?progress[=\0]json(?:\0|$)/.test(argv.join('\0'));
}

/** True if standard output and standard error are the same file, pipe or terminal. */
function isSharedOutput(): boolean {
  const [out, error] = [1, 2].map((descriptor) => fstatSync(descriptor));
  return out!.dev === error!.dev && out!.ino === error!.ino;
}

function workingDirectoryExists(): boolean {
  try {
    process.cwd();
    return true;
  } catch {
    return false;
  }
}

/**
 * Returns the error for a failed write to standard output. A reader that is gone (`| head`) ends the run as
 * SIGPIPE would; other errors are those of its disk.
 */
function outputFailure(error: NodeJS.ErrnoException): unknown {
  if (error.code === 'EPIPE') return new InterruptedError('SIGPIPE');
  return explainOsError(error, 'write standard output', 'redirect it to another file');
}

/**
 * Waits until everything is written, or the run is to end, since a reader may be stuck. A write error is
 * reported one turn later.
 */
async function drained(stream: NodeJS.WriteStream, signal: AbortSignal): Promise<void> {
  if (!stream.destroyed && stream.writableLength > 0 && !signal.aborted) {
    await new Promise<void>((resolve) => {
      stream.write('', () => resolve());
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }
  await setImmediate();
}
