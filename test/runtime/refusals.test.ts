import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { geteuid } from 'node:process';
import { describe, test } from 'node:test';
import { dir, file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { noOtherUser } from '../support/other-user.ts';
import { isThorough } from '../support/runs.ts';
import { type ProgramOptions, type ProgramResult, Scratch, runProgram } from '../support/program.ts';

type Pull = (argv: readonly string[], options?: ProgramOptions) => Promise<ProgramResult>;

async function withImage(work: (pull: Pull, scratch: Scratch) => Promise<void>): Promise<void> {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('img', '1', {
    layers: [{ tar: tar(dir('etc'), file('etc/passwd', 'root:x:0:0::/:/bin/sh\n')) }],
  });
  const reference = registry.reference('img', '1');
  await work(
    (argv, options) => runProgram([reference, '--no-cache', ...argv], { cwd: scratch.path, ...options }),
    scratch,
  );
}

/** Asserts an error of the destination with a hint, without a stack trace. */
function assertExplained({ exitCode, stderr }: ProgramResult, reason: RegExp): void {
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, /^error: [^\n]+\nhint: [^\n]+\n$/m);
  assert.match(stderr, reason);
  assert.doesNotMatch(stderr, /bug|^\s+at /m);
}

const every = ['--for', 'runc,lxc,nspawn', '--prepare'];

describe('what the system refuses of --for and --prepare is explained', () => {
  const errors = ['EACCES', 'ELOOP', 'ENOTDIR', 'ENOSPC', 'EROFS', 'EIO', 'EDQUOT', 'EMFILE', 'ENOENT'];
  /**
   * The call that fails, and the command. DIR has a file, so none of the calls is made for the rootfs itself.
   */
  const points: readonly (readonly [call: string, argv: readonly string[]])[] = [
    ['link', ['--for', 'runc']],
    ['rename', ['--for', 'lxc', '--force']],
    ['mkdir', ['--prepare']],
    ['fchmod', ['--for', 'nspawn', '--prepare']],
  ];
  for (const [row, [call, argv]] of points.entries()) {
    for (const [column, error] of errors.entries()) {
      // Each call has half of the errors, every other one.
      if (!isThorough && (row + column) % 2 === 1) continue;
      // Node's recursive mkdir loops for ever if an existing directory is reported missing.
      if (call === 'mkdir' && error === 'ENOENT') continue;
      test(`${call}: ${error}`, async () => {
        await withImage(async (pull, scratch) => {
          mkdirSync(scratch.join('out'));
          writeFileSync(scratch.join('out/mine'), '');
          const under = [
            'strace',
            '-f',
            '-qqq',
            '-o',
            '/dev/null',
            '-e',
            `trace=${call}`,
            '-e',
            `inject=${call}:error=${error}`,
          ];
          const result = await pull(['-d', 'out', '--merge', ...argv], { under });
          // The content of a missing or unreadable parent is not prepared; other calls of that kind may fail
          // before.
          if (result.exitCode !== 0) assertExplained(result, new RegExp(`\\(${error}\\)$`, 'm'));
          else assert.ok(call === 'mkdir' || call === 'fchmod', result.stderr);
          assert.ok([0, 7].includes(result.exitCode), result.stderr);
          assert.deepEqual(
            readdirSync(scratch.path).filter((name) => name.includes('partial')),
            [],
          );
        });
      });
    }
  }
});

/** Mounts a file system at a place for a scope; undefined if it cannot be mounted. */
function mounted(words: readonly string[], place: string): Disposable | undefined {
  if (geteuid?.() !== 0 || spawnSync('mount', [...words, place]).status !== 0) return undefined;
  return { [Symbol.dispose]: () => void spawnSync('umount', ['-l', place]) };
}

test('a plain user is told which containers only root can start', { skip: noOtherUser }, async () => {
  await withImage(async (pull, scratch) => {
    chmodSync(scratch.path, 0o777);
    const { exitCode, stderr } = await pull(['-d', 'box/rootfs', '--for', 'runc,lxc,nspawn'], {
      uid: 65_534,
    });
    assert.equal(exitCode, 0, stderr);
    assert.match(stderr, /^notice: only root can start the container with lxc or nspawn$/m);
    assert.doesNotMatch((await pull(['-d', 'own/rootfs', '--for', 'lxc'])).stderr, /only root/);
  });
});

