import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Runner } from './runner.ts';
import { describeMachine } from './machine.ts';
import type { Results } from './results.ts';
import { comparedRows, rows as peerRows } from './rows.ts';
import { startRegistry } from './registry.ts';
import { mountScratch } from './scratch.ts';
import { buildImages, craneExport, installPackages } from './setup.ts';
import { tableHead, tableLines } from './table.ts';

const repository = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');

const help = `usage: bench/run [options] [ROW ...]       (make bench ARGS='ROW ...')

Times dlrootfs beside what else turns an image in a registry into a folder, and prints medians, ratios and goals.
The candidates of a row take turns, round by round; a ratio is the median of the ratios within a round.
Needs root on Debian 13 after apt-get update: it installs the packages it uses, builds its images (minutes, the first
time), runs its own registry, and mounts a scratch file system of at most 24 GiB. Nothing leaves loopback after that.

  --runs N       rounds (5)
  --tool CMD     what to run as dlrootfs (${repository}/dist/dlrootfs)
  --against CMD  no peers: compare it with another build of dlrootfs (${comparedRows('')
    .map(({ name }) => name)
    .join(', ')})
  --verify       no timing: compare the tree dlrootfs makes of each image with umoci's, entry by entry; ROW is an image then
  --json FILE    write every sample there
  --setup        only install, build the images, and stop
  --help

Environment: BENCH_DIR, the folder for all of it (/var/tmp/dlrootfs-bench).

Rows:
${peerRows.map(({ name, title }) => `  ${name.padEnd(12)} ${title}`).join('\n')}
`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runs: { type: 'string', default: '5' },
      tool: { type: 'string', default: `${repository}/dist/dlrootfs` },
      against: { type: 'string' },
      verify: { type: 'boolean', default: false },
      json: { type: 'string' },
      setup: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(help);
    return;
  }
  const rows = values.against === undefined ? peerRows : comparedRows(values.against);
  const program = values.tool.split(' ')[0]!;
  if (program.includes('/') && !existsSync(program) && !values.setup)
    throw new Error(`${program} is not there: run make build, or name another with --tool`);
  const chosen = values.verify
    ? []
    : rows.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  const unknown = positionals.find((name) => !values.verify && !rows.some((row) => row.name === name));
  if (unknown !== undefined) throw new Error(`no row ${unknown}: see bench/run --help`);

  const directory = process.env['BENCH_DIR'] ?? '/var/tmp/dlrootfs-bench';
  mkdirSync(directory, { recursive: true });
  installPackages();
  using scratch = mountScratch(directory);
  await using registry = await startRegistry(`${directory}/registry`);
  const verified =
    positionals.length > 0 ? positionals : ['small', 'debian', 'manyfiles', 'bigfiles', 'layers127'];
  const images = values.verify
    ? verified.map((image) => ({ image }))
    : chosen.flatMap((row) => row.candidates);
  await buildImages(images, registry.port, directory);
  if (values.setup) return;

  const runner = new Runner({
    registryPort: registry.port,
    scratch: scratch.path,
    log: `${directory}/last.log`,
    tool: values.tool,
    craneExport: craneExport(directory),
    runs: Number(values.runs),
  });
  if (values.verify) {
    for (const image of verified) process.stdout.write(await runner.verify(image));
    return;
  }
  process.stdout.write(`${describeMachine(values.tool)}\n${tableHead}`);
  const everything: Record<string, Record<string, unknown>> = {};
  for (const row of chosen) {
    const results: Results = await runner.measure(row);
    process.stdout.write(tableLines(row, results));
    everything[row.name] = Object.fromEntries(results);
    if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(everything, undefined, 1));
  }
}

await main().catch((error: unknown) => {
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
