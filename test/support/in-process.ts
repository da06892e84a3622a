import { PassThrough, Readable, type Writable } from 'node:stream';
import { describeFailure } from '../../src/command-line/failure.ts';
import { runCommand } from '../../src/command-line/execute.ts';
import { Secrets } from '../../src/sys/secrets.ts';
import type { ProgramResult } from './program.ts';

function collector(): { readonly stream: Writable; text(): string } {
  const stream = new PassThrough();
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return { stream, text: () => Buffer.concat(chunks).toString('utf8') };
}

/**
 * Runs a command line like `main`, without a new process, for tests with many runs. Paths in it must be
 * absolute.
 */
export async function runHere(
  argv: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<ProgramResult> {
  const stdout = collector();
  const stderr = collector();
  const secrets = new Secrets();
  let exitCode = 0;
  try {
    await runCommand(argv, {
      environment: { PATH: process.env['PATH'], HOME: '/nonexistent', ...environment },
      stdin: Readable.from([]),
      stdout: stdout.stream,
      stderr: stderr.stream,
      isSharedOutput: () => false,
      workingDirectoryExists: () => true,
      secrets,
      signal: new AbortController().signal,
    });
  } catch (error) {
    const failure = describeFailure(secrets.maskError(error));
    stderr.stream.write(failure.text);
    exitCode = failure.exitCode;
  }
  return { exitCode, stdout: stdout.text(), stderr: stderr.text() };
}
