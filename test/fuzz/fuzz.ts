/**
 * Runs the program on random malformed input, for MINUTES (60) minutes, and checks every run: its exit code
 * is in the table, with no stack trace, no hang, at most 200 MiB, nothing outside DIR, no leftovers, no
 * password shown. A failing case is stored as a file, which `make fuzz ARGS='--replay FILE'` runs again.
 * Needs root: since some cases are command lines, all but its own directory is made read-only.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Case } from './case.ts';
import { kinds } from './cases.ts';
import { Random } from './random.ts';
import { runCase, type Outcome, type Place } from './run.ts';
import { SiteServer } from './site.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: process.env['MINUTES'] ?? '60' },
    seed: { type: 'string', default: String(Date.now()) },
    /** The kinds of cases to run, separated by commas. */
    kind: { type: 'string', default: Object.keys(kinds).join() },
    /** The number of the first case. */
    from: { type: 'string', default: '0' },
    /** Number of cases; by default the time ends the run. */
    cases: { type: 'string' },
    /** Number of cases at the same time. */
    jobs: { type: 'string', default: '1' },
    replay: { type: 'string' },
    tool: { type: 'string', default: fileURLToPath(new URL('../../dist/dlrootfs', import.meta.url)) },
  },
});
const directory = process.env['FUZZ_DIR'] ?? '/var/tmp/dlrootfs-fuzz';
/** The cases of this run; another run at the same time has a directory of its own. */
const cases = `${directory}/${process.pid}`;
const say = (line: string) => process.stdout.write(`${line}\n`);

/** Runs this script again in a mount namespace in which all but `directory` is read-only. */
function runConfined(): void {
  const { status, error } = spawnSync(
    'unshare',
    ['--mount', '--propagation', 'private', process.execPath, ...process.argv.slice(1)],
    { stdio: 'inherit', env: { ...process.env, DLROOTFS_FUZZ_CONFINED: '1' } },
  );
  if (error) throw error;
  process.exitCode = status ?? 1;
}

function makeReadOnly(): void {
  execFileSync('mount', ['--bind', directory, directory]);
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.split(' ')[4]!.replaceAll('\\040', ' '));
  for (const mount of new Set(mounts)) {
    if (mount === directory || /^\/(?:proc|sys|dev)\b/.test(mount)) continue;
    spawnSync('mount', ['-o', 'remount,bind,ro', mount], { stdio: 'ignore' });
  }
}

const replacer = (_: string, value: unknown) =>
  typeof value === 'object' && value !== null && 'type' in value && value.type === 'Buffer' && 'data' in value
    ? { base64: Buffer.from(value.data as number[]).toString('base64') }
    : value;
const reviver = (_: string, value: unknown) =>
  typeof value === 'object' && value !== null && 'base64' in value
    ? Buffer.from(value.base64 as string, 'base64')
    : value;

interface Kept {
  readonly seed: string;
  readonly number: number;
  readonly kind: string;
  readonly each: Case;
  readonly outcome?: Outcome;
}

/** Number of stored cases with the same fault. */
const KEPT_OF_A_KIND = 3;

class Findings {
  readonly #counts = new Map<string, number>();
  count = 0;

  keep(kept: Kept & { readonly outcome: Outcome }): void {
    this.count += 1;
    const { faults, stderr } = kept.outcome;
    const words =
      /error: .*/
        .exec(stderr)?.[0]
        .replaceAll(/[^ a-z]/gi, '')
        .slice(0, 40) ?? '';
    const signature = `${kept.kind} ${faults.join()} ${words}`;
    const count = this.#counts.get(signature) ?? 0;
    this.#counts.set(signature, count + 1);
    if (count >= KEPT_OF_A_KIND) return;
    const file = `${directory}/findings/${kept.kind}-${kept.seed}-${kept.number}.json`;
    writeFileSync(file, JSON.stringify(kept, replacer, 1));
    say(
      `${faults.join(', ')}: ${file}\n  ${stderr.trimEnd().split('\n').slice(-2).join('\n  ').slice(0, 600)}`,
    );
  }
}

