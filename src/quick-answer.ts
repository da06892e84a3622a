import { readFileSync, writeSync } from 'node:fs';
import { getuid } from 'node:process';
import { version } from './version.ts';

/** The original's usage text, byte for byte (its flag defaults as Go 1.3 printed them, `dockefile` as misspelt there). */
const originalUsage = `Usage: dlrootfs <image_name>:[<image_tag>] [-d <rootfs_destination>] [-u <username>:<password>] [-g]

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

/** What `dlrootfs` alone prints: the original's usage, and where today's help is. */
export const shortUsage = `${originalUsage}All flags and commands: dlrootfs --help\n`;

/**
 * Answers `version` before the program is loaded and its streams and signals are set up: that takes longer than the answer.
 * Returns false for other words, or if the answer could not be written.
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

/** A limit of getrlimit(2), under which Node itself aborts, with no error to catch. */
interface Limit {
  /** As /proc/self/limits has it. */
  readonly name: string;
  /** For messages. */
  readonly what: string;
  readonly least: number;
  /** Raises it. */
  readonly command: string;
  /** The system does not hold root to it. */
  readonly notForRoot?: true;
}

const LIMITS: readonly Limit[] = [
  { name: 'Max open files', what: 'open files is below 64', least: 64, command: 'ulimit -n 1024' },
  { name: 'Max stack size', what: 'the stack is below 1 MiB', least: 2 ** 20, command: 'ulimit -s 8192' },
  {
    name: 'Max address space',
    what: 'address space is below 4 GiB',
    least: 4 * 2 ** 30,
    command: 'ulimit -v unlimited',
  },
  // It counts threads, of which up to 14 run here.
  {
    name: 'Max processes',
    what: 'processes is below 16',
    least: 16,
    command: 'ulimit -u 1024',
    notForRoot: true,
  },
];

/** The first limit that is too low; undefined if none is, or if /proc is not mounted. */
export function tooLowLimit(): Limit | undefined {
  let limits = '';
  try {
    limits = readFileSync('/proc/self/limits', 'latin1');
  } catch {
    return undefined;
  }
  return LIMITS.find(({ name, least, notForRoot }) => {
    if (notForRoot && getuid?.() === 0) return false;
    const soft = new RegExp(`^${name} +(\\d+) `, 'm').exec(limits)?.[1];
    return soft !== undefined && Number(soft) < least;
  });
}
