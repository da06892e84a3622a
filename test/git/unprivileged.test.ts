import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { character, dir, fifo, file, hardlink, symlink, tar, whiteout } from '../support/archive.ts';
import { noOtherUser } from '../support/other-user.ts';
import { git, noCommit, scratch } from './git.ts';

const needsRoot = { skip: noOtherUser };
const nobody = { uid: 65_534, gid: 65_534 };

const userRun = new URL('user-run.ts', import.meta.url).pathname;

function run(...argv: string[]): { status: number | null; stderr: string } {
  return spawnSync(process.execPath, [userRun, ...argv], {
    ...nobody,
    cwd: '/',
    env: { PATH: process.env['PATH'], HOME: '/nonexistent' },
    encoding: 'utf8',
  });
}

const layers = [
  tar(
    dir('etc', { uid: 5 }),
    file('etc/shadow', 'secret', { mode: 0, gid: 42 }),
    file('unwritable', 'x', { mode: 0o444 }),
    dir('closed', { mode: 0o555, mtime: 5 }),
    file('closed/in', '1'),
    dir('closed/barred', { mode: 0, mtime: 6 }),
    file('closed/barred/in', '2'),
    character('null', 1, 3),
    hardlink('null2', 'null'),
    fifo('pipe'),
    file('su', 'elf', { mode: 0o4755 }),
    dir('repo/.git', { mode: 0o500 }),
    file('repo/.git/HEAD', 'x', { mode: 0o400 }),
  ),
  tar(
    file('closed/new', '3'),
    whiteout('closed/barred/in'),
    file('etc/shadow', 'changed', { mode: 0 }),
    whiteout('repo'),
    symlink('null', 'etc'),
    dir('closed', { mode: 0o500, mtime: 7 }),
  ),
];

/** Runs git in a repository of another user. */
const gitAsRoot = (directory: string, ...words: string[]): string =>
  git(directory, '-c', 'safe.directory=*', ...words);

test('as a user: files that nobody may read are in the commits too', needsRoot, (t) => {
  const base = scratch(t);
  chmodSync(base, 0o755);
  const names = layers.map((bytes, number) => {
    const name = path.join(base, `layer${number}.tar`);
    writeFileSync(name, bytes);
    return name;
  });
  const directory = path.join(base, 'rootfs');
  mkdirSync(directory);
  chownSync(directory, nobody.uid, nobody.gid);
  assert.deepEqual(run(directory, ...names).stderr, '');
  const asRoot = (...words: string[]) => gitAsRoot(directory, ...words);
  const held = (number: number) =>
    asRoot('ls-tree', '-r', '--name-only', `layer${number}_${String(number).padStart(64, '0')}`)
      .trim()
      .split('\n');
  assert.deepEqual(held(0), ['closed/barred/in', 'closed/in', 'etc/shadow', 'su', 'unwritable']);
  assert.deepEqual(held(1), ['closed/in', 'closed/new', 'etc/shadow', 'null', 'su', 'unwritable']);
  assert.equal(asRoot('show', `layer0_${'0'.repeat(64)}:etc/shadow`), 'secret');
  assert.equal(asRoot('show', 'HEAD:etc/shadow'), 'changed');
  assert.equal(asRoot('status', '--porcelain'), '');
});

test('a umask that keeps the owner out is an error', needsRoot, async (t) => {
  const base = scratch(t);
  chownSync(base, nobody.uid, nobody.gid);
  const layer = path.join(base, 'layer.tar');
  writeFileSync(layer, tar(file('a', '')));
  const under = spawnSync(
    'sh',
    ['-c', 'umask 0777; exec "$@"', 'sh', process.execPath, userRun, base, layer],
    {
      ...nobody,
      cwd: '/',
      encoding: 'utf8',
    },
  );
  assert.equal(under.stderr, 'cannot make a git repository with the umask 0777\n');
  assert.deepEqual(readdirSync(base), ['layer.tar']);
});

test('a full disk: an error that says so, before or in git', needsRoot, (t) => {
  const base = scratch(t);
  const disk = path.join(base, 'disk');
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk]);
  try {
    const directory = path.join(disk, 'rootfs');
    mkdirSync(directory);
    chownSync(directory, nobody.uid, nobody.gid);
    const layer = path.join(base, 'layer.tar');
    chmodSync(base, 0o755);
    writeFileSync(layer, tar(file('big', Buffer.alloc(2_000_000, 'x'))));
    const { status, stderr } = run(directory, layer);
    assert.equal(status, 7);
    assert.match(
      stderr,
      /^the disk (is full: (cannot commit layer0_0+|cannot make the branches|cannot pack the contents of files for git)$|of .* is full: .*big)/m,
    );
    assert.deepEqual(
      readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.idx')),
      [],
    );
    assert.throws(() => gitAsRoot(directory, 'rev-parse', '--verify', 'HEAD'), noCommit);
  } finally {
    execFileSync('umount', [disk]);
  }
});