const chosen = values.kind
  .split(',')
  .flatMap((kind) => Array.from({ length: kinds[kind]?.share ?? 0 }, () => kind));
if (chosen.length === 0) throw new Error(`no kind ${values.kind}: there are ${Object.keys(kinds).join()}`);

class Tally {
  readonly #byKind = new Map<string, Map<number, number>>();
  #most = { mebibytes: 0, milliseconds: 0, cpuSeconds: 0 };
  count = 0;

  add(kind: string, outcome: Outcome): void {
    this.count += 1;
    const codes = this.#byKind.get(kind) ?? new Map<number, number>();
    this.#byKind.set(kind, codes.set(outcome.exitCode, (codes.get(outcome.exitCode) ?? 0) + 1));
    for (const key of ['mebibytes', 'milliseconds', 'cpuSeconds'] as const)
      this.#most[key] = Math.max(this.#most[key], outcome[key]);
  }

  toString(): string {
    const lines = [...this.#byKind]
      .toSorted(([a], [b]) => a.localeCompare(b))
      .map(([kind, codes]) => {
        const cells = [...codes].toSorted(([a], [b]) => a - b).map(([code, count]) => `${code}: ${count}`);
        return `  ${kind.padEnd(11)} exit ${cells.join(', ')}`;
      });
    const { mebibytes, milliseconds, cpuSeconds } = this.#most;
    const most = `at most ${mebibytes.toFixed(0)} MiB, ${(milliseconds / 1000).toFixed(1)} s, ${cpuSeconds.toFixed(1)} s of a processor`;
    return `${this.count} cases; ${most}\n${lines.join('\n')}`;
  }
}

async function replay(file: string): Promise<void> {
  const { kind, each } = JSON.parse(readFileSync(file, 'utf8'), reviver) as Kept;
  await using server = await SiteServer.start();
  const outcome = await runCase(kind, each, {
    program: values.tool,
    server,
    work: `${cases}/replay`,
  });
  say(JSON.stringify({ argv: each.argv, ...outcome }, undefined, 1));
  process.exitCode = outcome.faults.length > 0 ? 1 : 0;
}

const REPORT_MILLISECONDS = 60_000;

async function fuzz(): Promise<void> {
  const end = performance.now() + Number(values.minutes) * 60_000;
  const last = values.cases === undefined ? Infinity : Number(values.from) + Number(values.cases);
  const findings = new Findings();
  const tally = new Tally();
  let next = Number(values.from);
  let reported = performance.now();
  say(`seed ${values.seed}, ${values.minutes} minutes, findings in ${directory}/findings`);
  const worker = async (_: unknown, index: number) => {
    await using server = await SiteServer.start();
    const place: Place = { program: values.tool, server, work: `${cases}/run${index}` };
    while (performance.now() < end && next < last) {
      const number = next;
      next += 1;
      const random = new Random(`${values.seed}:${number}`);
      const kind = random.pick(chosen);
      const each = kinds[kind]!.make(random);
      const outcome = await runCase(kind, each, place);
      tally.add(kind, outcome);
      if (outcome.faults.length > 0) findings.keep({ seed: values.seed, number, kind, each, outcome });
      if (performance.now() - reported < REPORT_MILLISECONDS) continue;
      reported = performance.now();
      say(tally.toString());
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker));
  say(`${tally.toString()}\n${findings.count} of them failed; seed ${values.seed}`);
  process.exitCode = findings.count > 0 ? 1 : 0;
}

mkdirSync(`${directory}/findings`, { recursive: true });
if (process.env['DLROOTFS_FUZZ_CONFINED'] === undefined) runConfined();
else {
  makeReadOnly();
  mkdirSync(cases);
  try {
    await (values.replay === undefined ? fuzz() : replay(values.replay));
  } finally {
    rmSync(cases, { recursive: true });
  }
}
