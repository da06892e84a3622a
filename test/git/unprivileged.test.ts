import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { character, dir, fifo, file, hardlink, symlink, tar, whiteout } from '../support/archive.ts';
import { noOtherUser } from '../support/other-user.ts';
import { git, scratch, snapshot } from './git.ts';

const needsRoot = { skip: noOtherUser };
const nobody = { uid: 65_534, gid: 65_534 };

function run(...argv: string[]): { status: number | null; stderr: string } {
  const script = new URL('user-run.ts', import.meta.url).pathname;
  return spawnSync(process.execPath, [script, ...argv], {
    ...nobody,
    cwd: '/',
    env: { PATH: process.env['PATH'], HOME: '/nonexistent' },
    encoding: 'utf8',
  });
}

/** All but the root, of which no layer says anything. */
function entries(lines: readonly string[]): string[] {
  return lines.filter((line) => !line.endsWith(' ./'));
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

test('as a user: -g, and back and forth between the layers', needsRoot, (t) => {
  const base = scratch(t);
  chmodSync(base, 0o755);
  const names = layers.map((bytes, number) => {
    const name = path.join(base, `layer${number}.tar`);
    writeFileSync(name, bytes);
    return name;
  });
  const place = (name: string): string => {
    const directory = path.join(base, name);
    mkdirSync(directory);
    chownSync(directory, nobody.uid, nobody.gid);
    return directory;
  };
  const lower = place('lower');
  assert.deepEqual(run('pull', lower, names[0]!).stderr, '');
  const directory = place('rootfs');
  assert.deepEqual(run('pull', directory, ...names).stderr, '');
  const upper = snapshot(directory);
  for (const [branch, expected] of [
    ['0', snapshot(lower)],
    ['1', upper],
    ['0', snapshot(lower)],
    ['1', upper],
  ] as const) {
    assert.deepEqual(run('checkout', directory, branch).stderr, '');
    assert.deepEqual(entries(snapshot(directory)), entries(expected));
  }
  const shadow = execFileSync('git', ['-C', directory, '-c', 'safe.directory=*', 'show', 'HEAD:etc/shadow'], {
    encoding: 'utf8',
  });
  assert.equal(shadow, 'changed');

  // What the user could not make is in the record all the same: root gets it.
  const root = spawnSync(
    process.execPath,
    [new URL('user-run.ts', import.meta.url).pathname, 'checkout', directory, '0'],
    { encoding: 'utf8', env: { PATH: process.env['PATH'] } },
  );
  assert.equal(root.stderr, '');
  const lines = snapshot(directory).map((line) => line.replaceAll(/ \d+\.\d{9}/g, ''));
  assert.ok(lines.includes('crw------- 0:0 1,3 null =1'), lines.join('\n'));
  assert.ok(lines.some((line) => /^-rwsr-xr-x 0:0 .* su$/.test(line)));
  assert.ok(lines.some((line) => line === 'drwxr-xr-x 5:0 etc/'));
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
    const { status, stderr } = run('pull', directory, layer);
    assert.equal(status, 7);
    assert.match(stderr, /^the disk is full: (cannot commit layer0_0+|git could not make the branches)$/m);
    assert.deepEqual(
      readdirSync(path.join(directory, '.git/objects/pack')).filter((name) => name.endsWith('.idx')),
      [],
    );
    assert.throws(() => git(directory, 'rev-parse', '--verify', 'HEAD'));
  } finally {
    execFileSync('umount', [disk]);
  }
});
