import { DestinationError, UsageError } from '../errors.ts';
import { exportArchive } from '../export.ts';
import { resolveOptions } from '../options.ts';
import { fanOut } from '../report/event.ts';
import { textReport } from '../report/text.ts';
import { osPath } from '../sys/os-path.ts';
import { openErrorChannel } from './error-channel.ts';
import type { Invocation } from './parse.ts';
import { pullRequest } from './pull-request.ts';
import type { CliContext } from './run.ts';

/** Flags that are about a directory. */
const aboutDirectories = [
  'dest',
  'git',
  'no-json',
  'for',
  'force',
  'merge',
  'rootless',
  'prepare',
  'json',
] as const;

/** `dlrootfs IMAGE -o FILE`: one archive instead of a directory. */
export async function runExport(invocation: Invocation, context: CliContext): Promise<number> {
  const { values, given } = invocation;
  const { stdout } = context;
  const contradiction = aboutDirectories.find((name) => given.has(name));
  if (contradiction !== undefined)
    throw new UsageError(`--${contradiction} does not go with -o`, {
      hint: 'leave it out, or leave -o out for a directory',
    });
  const output = String(values['output']);
  if (output === '-' && stdout.isTTY === true) {
    throw new UsageError('standard output is a terminal, which is no place for an archive', {
      hint: 'use -o FILE.tar, or pipe it on',
    });
  }
  if (output === '-' && context.stdoutIsClosed()) {
    throw new DestinationError('cannot write the archive: standard output is closed', {
      hint: 'redirect it, as in > FILE.tar, or use -o FILE.tar',
    });
  }
  const quiet = values['quiet'] === true;
  const linesOnStdout = !quiet && output !== '-';
  const channel = openErrorChannel(invocation, context, { linesOnStdout });
  const report = fanOut([channel.report, ...(linesOnStdout ? [textReport(stdout)] : [])]);
  try {
    const request = await pullRequest(invocation, context);
    await exportArchive(resolveOptions({ ...request, report }), output, stdout);
  } finally {
    channel.stop();
  }
  if (quiet && output !== '-') stdout.write(osPath(`${output}\n`));
  return 0;
}
