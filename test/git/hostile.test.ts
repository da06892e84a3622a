import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { branchOf, git, idOf, scratch, type BuildLayer, snapshot, StageLayers } from './git.ts';
import { Stage } from './stage.ts';

/** A program that must never run: it makes a file. */
class Canary {
  readonly program: string;
  readonly #sign: string;

  constructor(directory: string) {
    this.#sign = path.join(directory, 'canary-ran');
    this.program = path.join(directory, 'canary');
    writeFileSync(this.program, `#!/bin/sh\necho "$0 $*" >> ${this.#sign}\ncat\n`);
    chmodSync(this.program, 0o755);
  }

  /** The record of programs that ran; empty if none did. */
  get song(): string {
    return existsSync(this.#sign) ? readFileSync(this.#sign, 'utf8') : '';
  }
}

const attributes =
  '[attr]evil-macro filter=evil text\n* filter=evil diff=evil merge=evil text eol=crlf ident working-tree-encoding=UTF-16 export-ignore export-subst\n*.lfs filter=lfs -text\n* evil-macro\n';

/** Images with files that git reads. */
const images: [name: string, build: (canary: Canary) => BuildLayer][] = [
  [
    'attributes that filter, convert and substitute',
    () => (stage) =>
      stage
        .directory('sub')
        .file('.gitattributes', attributes)
        .file('sub/.gitattributes', `${attributes}!* -text\n`)
        .file('sub/unix', 'one\ntwo\n')
        .file('sub/dos', 'one\r\ntwo\r\n')
        .file('sub/mixed', 'one\r\ntwo\nthree\r')
        .file('sub/ident', '$Id$ $Id: 0123 $\n')
        .file('sub/utf16', '\xff\xfeo\0n\0e\0')
        .file('sub/big.lfs', 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n'),
  ],
  [
    'ignore rules for everything',
    () => (stage) =>
      stage
        .directory('sub')
        .file('.gitignore', '*\n')
        .file('sub/.gitignore', '*\n!.gitignore\n')
        .file('sub/x')
        .file('core'),
  ],
  [
    'a programs named git, at the root and in bin',
    (canary) => (stage) => {
      const script = `#!/bin/sh\n${canary.program} git\n`;
      stage.file('git', script, { mode: 0o755 }).directory('bin').file('bin/git', script, { mode: 0o755 });
    },
  ],
  [
    'nested repositories with a monitor, hooks and filters',
    (canary) => (stage) => {
      for (const place of ['tracked', 'alone']) {
        stage
          .directory(place)
          .directory(`${place}/.git`)
          .directory(`${place}/.git/objects`)
          .directory(`${place}/.git/refs`)
          .directory(`${place}/.git/hooks`)
          .file(`${place}/.git/HEAD`, 'ref: refs/heads/main\n')
          .file(`${place}/.git/hooks/post-checkout`, `#!/bin/sh\n${canary.program}\n`, { mode: 0o755 })
          .file(`${place}/.git/config`, `[core]\n\tfsmonitor = ${canary.program}\n\tworktree = /etc\n`);
      }
      stage.file('tracked/file');
    },
  ],
  [
    'files named .git that point elsewhere',
    () => (stage) =>
      stage
        .directory('a')
        .file('a/.git', 'gitdir: /etc\n')
        .file('a/file')
        .directory('b')
        .symlink('b/.git', '../a/.git')
        .directory('c')
        .directory('c/.GIT')
        .file('c/.GIT/config', 'x')
        .directory('d')
        .fifo('d/.git'),
  ],
  [
    'submodules that are none',
    (canary) => (stage) =>
      stage
        .file(
          '.gitmodules',
          `[submodule "../../x"]\n\tpath = sub\n\turl = --upload-pack=${canary.program}\n\tupdate = !${canary.program}\n[broken\n`,
        )
        .directory('sub')
        .file('sub/file')
        .symlink('sub/.gitmodules', '/etc/passwd'),
  ],
  [
    'files of the repository beside the repository',
    (canary) => (stage) =>
      stage
        .file('HEAD', 'ref: refs/heads/evil\n')
        .file('config', `[core]\n\tfsmonitor = ${canary.program}\n`)
        .directory('objects')
        .directory('refs')
        .directory('hooks')
        .file('hooks/post-index-change', `#!/bin/sh\n${canary.program}\n`, { mode: 0o755 })
        .file('.mailmap', 'Evil <evil@evil> <mail@mail.com>\n')
        .file('.gitconfig', `[core]\n\tfsmonitor = ${canary.program}\n`),
  ],
  [
    'links out of the rootfs',
    () => (stage) => stage.symlink('etc', '/etc').symlink('up', '../../..').symlink('loop', 'loop'),
  ],
];

/** Pulls a base, the hostile layer, and one on top; returns the rootfs after the last one. */
async function pullHostile(directory: string, build: BuildLayer): Promise<string[]> {
  const stage = new Stage(directory);
  const layers = new StageLayers(directory);
  const base: BuildLayer = () => stage.root().file('json', '{}\n').file('kept', 'line\n');
  const top: BuildLayer = () => stage.file('json', '{}\r\n').file('more');
  for (const [number, layer] of [base, build, top].entries()) {
    layer(stage);
    await layers.commit({ id: idOf(number) }, stage);
  }
  await layers.finish();
  return snapshot(stage.settle().path);
}

async function holds(t: TestContext, build: (canary: Canary) => BuildLayer) {
  const directory = scratch(t);
  const canary = new Canary(directory);
  const rootfs = path.join(directory, 'rootfs');
  const before = await pullHostile(rootfs, build(canary));
  assert.equal(git(rootfs, 'status', '--porcelain'), '');
  assert.equal(git(rootfs, 'fsck', '--strict', '--full', '--no-dangling'), '');
  assert.equal(git(rootfs, 'log', '-1', '--format=%an %ae', 'HEAD', '--'), 'dlrootfs mail@mail.com\n');
  assert.deepEqual(snapshot(rootfs), before);
  assert.equal(canary.song, '');
}

const isRoot = process.getuid?.() === 0;

test(
  'hostile images: every byte is in its commit, and nothing runs',
  { skip: !isRoot && 'needs root' },
  async (t) => {
    for (const [name, build] of images) {
      await t.test(name, (row) => holds(row, build));
    }
  },
);

test("a user's own git does not change a byte of it either", async (t) => {
  const directory = scratch(t);
  const canary = new Canary(directory);
  const rootfs = path.join(directory, 'rootfs');
  const build = images[0]![1](canary);
  const home = path.join(directory, 'home');
  mkdirSync(home);
  writeFileSync(
    path.join(home, '.gitconfig'),
    `[core]\n\tautocrlf = true\n[filter "evil"]\n\tclean = ${canary.program}\n\tsmudge = ${canary.program}\n\trequired = true\n[filter "lfs"]\n\tprocess = ${canary.program}\n`,
  );
  await pullHostile(rootfs, build);
  const contents = (): string[] => snapshot(rootfs).map((line) => line.replace(/ \d+\.\d{9}/, ''));
  const before = contents();
  const call = (...command: string[]): string =>
    execFileSync('git', ['-C', rootfs, ...command], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { PATH: process.env['PATH'], HOME: home, GIT_CONFIG_NOSYSTEM: '1' },
    });
  call('checkout', branchOf(0));
  call('checkout', branchOf(2));
  assert.deepEqual(contents(), before);
  assert.equal(call('status', '--porcelain'), '');
  assert.equal(canary.song, '');
});

test('what is left in .git runs nothing', async (t) => {
  const directory = scratch(t);
  await pullHostile(path.join(directory, 'rootfs'), () => undefined);
  const keys = git(path.join(directory, 'rootfs'), 'config', '--local', '--name-only', '--list')
    .trim()
    .split('\n');
  const harmless =
    /^(core\.(repositoryformatversion|filemode|bare|logallrefupdates|autocrlf|ignorecase|precomposeunicode|protecthfs|protectntfs|fsmonitor|hookspath)|user\.(name|email)|fsck\.\w+)$/;
  assert.deepEqual(
    keys.filter((key) => !harmless.test(key)),
    [],
  );
  assert.equal(git(path.join(directory, 'rootfs'), 'config', 'core.fsmonitor'), 'false\n');
  assert.equal(git(path.join(directory, 'rootfs'), 'config', 'core.hooksPath'), '/dev/null\n');
  assert.ok(!existsSync(path.join(directory, 'rootfs/.git/hooks')));
});
