import { printable } from './errors.ts';
import type { Image } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import { prepareRootfs } from './runtime/prepare.ts';
import { checkRuntimeConfigs, writeRuntimeConfigs } from './runtime/write.ts';

/** To be asked before the pull: throws UsageError or DestinationError where no configuration can be written. */
export function checkPlaces({ runtimes, destination, force }: PullOptions): void {
  if (runtimes.length > 0) checkRuntimeConfigs(runtimes, destination, force);
}

/** What was asked for beside the rootfs itself, or put into it. */
export async function furnish(image: Image, options: PullOptions): Promise<void> {
  const { destination, report, runtimes, force, rootless, git } = options;
  if (options.prepare) {
    const made = prepareRootfs(destination);
    const inGit = git ? ': no layer has them, so git shows files among them as changes of yours' : '';
    if (made.length > 0)
      report({ type: 'notice', message: `prepared ${printable(made.join(', '))}${inGit}` });
  }
  if (runtimes.length === 0) return;
  const ids = rootless ? { uid: options.uid, gid: options.gid } : undefined;
  const written = await writeRuntimeConfigs(runtimes, {
    destination,
    image: image.config,
    force,
    rootless: ids,
    hidden: git ? ['/.git'] : [],
  });
  for (const message of written.notices) report({ type: 'notice', message: printable(message) });
  for (const [index, file] of written.files.entries()) {
    report({ type: 'runtime-config', file, command: written.next[index]! });
  }
}
