import { setImmediate } from 'node:timers/promises';
import { describeFailure } from './command-line/failure.ts';
import { originalUsage } from './command-line/usage.ts';
import type { DlrootfsError } from './errors.ts';
import { DestinationError, InterruptedError, printable } from './errors.ts';
import { exactArguments } from './sys/argv.ts';
import { answersVersion } from './answer-version.ts';

const endingSignals = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

/** The program: reads the process's arguments, runs one command, ends the process with its exit code. */
export async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  if (answersVersion(argv)) return;
  const abort = new AbortController();
  for (const signal of endingSignals) {
    process.on(signal, () => {
      const interrupted = new InterruptedError(signal);
      if (abort.signal.aborted) process.exit(interrupted.exitCode);
      abort.abort(interrupted);
    });
  }
  let outputFailure: unknown;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    outputFailure ??= describeOutputFailure(error);
    abort.abort(outputFailure);
  });
  process.stderr.on('error', () => undefined);
  let exitCode: number;
  try {
    exitCode = await run(argv, abort.signal);
    await drained(process.stdout);
    if (outputFailure !== undefined) throw outputFailure;
  } catch (error) {
    const failure = describeFailure(
      abort.signal.aborted ? abort.signal.reason : error,
      asksForJsonLines(argv),
    );
    process.stderr.write(failure.text);
    exitCode = failure.exitCode;
  }
  await Promise.all([drained(process.stdout), drained(process.stderr)]);
  process.exit(exitCode);
}

async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  if (argv.length === 0) {
    process.stderr.write(originalUsage);
    return 0;
  }
  const { runCommand } = await import('./command-line/run.ts');
  return await runCommand(exactArguments(argv), {
    environment: process.env,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    signal,
  });
}

/** Asked before the arguments are understood, since that too may fail. */
function asksForJsonLines(argv: readonly string[]): boolean {
  return /(?:^|\0)--?progress[=\0]json(?:\0|$)/.test(argv.join('\0'));
}

/** A reader that went away (`| head`) ends the run as SIGPIPE would; other faults of stdout are those of the disk it goes to. */
function describeOutputFailure(error: NodeJS.ErrnoException): DlrootfsError {
  if (error.code === 'EPIPE') return new InterruptedError('SIGPIPE');
  return new DestinationError(`cannot write standard output: ${printable(error.message)}`, {
    hint: 'look at where it goes to: that disk may be full',
    cause: error,
  });
}

/** Until everything is written; a write that failed is told of a moment later. */
async function drained(stream: NodeJS.WriteStream): Promise<void> {
  if (!stream.destroyed && stream.writableLength > 0) {
    await new Promise<void>((resolve) => stream.write('', () => resolve()));
  }
  await setImmediate();
}
