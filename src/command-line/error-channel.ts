import { jsonLinesReport } from '../report/json.ts';
import { fanOut } from '../report/event.ts';
import { messageReport } from '../report/text.ts';
import { plainReport } from '../report/progress.ts';
import type { LiveReport } from '../report/event.ts';
import { terminalReport } from '../report/bars.ts';
import type { Invocation } from './parse.ts';
import type { CliContext } from './run.ts';

/** How progress is shown on standard error. */
type Style = 'tty' | 'plain' | 'json' | 'none';

/** What standard error says of a running command: progress in the style that was asked for, notices, with -v what is done. */
export function openErrorChannel(
  invocation: Invocation,
  context: CliContext,
  { linesOnStdout }: { readonly linesOnStdout: boolean },
): LiveReport {
  const { values } = invocation;
  const { stdout, stderr } = context;
  const verbose = values['verbose'] === true;
  const style = progressStyle(String(values['progress']), values['quiet'] === true, context);
  if (style === 'json') return { report: jsonLinesReport(stderr, verbose), stop: () => undefined };
  const messages = messageReport(stderr, verbose);
  if (style === 'none') return { report: messages, stop: () => undefined };
  const live =
    style === 'tty' ? terminalReport(stderr, linesOnStdout && stdout.isTTY === true) : plainReport(stderr);
  return { report: fanOut([live.report, messages]), stop: live.stop };
}

function progressStyle(asked: string, quiet: boolean, { environment, stderr }: CliContext): Style {
  if (asked === 'tty' || asked === 'plain' || asked === 'json' || asked === 'none') return asked;
  if (quiet) return 'none';
  return stderr.isTTY === true && environment['TERM'] !== 'dumb' ? 'tty' : 'plain';
}
