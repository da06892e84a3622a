import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkout } from '../../src/git/checkout.ts';
import { branchOf, git, idOf, scratch, type BuildLayer, snapshot, StageLayers } from './git.ts';
import { Stage } from './stage.ts';

/** A program that must never run: it leaves a file. */
class Canary {
  readonly program: string;
  readonly #sign: string;

  constructor(directory: string) {
    this.#sign = path.join(directory, 'canary-ran');
    this.program = path.join(directory, 'canary');
    writeFileSync(this.program, `#!/bin/sh\necho "$0 $*" >> ${this.#sign}\ncat\n`);
    chmodSync(this.program, 0o755);
  }

  /** What ran, if anything did. */
  get song(): string {
    return existsSync(this.#sign) ? readFileSync(this.#sign, 'utf8') : '';
  }
}

const hooks = [
  'applypatch-msg',
  'pre-commit',
  'prepare-commit-msg',
  'commit-msg',
  'post-commit',
  'post-checkout',
  'post-index-change',
  'post-rewrite',
  'pre-auto-gc',
  'reference-transaction',
  'fsmonitor-watchman',
];

function plantHooks(directory: string, canary: Canary): string {
  mkdirSync(directory, { recursive: true });
  for (const hook of hooks) {
    writeFileSync(path.join(directory, hook), `#!/bin/sh\n${canary.program} ${hook}\n`, { mode: 0o755 });
  }
  return directory;
}

/** Everything that a git configuration can make git run. */
function evilConfiguration(directory: string, canary: Canary): string {
  const { program } = canary;
  const template = path.join(directory, 'template');
  plantHooks(path.join(template, 'hooks'), canary);
  writeFileSync(path.join(directory, 'included'), `[core]\n\tfsmonitor = ${program}\n`);
  return `[core]
	fsmonitor = ${program}
	hooksPath = ${plantHooks(path.join(directory, 'hooks'), canary)}
	editor = ${program}
	pager = ${program}
	askPass = ${program}
	sshCommand = ${program}
	attributesFile = ${path.join(directory, 'attributes')}
	excludesFile = ${path.join(directory, 'excludes')}
	autocrlf = true
	eol = crlf
	ignoreCase = true
	precomposeUnicode = true
	protectNTFS = true
	protectHFS = true
	fileMode = false
	symlinks = false
	bare = true
	worktree = /nowhere
	sparseCheckout = true
[commit]
	gpgSign = true
	template = /nowhere
[gpg]
	program = ${program}
[gpg "ssh"]
	program = ${program}
[user]
	name = someone
	email = else@where
	signingKey = x
[init]
	templateDir = ${template}
	defaultBranch = other
	defaultObjectFormat = sha256
	defaultRefFormat = reftable
[filter "evil"]
	clean = ${program}
	smudge = ${program}
	required = true
[filter "lfs"]
	process = ${program}
	required = true
[diff]
	external = ${program}
[diff "evil"]
	textconv = ${program}
	command = ${program}
[merge "evil"]
	driver = ${program}
[include]
	path = ${path.join(directory, 'included')}
[includeIf "gitdir:/"]
	path = ${path.join(directory, 'included')}
[alias]
	checkout = !${program}
	status = !${program}
[credential]
	helper = !${program}
[gc]
	auto = 1
[fetch]
	recurseSubmodules = true
[submodule]
	recurse = true
[extensions]
	worktreeConfig = true
`;
}

/** Environments that a user, or who wants to harm them, may have. */
const environments: [name: string, make: (directory: string, canary: Canary) => Record<string, string>][] = [
  ['an ordinary one', () => ({})],
  [
    'a home with a configuration that runs programs everywhere',
    (directory, canary) => {
      writeFileSync(path.join(directory, '.gitconfig'), evilConfiguration(directory, canary));
      writeFileSync(path.join(directory, 'attributes'), '* filter=evil text eol=crlf\n');
      writeFileSync(path.join(directory, 'excludes'), '*\n');
      return { HOME: directory };
    },
  ],
  [
    'the same by XDG_CONFIG_HOME, GIT_CONFIG_GLOBAL and GIT_CONFIG_SYSTEM',
    (directory, canary) => {
      mkdirSync(path.join(directory, 'git'));
      const file = path.join(directory, 'git/config');
      writeFileSync(file, evilConfiguration(directory, canary));
      writeFileSync(path.join(directory, 'git/attributes'), '* filter=evil text eol=crlf\n');
      writeFileSync(path.join(directory, 'git/ignore'), '*\n');
      return { XDG_CONFIG_HOME: directory, GIT_CONFIG_GLOBAL: file, GIT_CONFIG_SYSTEM: file };
    },
  ],
  [
    'variables that bring configuration',
    (_, { program }) => ({
      GIT_CONFIG_COUNT: '2',
      GIT_CONFIG_KEY_0: 'core.fsmonitor',
      GIT_CONFIG_VALUE_0: program,
      GIT_CONFIG_KEY_1: 'filter.evil.smudge',
      GIT_CONFIG_VALUE_1: program,
      GIT_CONFIG_PARAMETERS: `'core.fsmonitor=${program}'`,
    }),
  ],
  [
    'variables that bring programs',
    (directory, { program }) => ({
      GIT_EDITOR: program,
      GIT_SEQUENCE_EDITOR: program,
      GIT_PAGER: program,
      GIT_EXTERNAL_DIFF: program,
      GIT_SSH_COMMAND: program,
      GIT_SSH: program,
      GIT_ASKPASS: program,
      GIT_PROXY_COMMAND: program,
      GIT_EXEC_PATH: directory,
      EDITOR: program,
      VISUAL: program,
      PAGER: program,
      SSH_ASKPASS: program,
    }),
  ],
  [
    'variables that lead elsewhere',
    (directory, canary) => {
      plantHooks(path.join(directory, 'template/hooks'), canary);
      return {
        GIT_DIR: path.join(directory, 'elsewhere.git'),
        GIT_WORK_TREE: directory,
        GIT_INDEX_FILE: path.join(directory, 'other-index'),
        GIT_OBJECT_DIRECTORY: path.join(directory, 'other-objects'),
        GIT_ALTERNATE_OBJECT_DIRECTORIES: '/nowhere',
        GIT_NAMESPACE: 'space',
        GIT_COMMON_DIR: directory,
        GIT_CEILING_DIRECTORIES: '/',
        GIT_TEMPLATE_DIR: path.join(directory, 'template'),
        GIT_ATTR_SOURCE: 'HEAD',
        GIT_REPLACE_REF_BASE: 'refs/heads/',
        GIT_GRAFT_FILE: '/nowhere',
        GIT_SHALLOW_FILE: '/nowhere',
        GIT_AUTHOR_NAME: 'someone',
        GIT_AUTHOR_DATE: '2001-01-01T00:00:00Z',
        GIT_COMMITTER_EMAIL: 'else@where',
        GIT_DEFAULT_HASH: 'sha256',
        GIT_DEFAULT_REF_FORMAT: 'reftable',
        GIT_TRACE: path.join(directory, 'trace'),
        GIT_TRACE2_EVENT: path.join(directory, 'trace2'),
        GIT_LITERAL_PATHSPECS: '0',
        GIT_OPTIONAL_LOCKS: '0',
      };
    },
  ],
  ['a PATH that begins where we are', (_directory, _canary) => ({ PATH: `.::bin:${process.env['PATH']}` })],
];

const attributes =
  '[attr]evil-macro filter=evil text\n* filter=evil diff=evil merge=evil text eol=crlf ident working-tree-encoding=UTF-16 export-ignore export-subst\n*.lfs filter=lfs -text\n* evil-macro\n';

/** Images that bring what git listens to. */
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

/** Pulls a base, the hostile layer, and one that removes it; returns what the rootfs was after each. */
async function pullHostile(
  directory: string,
  build: BuildLayer,
  environment: Record<string, string>,
): Promise<string[][]> {
  const stage = new Stage(directory);
  const layers = await StageLayers.open(directory, { environment });
  const snapshots: string[][] = [];
  const base: BuildLayer = () => stage.root().file('json', '{}\n').file('kept', 'line\n');
  const top: BuildLayer = () => stage.file('json', '{}\r\n').file('more');
  for (const [number, layer] of [base, build, top].entries()) {
    layer(stage);
    await layers.commit({ id: idOf(number) }, stage);
    snapshots.push(snapshot(stage.settle().path));
  }
  await layers.finish();
  stage.settle();
  return snapshots;
}

async function holds(
  t: TestContext,
  build: (canary: Canary) => BuildLayer,
  makeEnvironment: (typeof environments)[0][1],
) {
  const directory = scratch(t);
  const home = path.join(directory, 'home');
  mkdirSync(home);
  const canary = new Canary(directory);
  const environment = { PATH: process.env['PATH']!, ...makeEnvironment(home, canary) };
  const rootfs = path.join(directory, 'rootfs');

  const snapshots = await pullHostile(rootfs, build(canary), environment);
  assert.equal(canary.song, '', 'during the pull');
  assert.equal(git(rootfs, 'status', '--porcelain'), '');
  assert.equal(git(rootfs, 'fsck', '--strict', '--full', '--no-dangling'), '');
  assert.equal(git(rootfs, 'log', '-1', '--format=%an %ae', 'HEAD', '--'), 'dlrootfs mail@mail.com\n');
  assert.deepEqual(snapshot(rootfs), snapshots[2]);
  for (const number of [0, 2, 1]) {
    await checkout(rootfs, branchOf(number), { environment, force: false });
    assert.deepEqual(snapshot(rootfs), snapshots[number], branchOf(number));
  }
  assert.equal(git(rootfs, 'status', '--porcelain'), '');
  assert.equal(canary.song, '', 'during checkouts');
}

/** Of the images above those that a configuration or a variable could turn against us. */
function manyThings(canary: Canary): BuildLayer {
  return (stage) => {
    for (const index of [0, 2, 3]) images[index]![1](canary)(stage);
  };
}

const isRoot = process.getuid?.() === 0;
const [ordinary, ...strange] = environments;

test(
  'hostile images: every byte is in its commit, and nothing runs',
  { skip: !isRoot && 'needs root' },
  async (t) => {
    for (const [name, build] of images) {
      await t.test(name, (row) => holds(row, build, ordinary![1]));
    }
  },
);

test("a user's set-up: it does not play in", { skip: !isRoot && 'needs root' }, async (t) => {
  for (const [name, make] of strange) {
    await t.test(name, (row) => holds(row, manyThings, make));
  }
});

test('the canary sings where git is used without care', async (t) => {
  const directory = scratch(t);
  const canary = new Canary(directory);
  const rootfs = path.join(directory, 'rootfs');
  await pullHostile(rootfs, () => undefined, { PATH: process.env['PATH']! });
  writeFileSync(path.join(directory, '.gitconfig'), evilConfiguration(directory, canary));
  const careless = { PATH: process.env['PATH'], HOME: directory };
  try {
    execFileSync('git', ['init', path.join(directory, 'other')], { env: careless, stdio: 'ignore' });
    execFileSync('git', ['-C', path.join(directory, 'other'), 'status'], { env: careless, stdio: 'ignore' });
  } catch {
    // Nobody expects it to work.
  }
  assert.notEqual(canary.song, '');
});

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
  await pullHostile(rootfs, build, { PATH: process.env['PATH']! });
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
  await pullHostile(path.join(directory, 'rootfs'), () => undefined, { PATH: process.env['PATH']! });
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
