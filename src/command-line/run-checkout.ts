import { checkout } from '../git/checkout.ts';
import { openWorkTree } from '../rootfs/work-tree.ts';
import type { Invocation } from './parse.ts';
import type { Surroundings } from './run.ts';

/** `dlrootfs checkout BRANCH [-d DIR]`: the rootfs of that layer, exactly, in place. */
export async function runCheckout(invocation: Invocation, surroundings: Surroundings): Promise<number> {
  const { values, words } = invocation;
  const { environment, signal, stdout } = surroundings;
  const force = values['force'] === true;
  const branch = await checkout(String(values['dest']), words[0]!, {
    environment,
    signal,
    force,
    openWorkTree,
  });
  stdout.write(`${branch}\n`);
  return 0;
}
