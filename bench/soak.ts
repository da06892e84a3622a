/**
 * Many pulls in a row with faults: `make soak`. 200 are killed at a random moment and run again (ARGS='50': so many), as many with -g,
 * then as many go over a link that drops, and memory, descriptors and what is left behind are watched. ARGS='50 git': one kind only
 * (killed, git, dropping).
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import process from 'node:process';
import { killGitRounds } from '../test/faults/kill-git.ts';
import { killRounds } from '../test/faults/kill.ts';
import { Setting } from '../test/faults/setting.ts';
import type { RunningProgram } from '../test/support/program.ts';

process.env['DLROOTFS_BINARY'] ??= 'dist/dlrootfs';
const rounds = Number(process.argv[2] ?? 200);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error('the number of rounds is a positive integer');
const only = process.argv[3];
const say = (line: string) => process.stdout.write(`${line}\n`);

/** The most memory (MiB) and descriptors that a run has had, asked for while it runs. */
function watch(run: RunningProgram): { readonly memory: number; readonly descriptors: number; stop(): void } {
  const seen = { memory: 0, descriptors: 0, stop: () => clearInterval(timer) };
  const timer = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${run.pid}/status`, 'latin1');
      seen.memory = Math.max(seen.memory, Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024);
      seen.descriptors = Math.max(seen.descriptors, readdirSync(`/proc/${run.pid}/fd`).length);
    } catch {
      // It has ended.
    }
  }, 20);
  return seen;
}

async function killed(): Promise<void> {
  let done = 0;
  let reused = 0;
  await killRounds(rounds, (round) => {
    done += 1;
    reused += round.reused;
    if (done % 20 === 0) say(`${done} runs were killed and run again; ${reused} layers were gone on with`);
  });
}

async function killedWithGit(): Promise<void> {
  let done = 0;
  let unfinished = 0;
  await killGitRounds(rounds, ({ layers }) => {
    done += 1;
    if (layers < 3) unfinished += 1;
    if (done % 20 === 0) say(`${done} runs with -g were killed and run again; ${unfinished} were not done`);
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

const kinds: Readonly<Record<string, () => Promise<void>>> = { killed, git: killedWithGit, dropping };
for (const [kind, run] of Object.entries(kinds)) if (only === undefined || only === kind) await run();
say(`${rounds} runs of each kind: nothing was lost, nothing was left behind`);
