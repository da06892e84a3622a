import { geteuid } from 'node:process';
import { checkout } from '../index.ts';
import { describeNotRestored } from '../rootfs/not-restored.ts';
import type { Invocation } from './program.ts';
import type { CliContext } from './execute.ts';

/** `dlrootfs checkout BRANCH [-d DIR]`: the rootfs of that layer, exactly, in place. */
export async function runCheckout(invocation: Invocation, context: CliContext): Promise<void> {
  const { values, words } = invocation;
  const { environment, signal, stdout, stderr } = context;
  const { branch, notRestored } = await checkout(values.dest!, words[0]!, {
    environment,
    signal,
    force: values.force === true,
  });
  const lost = describeNotRestored(notRestored, geteuid?.() === 0);
  if (lost !== undefined) stderr.write(`notice: ${lost}\n`);
  stdout.write(`${branch}\n`);
}
