import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { dir, file, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import type { FakeLayer } from '../support/fake-image.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { type RunningProgram, Scratch, runProgram, startProgram } from '../support/program.ts';
import { printTree } from '../support/tree.ts';
import { until } from '../support/until.ts';

const base: FakeLayer = {
  tar: tar(dir('etc', { mtime: 1 }), file('etc/motd', 'hello\n'), dir('empty', { mode: 0o700 })),
};
const middle: FakeLayer = { tar: tar(whiteout('etc/motd'), file('tool', '#!/bin/sh\n', { mode: 0o4755 })) };
const top: FakeLayer = { tar: tar(file('etc/issue', 'one\n')) };
const otherTop: FakeLayer = { tar: tar(file('etc/issue', 'two\n'), file('more', 'x')) };

const git = (directory: string, ...words: readonly string[]) =>
  execFileSync('git', ['-C', directory, ...words], { encoding: 'utf8' }).trim();

/**
 * Prints the rootfs without the parts that differ between runs: .git, json, layersize and the root's time.
 */
const tree = (directory: string) => {
  return printTree(directory)
    .split('\n')
    .filter((line) => !/ (json|layersize|\.git(\/.*)?|\.\/)( |$)/.test(line))
    .join('\n');
};

/** Sorts the lines, since `Done` follows the order of the downloads. */
const sorted = (text: string) => text.split('\n').toSorted().join('\n');

test('-g: branches, messages, stdout and status are those of the original', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const { layers } = registry.push('lib/img', '1', { layers: [base, middle, top] });
  const reference = registry.reference('lib/img', '1');
  const plain = await runProgram([reference, '-d', 'plain'], { cwd: scratch.path });
  const withGit = await runProgram([reference, '-d', 'git', '-g'], { cwd: scratch.path });
  assert.equal(withGit.exitCode, 0, withGit.stderr);
  assert.equal(sorted(withGit.stdout.replace(' in git\n', ' in plain\n')), sorted(plain.stdout));
  const directory = scratch.join('git');
  const branches = layers.map(({ digest }, index) => `layer${index}_${digest.slice(7)}`);
  assert.deepEqual(git(directory, 'branch', '--format=%(refname:short)').split('\n'), branches);
  assert.equal(git(directory, 'symbolic-ref', '--short', 'HEAD'), branches.at(-1));
  assert.deepEqual(
    git(directory, 'log', '--format=%s %an <%ae>').split('\n'),
    [2, 1, 0].map((n) => `adding layer ${n} dlrootfs <mail@mail.com>`),
  );
  assert.equal(git(directory, 'status', '--porcelain'), '');
  assert.equal(git(directory, 'fsck', '--strict', '--full'), '');
  assert.equal(git(directory, 'show', `${branches[1]}:layersize`), String(layers[1]!.size));
  assert.equal(tree(directory), tree(scratch.join('plain')));
});

test('-g again: as without it, a DIR that holds files is refused; --replace makes a new repository', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers: [base, middle, top] });
  registry.push('lib/img', '2', { layers: [base, middle, otherTop] });
  const pull = (tag: string, ...flags: readonly string[]) =>
    runProgram([registry.reference('lib/img', tag), '-d', 'out', '-g', ...flags], { cwd: scratch.path });
  assert.equal((await pull('1')).exitCode, 0);
  const before = printTree(scratch.join('out'));
  for (const tag of ['1', '2']) {
    const again = await pull(tag);
    assert.deepEqual([again.exitCode, again.stdout], [7, ''], again.stderr);
    assert.match(again.stderr, /^error: cannot unpack into out: it is not empty\nhint: .*--replace/);
    assert.equal(printTree(scratch.join('out')), before);
  }
  const next = await pull('2', '--replace');
  assert.equal(next.exitCode, 0, next.stderr);
  assert.equal(readFileSync(scratch.join('out/etc/issue'), 'utf8'), 'two\n');
  assert.equal(git(scratch.join('out'), 'branch', '--list').split('\n').length, 3);
  assert.equal(git(scratch.join('out'), 'status', '--porcelain'), '');
  assert.deepEqual(readdirSync(scratch.path), ['out']);
});

/** Pulls with -g; the script replaces git. */
async function withProgram(
  script: (directory: string) => string,
  check: (scratch: Scratch, run: RunningProgram) => Promise<void>,
  directory = 'out',
): Promise<void> {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers: [base, middle, top] });
  mkdirSync(scratch.join('bin'));
  mkdirSync(scratch.join('above'));
  writeFileSync(scratch.join('bin/git'), `#!/bin/sh\n${script(scratch.path)}\n`, { mode: 0o755 });
  const environment = { PATH: scratch.join('bin'), HOME: scratch.path, TMPDIR: '/nonexistent' };
  const argv = [registry.reference('lib/img', '1'), '-d', directory, '-g', '-q', '--no-cache'];
  await check(scratch, startProgram(argv, { cwd: scratch.path, environment }));
}

const realGit = `PATH=${process.env['PATH']} exec git "$@"`;

const notedGit = (directory: string) => `{ echo "$@"; /usr/bin/env; } >>${directory}/noted\n${realGit}`;