describe('places that cannot be written', () => {
  test('below a directory that may not be entered', { skip: noOtherUser }, async () => {
    await withImage(async (pull, scratch) => {
      mkdirSync(scratch.join('closed/rootfs'), { recursive: true });
      chmodSync(scratch.path, 0o755);
      chmodSync(scratch.join('closed'), 0);
      for (const flags of [every, ['--prepare'], ['--for', 'runc'], ['-g'], []]) {
        for (const name of ['closed/rootfs', 'closed/new', 'closed/new/er']) {
          assertExplained(await pull(['-d', name, ...flags], { uid: 65_534 }), /permission denied/);
        }
      }
    });
  });

  test('beside a directory whose parent may not be written', { skip: noOtherUser }, async () => {
    await withImage(async (pull, scratch) => {
      mkdirSync(scratch.join('rootfs'));
      chownSync(scratch.join('rootfs'), 65_534, 65_534);
      chmodSync(scratch.path, 0o755);
      assertExplained(
        await pull(['-d', 'rootfs', '--for', 'runc'], { uid: 65_534 }),
        /cannot write .*config\.json: permission denied \(EACCES\)/,
      );
    });
  });

  test('a circle of symlinks, and a file in place of a directory', async () => {
    await withImage(async (pull, scratch) => {
      symlinkSync('b', scratch.join('a'));
      symlinkSync('a', scratch.join('b'));
      writeFileSync(scratch.join('file'), '');
      for (const name of ['a', 'a/x', 'file', 'file/x', 'file/x/y']) {
        assertExplained(await pull(['-d', name, ...every]), /symlinks|symbolic links|not a directory/);
      }
    });
  });

  test('a read-only parent', async (t) => {
    await withImage(async (pull, scratch) => {
      mkdirSync(scratch.join('parent/rootfs'), { recursive: true });
      using parent = mounted(['-t', 'tmpfs', 'tmpfs'], scratch.join('parent'));
      if (!parent) return t.skip('needs the right to mount');
      mkdirSync(scratch.join('parent/rootfs'));
      using rootfs = mounted(['-t', 'tmpfs', 'tmpfs'], scratch.join('parent/rootfs'));
      if (!rootfs) return t.skip('needs the right to mount');
      execFileSync('mount', ['-o', 'remount,ro', scratch.join('parent')]);
      for (const runtime of ['runc', 'lxc', 'nspawn'])
        for (const force of [[], ['--force']])
          assertExplained(
            await pull(['-d', 'parent/rootfs', '--merge', '--for', runtime, ...force]),
            /read-only file system \(EROFS\)/,
          );
    });
  });

  test('a parent whose disk is full', async (t) => {
    await withImage(async (pull, scratch) => {
      mkdirSync(scratch.join('parent'));
      using parent = mounted(['-t', 'tmpfs', '-o', 'nr_inodes=2', 'tmpfs'], scratch.join('parent'));
      if (!parent) return t.skip('needs the right to mount');
      mkdirSync(scratch.join('parent/rootfs'));
      using rootfs = mounted(['-t', 'tmpfs', 'tmpfs'], scratch.join('parent/rootfs'));
      if (!rootfs) return t.skip('needs the right to mount');
      const result = await pull(['-d', 'parent/rootfs', '--for', 'runc']);
      assertExplained(result, /cannot (?:write .*config\.json|keep blobs in .*): .*\(ENOSPC\)/);
    });
  });

  test('a DIR whose disk is full behind the image', async (t) => {
    await withImage(async (pull, scratch) => {
      mkdirSync(scratch.join('rootfs'));
      // The limit is for the root, etc, etc/passwd, json, and one more.
      using rootfs = mounted(['-t', 'tmpfs', '-o', 'nr_inodes=5', 'tmpfs'], scratch.join('rootfs'));
      if (!rootfs) return t.skip('needs the right to mount');
      assertExplained(await pull(['-d', 'rootfs', '--prepare']), /cannot prepare rootfs: .*\(ENOSPC\)/);
    });
  });
});
