import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { character, dir, fifo, file, hardlink, symlink, tar, whiteout } from '../support/archive.ts';
import { noOtherUser } from '../support/other-user.ts';
import { runProgram } from '../support/program.ts';
import { git, scratch, snapshot } from './git.ts';

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
  const root = spawnSync(process.execPath, [userRun, 'checkout', directory, '0'], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
  });
  assert.equal(root.stderr, '');
  const lines = snapshot(directory).map((line) => line.replaceAll(/ \d+\.\d{9}/g, ''));
  assert.ok(lines.includes('crw------- 0:0 1,3 null =1'), lines.join('\n'));
  assert.ok(lines.some((line) => /^-rwsr-xr-x 0:0 .* su$/.test(line)));
  assert.ok(lines.some((line) => line === 'drwxr-xr-x 5:0 etc/'));
});

test('a checkout of what may not be read is an error that says so', needsRoot, async (t) => {
  const base = scratch(t);
  chmodSync(base, 0o755);
  const layer = path.join(base, 'layer.tar');
  writeFileSync(layer, tar(dir('etc'), file('etc/motd', 'hello\n')));
  const pristine = path.join(base, 'pristine');
  mkdirSync(pristine);
  assert.equal(spawnSync(process.execPath, [userRun, 'pull', pristine, layer]).status, 0);
  const closed: readonly (readonly [what: string, closed: string])[] = [
    ['below', '..'],
    ['at', '.'],
    ['git', '.git'],
    ['head', '.git/HEAD'],
  ];
  for (const [what, name] of closed) {
    const rootfs = path.join(base, what, 'rootfs');
    mkdirSync(path.dirname(rootfs));
    execFileSync('cp', ['-a', pristine, rootfs]);
    chmodSync(path.join(rootfs, name), 0o600);
    const options = { uid: nobody.uid, cwd: base };
    const { exitCode, stderr } = await runProgram(['checkout', '0', '-d', `${what}/rootfs`], options);
    assert.equal(exitCode, 7, stderr);
    assert.match(
      stderr,
      new RegExp(`^error: cannot read .*${what}/rootfs.*: permission denied .*\nhint: run as root\n$`),
    );
  }
});

test('a umask that keeps the owner out is an error before anything is fetched', needsRoot, async (t) => {
  const base = scratch(t);
  chownSync(base, nobody.uid, nobody.gid);
  const under = ['sh', '-c', 'umask 0777; exec "$@"', 'sh'];
  for (const words of [
    ['localhost:1/none', '-g', '-d', 'rootfs'],
    ['checkout', '0', '-d', '.'],
  ]) {
    const { exitCode, stderr } = await runProgram(words, { uid: nobody.uid, cwd: base, under });
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, /^error: cannot use git with the umask 0777\nhint: .*umask 022\n$/);
  }
  assert.deepEqual(readdirSync(base), []);
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
    assert.match(
      stderr,
      /^the disk (is full: (cannot commit layer0_0+|git could not make the branches|git could not be given what files hold)$|of .* is full: .*big)/m,
    );
    assert.deepEqual(
      readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.idx')),
      [],
    );
    assert.throws(() => git(directory, 'rev-parse', '--verify', 'HEAD'));
  } finally {
    execFileSync('umount', [disk]);
  }
});