test(
  '-g: git runs once, to make the branches, without any configuration',
  { skip: missing('git') },
  async () => {
    await withProgram(notedGit, async (scratch, run) => {
      const { exitCode, stderr } = await run.result;
      assert.equal(exitCode, 0, stderr);
      const lines = readFileSync(scratch.join('noted'), 'utf8').trim().split('\n');
      assert.equal(lines[0], '-c core.bare=true -c core.logAllRefUpdates=false update-ref --stdin');
      assert.deepEqual(lines.filter((line) => /^(?:HOME|GIT_|XDG)/.test(line)).toSorted(), [
        'GIT_CONFIG_GLOBAL=/dev/null',
        'GIT_CONFIG_NOSYSTEM=1',
        'GIT_DIR=.',
        // simple-git adds this word.
        'GIT_TEST_DISALLOW_ABBREVIATED_OPTIONS=true',
        'HOME=/dev/null',
        'XDG_CONFIG_HOME=/dev/null',
      ]);
      assert.deepEqual(readdirSync(scratch.path).toSorted(), ['above', 'bin', 'noted', 'out']);
      assert.equal(git(scratch.join('out'), 'fsck', '--strict', '--full'), '');
    });
  },
);

test('-g: a failure of git is an error, and nothing is left', async () => {
  await withProgram(
    () => 'echo "fatal: it is Monday" >&2; exit 128',
    async (scratch, run) => {
      const { exitCode, stderr } = await run.result;
      assert.equal(exitCode, 7);
      assert.match(stderr, /^error: cannot make the branches: fatal: it is Monday$/m);
      assert.deepEqual(readdirSync(scratch.path).toSorted(), ['above', 'bin']);
    },
  );
});

test('-g: a git that hangs ends with the run', async () => {
  await withProgram(
    () => 'echo $$ >pid; exec /bin/sleep 1000',
    async (scratch, run) => {
      const stage = () => readdirSync(scratch.path).find((name) => name.startsWith('.out'));
      const note = () => scratch.join(`${stage()}/.git/pid`);
      await until(
        'git',
        () => stage() !== undefined && existsSync(note()) && readFileSync(note()).length > 1,
      );
      const pid = Number(readFileSync(note(), 'utf8'));
      run.kill('SIGTERM');
      assert.equal((await run.result).exitCode, 143);
      await until('the end of git', () => !existsSync(`/proc/${pid}`));
      assert.deepEqual(readdirSync(scratch.path).toSorted(), ['above', 'bin']);
    },
  );
});

test(
  '-g: git works in the stage, wherever another user puts what is above it',
  { skip: missing('git') },
  async () => {
    const moving = 'mv $OLD $OLD.moved; mkdir -p $OLD';
    await withProgram(
      () =>
        `PATH=${process.env['PATH']}; OLD=$(dirname $(dirname $(readlink -f .))); ${moving}; exec git "$@"`,
      async (scratch, run) => {
        const { exitCode, stderr } = await run.result;
        assert.equal(exitCode, 0, stderr);
        assert.deepEqual(readdirSync(scratch.join('above')), []);
        assert.equal(git(scratch.join('above.moved/out'), 'fsck', '--strict', '--full'), '');
      },
      'above/out',
    );
  },
);

test('-g with --prepare: what it adds is in no layer, so git shows it, and only it, as changes', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const hollow = { tar: tar(dir('etc'), file('etc/hosts', ''), file('etc/motd', 'hello\n')) };
  registry.push('lib/img', '1', { layers: [hollow, top] });
  const pull = () =>
    runProgram([registry.reference('lib/img', '1'), '-d', 'out', '-g', '--prepare'], { cwd: scratch.path });
  const first = await pull();
  assert.equal(first.exitCode, 0, first.stderr);
  assert.match(first.stderr, /^notice: prepared .*\/etc\/hosts.*: no layer has them, so git shows files/m);
  const directory = scratch.join('out');
  const changed = git(directory, 'status', '--porcelain')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => !line.endsWith(' etc/resolv.conf'));
  assert.deepEqual(changed, ['M etc/hosts', '?? etc/hostname']);
  git(directory, 'add', '--all');
  git(directory, 'commit', '--quiet', '--message=prepared');
  git(directory, 'checkout', '-q', git(directory, 'branch', '--list', 'layer0_*').trim());
  assert.equal(readFileSync(scratch.join('out/etc/hosts'), 'utf8'), '');
});

test('-g with --for: the configurations hide the repository from the container', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers: [{ tar: tar(dir('usr'), file('bin/sh', '')) }] });
  const pull = (...more: readonly string[]) =>
    runProgram([registry.reference('lib/img', '1'), '--for', 'runc,lxc,nspawn', '--force', ...more], {
      cwd: scratch.path,
    });
  const withGit = await pull('-d', 'git', '-g');
  assert.equal(withGit.exitCode, 0, withGit.stderr);
  const config = JSON.parse(readFileSync(scratch.join('config.json'), 'utf8')) as {
    linux: { maskedPaths: string[] };
  };
  assert.ok(config.linux.maskedPaths.includes('/.git'));
  assert.match(readFileSync(scratch.join('git.lxc'), 'utf8'), /^lxc\.mount\.entry = none \.git tmpfs ro,/m);
  assert.match(readFileSync(scratch.join('git.nspawn'), 'utf8'), /^\[Files\]\nInaccessible=\/\.git$/m);
  assert.match(withGit.stderr, /systemd-nspawn (?:--register=no --keep-unit )?--inaccessible=\/\.git -D /);

  const plain = await pull('-d', 'plain');
  assert.equal(plain.exitCode, 0, plain.stderr);
  for (const name of ['config.json', 'plain.lxc', 'plain.nspawn']) {
    assert.doesNotMatch(readFileSync(scratch.join(name), 'utf8'), /\.git/);
  }
});
