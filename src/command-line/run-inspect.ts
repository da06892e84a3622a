import { inspect, listTags } from '../inspect.ts';
import { printable } from '../errors.ts';
import { resolveOptions } from '../options.ts';
import { inspectionText } from '../report/text.ts';
import { openErrorChannel } from './error-channel.ts';
import type { Invocation } from './parse.ts';
import { pullRequest } from './pull-request.ts';
import type { CliContext } from './run.ts';

/** `dlrootfs inspect IMAGE`, and a pull with `--dry-run`. */
export async function runInspect(invocation: Invocation, context: CliContext): Promise<number> {
  const { stdout } = context;
  const { report } = openErrorChannel(invocation, context, { linesOnStdout: false });
  const request = await pullRequest(invocation, context);
  const found = await inspect(resolveOptions({ ...request, report }));
  const text = () => inspectionText(found, stdout.isTTY === true ? stdout.columns : undefined);
  stdout.write(invocation.values['json'] === true ? `${JSON.stringify(found)}\n` : text());
  return 0;
}

/** `dlrootfs tags REPOSITORY`: one a line, or one JSON array. */
export async function runTags(invocation: Invocation, context: CliContext): Promise<number> {
  const { stdout } = context;
  const { report } = openErrorChannel(invocation, context, { linesOnStdout: false });
  const request = await pullRequest(invocation, context);
  const all: string[] = [];
  const json = invocation.values['json'] === true;
  await listTags(resolveOptions({ ...request, report }), (tag) => {
    if (json) all.push(tag);
    else stdout.write(`${printable(tag)}\n`);
  });
  if (json) stdout.write(`${JSON.stringify(all)}\n`);
  return 0;
}
