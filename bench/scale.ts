/**
 * Runs commands on images, registries and hosts with n and with 4n of something, and compares the CPU seconds
 * of the processes. Prints a table; the exit code is 1 if any command takes more than 5 times as long for 4
 * times as many.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { file, tar } from '../test/support/archive.ts';
import { FakeRegistry } from '../test/support/fake-registry.ts';
import { type Command, type Dimension, dimensions, type Setting } from './scale/dimensions.ts';
import { mountScratch } from './scratch.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tool: { type: 'string', default: fileURLToPath(new URL('../dist/dlrootfs', import.meta.url)) },
  },
});
const say = (line: string) => process.stdout.write(`${line}\n`);

const TIMES = 4;
const MOST = 5;
/** Least CPU seconds above those of count 0. Below this, the noise is too large. */
const LEAST = 0.5;
/** Number of tries, of which the fastest counts: other programs only make a run slower. */
const TRIES = 3;

const work = mkdtempSync(path.join(tmpdir(), 'dlrootfs-scale-'));
const scratch = process.geteuid?.() === 0 ? mountScratch(work) : undefined;

/** Runs the tool; returns the CPU seconds of its process and its children. */
async function run(
  argv: readonly string[],
  directory: string,
  environment: Readonly<Record<string, string>>,
): Promise<number> {
  const script = 'TIMEFORMAT="cpu %U %S"; time "$@"';
  const child = spawn('bash', ['-c', script, 'bash', values.tool, ...argv], {
    cwd: directory,
    env: { PATH: process.env['PATH'], HOME: '/nonexistent', TMPDIR: directory, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.resume();
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-4000);
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  // The exit code is 9 if diff and verify found differences.
  if (code !== 0 && code !== 9)
    throw new Error(`${argv.slice(0, 6).join(' ')} ended with ${code}: ${stderr}`);
  const [, user, system] = /cpu ([\d.]+) ([\d.]+)\s*$/.exec(stderr) ?? [];
  return Number(user) + Number(system);
}

/** The images of one dimension, by count. */
class Stage implements AsyncDisposable {
  readonly #dimension: Dimension;
  readonly #registries = new Map<number, FakeRegistry>();

  constructor(dimension: Dimension) {
    this.#dimension = dimension;
  }

  /** Returns the CPU seconds of one run with `count`. */
  async seconds(command: Command, count: number): Promise<number> {
    const registry = await this.#registry(count);
    const directory = path.join(scratch?.path ?? work, 'run');
    mkdirSync(directory);
    try {
      const setting: Setting = {
        registry,
        image: registry.reference('lib/image', '1'),
        other: registry.reference('lib/other', '1'),
        directory,
        count,
      };
      this.#dimension.prepare?.(setting);
      const environment = this.#dimension.environment?.(setting) ?? {};
      if (command.before) await run(command.before(setting), directory, environment);
      return await run(command.argv(setting), directory, environment);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  async #registry(count: number): Promise<FakeRegistry> {
    const known = this.#registries.get(count);
    if (known) return known;
    const registry = await FakeRegistry.start();
    registry.push('lib/image', '1', this.#dimension.image(count));
    registry.push('lib/other', '1', { layers: [{ tar: tar(file('etc/release', 'two\n')) }] });
    this.#registries.set(count, registry);
    return registry;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const registry of this.#registries.values()) await registry[Symbol.asyncDispose]();
  }
}

/** Measures until the row is within its limit, or TRIES times. Returns true if it is. */
async function measure(stage: Stage, dimension: Dimension, command: Command): Promise<boolean> {
  const counts = [0, dimension.count, TIMES * dimension.count];
  const fastest = counts.map(() => Infinity);
  let isHit = false;
  let growth = 0;
  for (let tries = 0; tries < TRIES && !isHit; tries += 1) {
    for (const [index, count] of counts.entries()) {
      fastest[index] = Math.min(fastest[index]!, await stage.seconds(command, count));
    }
    const [none, few, most] = fastest as [number, number, number];
    growth = (most - none) / Math.max(few - none, 0.01);
    isHit = most - none < LEAST || growth <= MOST;
  }
  const seconds = fastest.map((value) => value.toFixed(2).padStart(7)).join('');
  const verdict = isHit ? '' : '  MISS';
  say(
    `${dimension.name.padEnd(34)} ${command.name.padEnd(13)} ${String(dimension.count).padStart(7)} ${seconds} ${growth.toFixed(1).padStart(6)}${verdict}`,
  );
  return isHit;
}

const chosen = dimensions.filter(
  ({ name }) => positionals.length === 0 || positionals.some((word) => name.includes(word)),
);
say(
  `CPU seconds for none, n, and ${TIMES} times n; beyond none, at most ${MOST} times for ${TIMES} times as many`,
);
say(`${'of'.padEnd(34)} ${'command'.padEnd(13)} ${'n'.padStart(7)}    none      n     ${TIMES}n growth`);
let misses = 0;
try {
  for (const dimension of chosen) {
    await using stage = new Stage(dimension);
    for (const command of dimension.commands) {
      const isHit = await measure(stage, dimension, command).catch((error: unknown) => {
        say(`${dimension.name.padEnd(34)} ${command.name.padEnd(13)} MISS: ${String(error)}`);
        return false;
      });
      if (!isHit) misses += 1;
    }
  }
} finally {
  scratch?.[Symbol.dispose]();
  rmSync(work, { recursive: true, force: true });
}
say(misses === 0 ? 'all of them grow in proportion' : `${misses} misses`);
process.exitCode = misses === 0 ? 0 : 1;
