import { readdirSync } from 'node:fs';
import { getuid } from 'node:process';
import { limitOfOpenFiles } from './sys/open-files.ts';
import { systemText } from './sys/privileges.ts';

// Limits under which Node itself aborts, with no error to catch.

/** The resource that the process lacks, and how to change that, both for a message. */
export interface TooLow {
  readonly what: string;
  readonly hint: string;
}

/** A limit of getrlimit(2), by its name in /proc/self/limits. */
interface Limit {
  readonly name: string;
  readonly what: string;
  readonly least: number;
  /** The command that raises it. */
  readonly command: string;
}

const LIMITS: readonly Limit[] = [
  {
    name: 'Max stack size',
    what: 'the limit of the stack is below 1 MiB',
    least: 2 ** 20,
    command: 'ulimit -s 8192',
  },
  {
    name: 'Max address space',
    what: 'the limit of address space is below 4 GiB',
    least: 4 * 2 ** 30,
    command: 'ulimit -v unlimited',
  },
  {
    // RLIMIT_DATA counts private writable memory, also where V8 only reserves it for threads.
    name: 'Max data size',
    what: 'the limit of data is below 3 GiB',
    least: 3 * 2 ** 30,
    command: 'ulimit -d unlimited',
  },
];

const LEAST_OPEN_FILES = 64;

/**
 * The threads that are started after the check: three here and four of Node's pool, for which libuv aborts.
 */
const LEAST_FREE_THREADS = 8;

/** Returns the first limit that is too low; undefined if none is, or if /proc is not mounted. */
export function tooLowLimit(): TooLow | undefined {
  // Not in the table: with a limit of 20, the file of limits cannot be opened.
  if (limitOfOpenFiles() < LEAST_OPEN_FILES) {
    return {
      what: `the limit of open files is below ${LEAST_OPEN_FILES}`,
      hint: 'raise the limit: ulimit -n 1024',
    };
  }
  const limits = systemText('/proc/self/limits');
  const soft = (name: string): number =>
    Number(new RegExp(`^${name} +(\\d+) `, 'm').exec(limits)?.[1] ?? Infinity);
  const low = LIMITS.find(({ name, least }) => soft(name) < least);
  if (low) return { what: low.what, hint: `raise the limit: ${low.command}` };
  return tooFewProcesses(soft('Max processes')) ?? tooFewInGroup();
}

/** Checks RLIMIT_NPROC, which counts the threads of all processes of a user, and does not apply to root. */
function tooFewProcesses(limit: number): TooLow | undefined {
  const uid = getuid?.();
  // All threads of the system, in one file instead of one per process.
  const all = Number(/\/(\d+) /.exec(systemText('/proc/loadavg'))?.[1] ?? Infinity);
  if (uid === 0 || limit - all >= LEAST_FREE_THREADS) return undefined;
  const free = Math.max(0, limit - threadsOf(uid));
  if (free >= LEAST_FREE_THREADS) return undefined;
  return {
    what: `the limit of ${limit} processes leaves ${free}; ${LEAST_FREE_THREADS} are needed`,
    hint: 'raise the limit: ulimit -u 1024, or stop other processes of this user',
  };
}

function threadsOf(uid: number | undefined): number {
  let threads = 0;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const status = systemText(`/proc/${name}/status`);
    if (Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]) !== uid) continue;
    threads += Number(/^Threads:\s+(\d+)/m.exec(status)?.[1]);
  }
  return threads;
}

/** Checks the limit of a container: pids.max of its control group and of those above (cgroups(7)). */
function tooFewInGroup(): TooLow | undefined {
  // Version 2 has no controllers in its line, version 1 has a directory for each set of them.
  const memberships = systemText('/proc/self/cgroup').matchAll(
    /^\d+:((?:[^:\n]*,)?pids(?:,[^:\n]*)?)?:(\/.*)$/gm,
  );
  for (const [, controllers, path = ''] of memberships) {
    const root = controllers === undefined ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controllers}`;
    for (let group = path; ; group = group.slice(0, group.lastIndexOf('/'))) {
      const max = Number.parseInt(systemText(`${root}${group}/pids.max`), 10);
      const free = max - Number.parseInt(systemText(`${root}${group}/pids.current`), 10);
      if (free < LEAST_FREE_THREADS) {
        return {
          what:
            `the control group's limit of ${max} processes leaves ${Math.max(0, free)}; ` +
            `${LEAST_FREE_THREADS} are needed`,
          hint: 'raise pids.max of the control group (docker: --pids-limit)',
        };
      }
      if (group === '' || group === '/') break;
    }
  }
  return undefined;
}
