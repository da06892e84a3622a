/**
 * Pulls from a local registry, many times. For each way to pull, 200 pulls are killed at a random moment and
 * run again (ARGS='50' sets the number). Then as many use a link that drops connections, while memory,
 * descriptors and leftover files are measured. Meanwhile other processes keep every processor busy. ARGS='50
 * -g' selects one kind (a directory, -g, -o, several connections, dropping).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import process from 'node:process';
import { killKinds, killRounds } from '../faults/kill.ts';
import { Setting } from '../faults/setting.ts';
import { peakMemory } from '../support/peak-memory.ts';
import { programCommand, type RunningProgram } from '../support/program.ts';

const rounds = Number(process.argv[2] ?? 200);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error('the number of rounds is a positive integer');
const only = process.argv.slice(3).join(' ');
const say = (line: string) => process.stdout.write(`${line}\n`);

/** One process per processor that computes without end. */
class Load implements Disposable {
  readonly #processes = Array.from({ length: availableParallelism() }, () =>
    spawn('sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' }),
  );

  [Symbol.dispose](): void {
    for (const each of this.#processes) each.kill('SIGKILL');
  }
}

/** Records the largest memory (MiB) and number of descriptors of a run while it runs. */
function watch(run: RunningProgram): { readonly memory: number; readonly descriptors: number; stop(): void } {
  const seen = { memory: 0, descriptors: 0, stop: () => clearInterval(timer) };
  const timer = setInterval(() => {
    try {
      seen.memory = Math.max(seen.memory, peakMemory(run.pid) / 1024);
      seen.descriptors = Math.max(seen.descriptors, readdirSync(`/proc/${run.pid}/fd`).length);
    } catch {
      // The process has ended.
    }
  }, 20);
  return seen;
}

async function killed(name: keyof typeof killKinds): Promise<void> {
  let done = 0;
  let unfinished = 0;
  let reused = 0;
  await killRounds(name, rounds, (round) => {
    done += 1;
    reused += round.reused;
    if (!round.finished) unfinished += 1;
    if (done % 20 !== 0 && done !== rounds) return;
    say(`${name}: ${done} killed and run again; ${unfinished} were not done, ${reused} layers were resumed`);
  });
}

async function dropping(): Promise<void> {
  await using setting = await Setting.open(undefined, {
    faults: [{ path: /\/blobs\//, cutAfter: 300_000, times: 1e9 }],
  });
  let memory = 0;
  let descriptors = 0;
  let expected: string | undefined;
  for (let round = 0; round < rounds; round += 1) {
    const run = setting.start(['--no-cache', '-d', `out${round % 2}`, '-q']);
    const seen = watch(run);
    const { exitCode, stderr } = await run.result;
    seen.stop();
    assert.equal(exitCode, 0, stderr);
    const tree = setting.tree(`out${round % 2}`);
    expected ??= tree;
    assert.equal(tree, expected);
    memory = Math.max(memory, seen.memory);
    descriptors = Math.max(descriptors, seen.descriptors);
    assert.deepEqual(setting.names, round === 0 ? ['out0'] : ['out0', 'out1']);
    if ((round + 1) % 20 === 0) {
      say(
        `${round + 1} pulls over a link that drops; at most ${memory.toFixed(0)} MiB, ${descriptors} descriptors`,
      );
    }
  }
  assert.ok(memory < 400, `${memory.toFixed(0)} MiB`);
  assert.ok(descriptors < 200, `${descriptors} descriptors`);
}

using _ = new Load();
say(`${programCommand.join(' ')}, ${rounds} rounds of each kind`);
for (const name of Object.keys(killKinds) as (keyof typeof killKinds)[])
  if (only === '' || only === name) await killed(name);
if (only === '' || only === 'dropping') await dropping();
say(`${rounds} runs of each kind: nothing was lost, nothing was left behind`);
