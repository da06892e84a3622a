import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { dir, file, tar, whiteout } from './support/archive.ts';
import type { FakeLayer } from './support/fake-image.ts';
import { FakeRegistry } from './support/fake-registry.ts';
import { Scratch, runProgram } from './support/program.ts';
import { printTree } from './support/tree.ts';

const base: FakeLayer = {
  tar: tar(dir('etc', { mtime: 1 }), file('etc/motd', 'hello\n'), dir('empty', { mode: 0o700 })),
};
const middle: FakeLayer = { tar: tar(whiteout('etc/motd'), file('tool', '#!/bin/sh\n', { mode: 0o4755 })) };
const top: FakeLayer = { tar: tar(file('etc/issue', 'one\n')) };
const otherTop: FakeLayer = { tar: tar(file('etc/issue', 'two\n'), file('more', 'x')) };

const git = (directory: string, ...words: readonly string[]) =>
  execFileSync('git', ['-C', directory, ...words], { encoding: 'utf8' }).trim();

/** The rootfs as text, without what differs from run to run: .git, json, layersize and the root's time. */
const tree = (directory: string) => {
  return printTree(directory)
    .split('\n')
    .filter((line) => !/ (json|layersize|\.git(\/.*)?|\.\/)( |$)/.test(line))
    .join('\n');
};

/** `Done` comes in whatever order the layers do. */
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

test('checkout: every branch comes back exactly, and changes of the user are kept from being lost', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers: [base, middle, top] });
  for (const [index, layers] of [[base], [base, middle], [base, middle, top]].entries()) {
    registry.push('lib/img', `upto${index}`, { layers });
    await runProgram([registry.reference('lib/img', `upto${index}`), '-d', `upto${index}`, '-q'], {
      cwd: scratch.path,
    });
  }
  await runProgram([registry.reference('lib/img', '1'), '-d', 'out', '-g', '-q'], { cwd: scratch.path });
  for (const index of [0, 2, 1]) {
    const { exitCode, stdout, stderr } = await runProgram(['checkout', `layer${index}`, '-d', 'out'], {
      cwd: scratch.path,
    });
    assert.deepEqual([exitCode, stdout.startsWith(`layer${index}_`)], [0, true], stderr);
    assert.equal(tree(scratch.join('out')), tree(scratch.join(`upto${index}`)));
  }
  writeFileSync(scratch.join('out/tool'), 'mine');
  const refused = await runProgram(['checkout', 'layer0', '-d', 'out'], { cwd: scratch.path });
  assert.deepEqual(
    [refused.exitCode, readFileSync(scratch.join('out/tool'), 'utf8')],
    [7, 'mine'],
    refused.stderr,
  );
  const forced = await runProgram(['checkout', 'layer0', '-d', 'out', '--force'], { cwd: scratch.path });
  assert.equal(forced.exitCode, 0, forced.stderr);
});

test('-g again: the same image is a no-op, another tag goes on, another image is refused', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers: [base, middle, top] });
  registry.push('lib/img', '2', { layers: [base, middle, otherTop] });
  registry.push('lib/other', '1', { layers: [{ tar: tar(file('other')) }] });
  const pull = (name: string, tag: string) =>
    runProgram([registry.reference(name, tag), '-d', 'out', '-g'], { cwd: scratch.path });
  assert.equal((await pull('lib/img', '1')).exitCode, 0);
  const before = tree(scratch.join('out'));
  const same = await pull('lib/img', '1');
  assert.deepEqual([same.exitCode, tree(scratch.join('out'))], [0, before], same.stderr);
  assert.match(same.stderr, /has all layers of the image: nothing was done/);

  const next = await pull('lib/img', '2');
  assert.equal(next.exitCode, 0, next.stderr);
  assert.match(next.stderr, /has 2 of the image's layers/);
  assert.equal(readFileSync(scratch.join('out/etc/issue'), 'utf8'), 'two\n');
  assert.equal(git(scratch.join('out'), 'branch', '--list').split('\n').length, 4);
  assert.equal(git(scratch.join('out'), 'status', '--porcelain'), '');
  assert.deepEqual(readdirSync(scratch.path), ['out']);

  const other = await pull('lib/other', '1');
  assert.equal(other.exitCode, 7);
  assert.match(other.stderr, /^error: out holds the layers of another image$/m);
});

test('-g with --json: a pull that goes on tells of all layers, base first', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers: [base, middle, top] });
  const { layers } = registry.push('lib/img', '2', { layers: [base, middle, otherTop] });
  const pull = async (tag: string) => {
    const argv = [registry.reference('lib/img', tag), '-d', 'out', '-g', '--json', '--no-cache'];
    const { stdout, stderr, exitCode } = await runProgram(argv, { cwd: scratch.path });
    assert.equal(exitCode, 0, stderr);
    return JSON.parse(stdout) as {
      layers: { digest: string; entries: number }[];
      bytes: { network: number };
    };
  };
  await pull('1');
  const { layers: told, bytes } = await pull('2');
  assert.deepEqual(
    told.map(({ digest }) => digest),
    layers.map(({ digest }) => digest),
  );
  assert.deepEqual(
    told.map(({ entries }) => entries),
    [0, 0, 2],
  );
  assert.equal(bytes.network, layers[2]!.size);
});

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
  const status = git(directory, 'status', '--porcelain');

  const again = await pull();
  assert.equal(again.exitCode, 0, again.stderr);
  assert.equal(git(directory, 'status', '--porcelain'), status);

  const refused = await runProgram(['checkout', 'layer0', '-d', 'out'], { cwd: scratch.path });
  assert.match(refused.stderr, /etc\/hosts has changes that are in no commit\nhint: commit or remove/);
  git(directory, 'add', '--all');
  git(directory, 'commit', '--quiet', '--message=prepared');
  for (const branch of ['layer0', 'layer1']) {
    const { exitCode, stderr } = await runProgram(['checkout', branch, '-d', 'out'], { cwd: scratch.path });
    assert.equal(exitCode, 0, stderr);
  }
  assert.match(readFileSync(scratch.join('out/etc/hosts'), 'utf8'), /localhost/);
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
  assert.match(withGit.stderr, /systemd-nspawn --inaccessible=\/\.git -D /);

  const plain = await pull('-d', 'plain');
  assert.equal(plain.exitCode, 0, plain.stderr);
  for (const name of ['config.json', 'plain.lxc', 'plain.nspawn']) {
    assert.doesNotMatch(readFileSync(scratch.join(name), 'utf8'), /\.git/);
  }
});
