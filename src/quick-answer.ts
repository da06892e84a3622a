import { writeSync } from 'node:fs';
import { version } from './version.ts';

/**
 * The original's usage text, byte for byte: flag defaults as Go 1.3 printed them, and its misspelling
 * `dockefile`.
 */
const originalUsage = `\
Usage: dlrootfs <image_name>:[<image_tag>] [-d <rootfs_destination>] [-u <username>:<password>] [-g]

Examples:
  dlrootfs ubuntu  #if no tag, use latest
  dlrootfs ubuntu:precise -d ubuntu_rootfs
  dlrootfs dockefile/elasticsearch:latest
  dlrootfs my_repo/my_image:latest -u username:password
  dlrootfs version
Default:
  -d="./rootfs": destination of the resulting rootfs directory
  -g=false: use git layering
  -u="": docker hub credentials: <username>:<password>
`;

/** The output of `dlrootfs` alone: the original's usage, and the flag for today's help. */
export const shortUsage = `${originalUsage}All flags and commands: dlrootfs --help\n`;

/**
 * Answers `version` before the program is loaded and its streams and signals are set up, which takes longer
 * than the answer. Returns false for other words, or if the answer could not be written.
 */
export function answersVersion(words: readonly string[]): boolean {
  if (words.length !== 1 || words[0] !== 'version') return false;
  try {
    writeSync(1, `${version}\n`);
    return true;
  } catch {
    return false;
  }
}
