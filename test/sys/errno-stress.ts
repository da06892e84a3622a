// Makes failing system calls while another thread compiles: node errno-stress.ts WAY MILLISECONDS. Prints the
// number of failed calls and the wrong answers as JSON.
import { constants } from 'node:os';
import { Worker, isMainThread } from 'node:worker_threads';
import { libcEntry, routineEntry, type KernelEntry } from '../../src/sys/kernel-entry.ts';
import { openSystemCalls } from '../../src/sys/system-calls.ts';

const { EBADF, EEXIST, ENOENT, ENOTDIR, EINVAL } = constants.errno;

/** Runs a call inside new code, which V8 takes the lock of its code space to compile. */
function fresh<T>(call: () => T, seed: number): T {
  const body = `let sum = ${seed}; for (let i = 0; i < 300; i += 1) sum += i; return call(sum);`;
  // eslint-disable-next-line typescript/no-implied-eval
  return new Function('call', body)(call) as T;
}

const ways = {
  routine: routineEntry,
  libc: libcEntry,
  /** For comparison only: koffi reads errno once. */
  unsafe: (native, machine, close): KernelEntry | undefined => {
    const entry = routineEntry(native, machine, close);
    const call = native.library.func(
      'intptr_t syscall(intptr_t, intptr_t, intptr_t, intptr_t, intptr_t, intptr_t)',
    ) as KernelEntry['call'];
    return (
      entry && {
        ...entry,
        call: (...given) => {
          const result = call(...given);
          return result < 0 ? -native.koffi.errno() : result;
        },
      }
    );
  },
} satisfies Record<string, Parameters<typeof openSystemCalls>[0]>;

if (!isMainThread) {
  for (let seed = 0; ; seed += 1) fresh(() => seed, seed);
}

const [, , way, milliseconds] = process.argv;
const calls = openSystemCalls(ways[way as keyof typeof ways])!;
const memory = Buffer.from('/proc/self/none\0/proc/self/status/x\0/\0');
const none = calls.address(memory);
const below = none + memory.indexOf('/proc/self/status');
const root = none + memory.length - 2;
const failing: [expected: number, call: () => number][] = [
  [-ENOENT, () => calls.openat(-100, none, 0, 0)],
  [-ENOTDIR, () => calls.openat(-100, below, 0, 0)],
  [-EEXIST, () => calls.mkdirat(-100, root, 0)],
  [-ENOENT, () => calls.unlinkat(-100, none, 0)],
  [-EBADF, () => calls.flock(-1, 6)],
  [-EINVAL, () => calls.readlinkat(-100, root, none, 1)],
];
new Worker(new URL(import.meta.url)).unref();
const wrong: string[] = [];
let count = 0;
const end = performance.now() + Number(milliseconds);
while (performance.now() < end) {
  for (const [expected, call] of failing) {
    count += 1;
    const answer = fresh(call, count);
    if (answer !== expected) wrong.push(`${answer} instead of ${expected}`);
  }
}
process.stdout.write(JSON.stringify({ count, wrong, alive: memory.length > 0 }));
// With each third errno changed, koffi's own handler at exit may wait for ever.
if (process.env['ERRNO_PERIOD'] !== undefined) process.kill(process.pid, 'SIGKILL');
process.exit(0);
