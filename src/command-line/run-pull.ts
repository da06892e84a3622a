import { resolveOptions } from '../options.ts';
import { pull } from '../pull.ts';
import type { Report } from '../report/event.ts';
import { fanOut } from '../report/event.ts';
import { textReport } from '../report/text.ts';
import type { PullSummary } from '../summary.ts';
import { osPath } from '../sys/os-path.ts';
import { openErrorChannel } from './error-channel.ts';
import type { Invocation } from './parse.ts';
import { pullRequest } from './pull-request.ts';
import type { CliContext } from './run.ts';

/** `dlrootfs IMAGE …`: flags → request → pull, with the reporters that the flags ask for. */
export async function runPull(invocation: Invocation, context: CliContext): Promise<number> {
  const { values } = invocation;
  if (values['dryRun'] === true) {
    return await (await import('./run-inspect.ts')).runInspect(invocation, context);
  }
  if (values['output'] !== undefined) {
    return await (await import('./run-export.ts')).runExport(invocation, context);
  }
  const { stdout } = context;
  const request = await pullRequest(invocation, context);
  const quiet = values['quiet'] === true;
  const json = values['json'] === true;
  const channel = openErrorChannel(invocation, context, { linesOnStdout: !quiet && !json });
  const lines: readonly Report[] = quiet || json ? [] : [textReport(stdout)];
  let summary: PullSummary;
  try {
    summary = await pull(resolveOptions({ ...request, report: fanOut([channel.report, ...lines]) }));
  } finally {
    channel.stop();
  }
  if (json) stdout.write(`${JSON.stringify(summary)}\n`);
  else if (quiet) stdout.write(osPath(`${summary.destination}\n`));
  else if (Boolean(values['user']) || Boolean(values['registryToken'])) {
    stdout.write("WARNING: don't forget to remove your docker hub credentials from your history !!\n");
  }
  return 0;
}
