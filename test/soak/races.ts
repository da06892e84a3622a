/**
 * Pulls as root below directories of another user. The user keeps renaming directories above DIR, above the
 * file of `-o` and above the cache, and replaces them by links to root's directories. Fails if a file of
 * root's changed. ARGS='20000' is the number of swaps of each kind.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import path from 'node:path';
import process from 'node:process';
import { Setting } from '../faults/setting.ts';
import { dir, file, tar } from '../support/archive.ts';
import { runProgram } from '../support/program.ts';

const swaps = Number(process.argv[2] ?? 10_000);
const USER = 65_534;
/** Least number of runs of each command, also if the user's swaps end before. */
const LEAST_RUNS = 30;

const image = { layers: [{ tar: tar(dir('bin'), file('bin/sh', 'of the image'), file('x', '1')) }] };

/** The user's loop: a directory is renamed, a link to root's gets its name, and both are changed back. */
const LOOP = `
const fs = require('node:fs');
const [name, target, most] = process.argv.slice(1);
const wait = new Int32Array(new SharedArrayBuffer(4));
let done = 0;
process.stdin.on('data', () => process.exit()).on('end', () => process.exit());
const round = () => {
  for (let n = 0; n < 20; n += 1) {
    try {
      fs.renameSync(name, name + '.away');
      fs.symlinkSync(target, name);
      if (Math.random() < 0.5) Atomics.wait(wait, 0, 0, Math.random());
      fs.unlinkSync(name);
      fs.renameSync(name + '.away', name);
      if (Math.random() < 0.5) Atomics.wait(wait, 0, 0, 5 * Math.random());
      done += 1;
    } catch (error) {
      // Root has made something of that name meanwhile, where the name was free.
      try { fs.unlinkSync(name); } catch {}
      try { fs.renameSync(name, name + '.' + done + process.hrtime()[1]); } catch {}
      try { fs.renameSync(name + '.away', name); } catch {}
    }
  }
  console.log(done);
  setImmediate(round);
};
round();
`;

interface Kind {
  readonly name: string;
  /** The renamed directory in the user's home, and root's directory to which the link leads. */
  readonly swapped: string;
  readonly target: string;
  readonly commands: readonly (readonly string[])[];
}

const kinds: readonly Kind[] = [
  {
    name: 'above DIR',
    swapped: 'box',
    target: '../decoy',
    commands: [
      ['-d', 'home/box/out', '--replace=always'],
      ['-d', 'home/box/deep/N'],
      ['-d', 'home/box/N', '--for', 'runc,nspawn', '--force'],
    ],
  },
  { name: 'above the file of -o', swapped: 'box', target: '../decoy', commands: [['-o', 'home/box/x.tar']] },
  {
    name: 'above the cache',
    swapped: '.cache',
    target: '../decoy/cache',
    commands: [
      ['-d', 'home/box/out', '--replace=always', '--cache-dir', 'home/.cache/dlrootfs'],
      ['cache', 'prune', '--cache-dir', 'home/.cache/dlrootfs'],
    ],
  },
];

function fill(...parts: readonly string[]): void {
  const name = path.join(...parts);
  mkdirSync(path.dirname(name), { recursive: true });
  writeFileSync(name, 'of root');
}

/** Makes root's directories, with the same names as the user's in everything that a run might change. */
function makeDecoy(decoy: string): void {
  fill(decoy, 'out/precious');
  fill(decoy, 'out/bin/sh');
  fill(decoy, 'x.tar');
  fill(decoy, 'config.json');
  fill(decoy, 'out.nspawn');
  fill(decoy, 'deep/precious');
  fill(decoy, '.out.dlrootfs-999999998-0123456789ab/precious');
  fill(decoy, '.x.tar.0123456789ab.part');
  fill(decoy, `cache/dlrootfs/blobs/sha256/${'ab'.repeat(32)}`);
}

/** Lists a directory with inodes, owners, modes, sizes, times and contents. */
function listing(directory: string): string {
  const words = [directory, '-printf', '%P %y %i %n %u:%g %m %s %T@ %C@ %l\n'];
  const sums = spawnSync('sh', ['-c', 'find "$0" -type f | sort | xargs -d "\\n" sha256sum', directory]);
  return spawnSync('find', words, { encoding: 'utf8' }).stdout + sums.stdout.toString();
}

function startUser(
  home: string,
  { swapped, target }: Kind,
): { readonly child: ChildProcess; done(): number } {
  const child = spawn(process.execPath, ['-e', LOOP, swapped, target], {
    cwd: home,
    uid: USER,
    gid: USER,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let done = 0;
  createInterface(child.stdout).on('line', (line) => (done = Number(line)));
  return { child, done: () => done };
}

async function race(setting: Setting, kind: Kind): Promise<void> {
  const { scratch } = setting;
  const decoy = scratch.join('decoy');
  const before = listing(decoy);
  const user = startUser(scratch.join('home'), kind);
  const exits = new Map<number, number>();
  let runs = 0;
  while (user.done() < swaps || runs < LEAST_RUNS) {
    for (const words of kind.commands) {
      const argv = words.map((word) => word.replace('N', `n${runs}`));
      const { exitCode, stderr } =
        words[0] === 'cache'
          ? await runProgram(argv, { cwd: scratch.path })
          : await setting.pull(words.includes('--cache-dir') ? argv : [...argv, '--no-cache']);
      runs += 1;
      exits.set(exitCode, (exits.get(exitCode) ?? 0) + 1);
      if (exitCode === 1 || /this is a bug/.test(stderr)) throw new Error(`${argv.join(' ')}: ${stderr}`);
      assert.ok(user.child.exitCode === null, 'the user goes on');
    }
    assert.equal(listing(decoy), before, kind.name);
  }
  user.child.stdin!.end();
  const counts = [...exits]
    .toSorted(([one], [other]) => one - other)
    .map(([code, count]) => `${count} with exit code ${code}`);
  process.stdout.write(
    `${kind.name}: ${user.done()} swaps, ${runs} runs (${counts.join(', ')}), nothing of root's touched\n`,
  );
}

if (process.getuid?.() !== 0) throw new Error('needs root');
if (!Number.isInteger(swaps) || swaps < 1) throw new Error('the number of swaps is a positive integer');
await using setting = await Setting.open(image);
chmodSync(setting.scratch.path, 0o755);
for (const name of [
  'home',
  'home/box',
  'home/box/out',
  'home/box/deep',
  'home/.cache',
  'home/.cache/dlrootfs',
]) {
  mkdirSync(setting.scratch.join(name));
  chownSync(setting.scratch.join(name), USER, USER);
}
// root's directory is a valid cache, with its tag.
await setting.pullWell(['-d', 'warm', '--cache-dir', 'decoy/cache/dlrootfs']);
makeDecoy(setting.scratch.join('decoy'));
for (const kind of kinds) await race(setting, kind);
