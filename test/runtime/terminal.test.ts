import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch, programCommand, runProgram } from '../support/program.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';
import { TerminalSession } from '../support/terminal-session.ts';

const skip = missing('root', 'busybox', 'runc', 'script');

function shell(scratch: Scratch): { tar: Buffer } {
  mkdirSync(scratch.join('tree'));
  busyboxTree(scratch.join('tree'));
  return { tar: execFileSync('tar', ['-c', '-C', scratch.join('tree'), '.'], { maxBuffer: 64 << 20 }) };
}

test('runc, after a pull from a terminal: a shell has a prompt, and takes a pipe too', { skip }, async () => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('alpine', 'latest', { layers: [shell(scratch)], config: { config: { Cmd: ['/bin/sh'] } } });
  const name = path.basename(scratch.path);
  const pull = `${programCommand.join(' ')} ${registry.reference('alpine')} -d b/rootfs --for runc --no-cache`;
  const run = `runc run -b b ${name}`;
  await using terminal = TerminalSession.start(
    `${pull} && ${run}; printf 'echo piped\\nexit\\n' | ${run}; echo over`,
    {
      columns: 200,
      rows: 50,
      cwd: scratch.path,
    },
  );
  const screen = await terminal.until((text) => /^\/ # $/m.test(`${text} `), 60_000);
  assert.match(`${screen} `, /^\/ # $/m);
  terminal.type('tty && exit\n');
  const end = await terminal.until((text) => /^over$/m.test(text), 60_000);
  assert.match(end, /^\/dev\/(?:console|pts)/m);
  assert.match(end, /^piped$[^]*^over$/m);
  assert.match(end, /^notice: the container gets a terminal/m);
});

test('two rootfs in one directory: each has its own configuration of LXC, and runc says what to do', async () => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('alpine', 'latest', { layers: [] });
  const pull = (...flags: readonly string[]) =>
    runProgram([registry.reference('alpine'), '--no-cache', ...flags], { cwd: scratch.path });
  for (const directory of ['a', 'b']) {
    const { exitCode, stderr } = await pull('-d', directory, '--for', 'lxc');
    assert.equal(exitCode, 0, stderr);
    const text = readFileSync(scratch.join(`${directory}.lxc`), 'utf8');
    assert.ok(text.includes(`"dir:${scratch.join(directory)}"`), text);
  }
  assert.equal((await pull('-d', 'c', '--for', 'runc')).exitCode, 0);
  const second = await pull('-d', 'd', '--for', 'runc');
  assert.equal(second.exitCode, 7);
  assert.match(
    second.stderr,
    /config\.json: a file of that name exists already\nhint: .*-d NAME\/rootfs, or replace it with --force\n$/,
  );
  assert.ok(!existsSync(scratch.join('d')));
});
