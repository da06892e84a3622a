import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { dir, file, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch, runProgram } from '../support/program.ts';
import { printTree } from '../support/tree.ts';

// A container whose / is a rootfs with -g can write any file into /.git.

const skip = missing('root');

/** A rootfs that was pulled with -g, a directory outside it, and a program that must never run. */
class Setting {
  readonly scratch = new Scratch();
  readonly rootfs = this.scratch.join('rootfs');
  readonly git = this.scratch.join('rootfs', '.git');
  readonly outside = this.scratch.join('outside');
  readonly canary = this.scratch.join('canary.sh');
  readonly sign = this.scratch.join('canary-ran');

  constructor() {
    execFileSync('cp', ['-a', pristine, this.rootfs]);
    mkdirSync(this.outside);
    writeFileSync(this.scratch.join('outside/file'), 'precious\n');
    writeFileSync(this.canary, `#!/bin/sh\necho "$0 $*" >> ${this.sign}\nexec cat </dev/null\n`, {
      mode: 0o755,
    });
  }

  /** The record of programs that ran; empty if none did. */
  get song(): string {
    return existsSync(this.sign) ? readFileSync(this.sign, 'utf8') : '';
  }

  at(name: string): string {
    return path.join(this.git, name);
  }

  configure(text: string): void {
    appendFileSync(this.at('config'), text.replaceAll('CANARY', this.canary));
  }

  /** A file's content changes, so that git would have to look into it. */
  touch(): void {
    writeFileSync(path.join(this.rootfs, 'etc/issue'), 'changed in the container\n');
  }
}

let library: Scratch;
let registry: FakeRegistry;
let pristine: string;

before(async () => {
  library = new Scratch();
  registry = await FakeRegistry.start();
  const base = {
    tar: tar(dir('etc', { mtime: 1 }), file('etc/motd', 'hello\n'), file('etc/issue', 'one\n')),
  };
  const middle = { tar: tar(whiteout('etc/motd'), file('tool', '#!/bin/sh\n', { mode: 0o4755 })) };
  registry.push('lib/img', '1', { layers: [base, middle, { tar: tar(file('etc/top', 'one\n')) }] });
  registry.push('lib/img', '2', { layers: [base, middle, { tar: tar(file('etc/top', 'two\n')) }] });
  pristine = library.join('pristine');
  const pulled = await runProgram([registry.reference('lib/img', '1'), '-d', pristine, '-g', '-q']);
  assert.equal(pulled.exitCode, 0, pulled.stderr);
});

after(async () => {
  library[Symbol.dispose]();
  await registry[Symbol.asyncDispose]();
});

/** Files in `.git` that make git run a program, each with a change that makes them. */
const programs: [name: string, spoil: (setting: Setting) => unknown][] = [
  [
    'filters by info/attributes',
    (setting) => {
      writeFileSync(setting.at('info/attributes'), '* filter=evil diff=evil merge=evil\n');
      setting.configure('[filter "evil"]\n\tclean = CANARY\n\tsmudge = CANARY\n\trequired = true\n');
      setting.touch();
    },
  ],
  [
    'a filter process',
    (setting) => {
      writeFileSync(setting.at('info/attributes'), '* filter=evil\n');
      setting.configure('[filter "evil"]\n\tprocess = CANARY\n\trequired = true\n');
      setting.touch();
    },
  ],
  [
    'core.attributesFile',
    (setting) => {
      rmSync(setting.at('info/attributes'));
      writeFileSync(path.join(setting.rootfs, 'evil'), '* filter=evil\n');
      setting.configure(`[core]\n\tattributesFile = ${setting.rootfs}/evil\n`);
      setting.configure('[filter "evil"]\n\tclean = CANARY\n\tsmudge = CANARY\n');
      setting.touch();
    },
  ],
  [
    'attributes in the tree',
    (setting) => {
      rmSync(setting.at('info/attributes'));
      writeFileSync(path.join(setting.rootfs, '.gitattributes'), '* filter=evil\n');
      setting.configure('[filter "evil"]\n\tclean = CANARY\n\tsmudge = CANARY\n');
      setting.touch();
    },
  ],
  [
    'include.path',
    (setting) => {
      writeFileSync(path.join(setting.rootfs, 'more'), `[core]\n\tfsmonitor = ${setting.canary}\n`);
      setting.configure(
        `[include]\n\tpath = ${setting.rootfs}/more\n[includeIf "gitdir:/"]\n\tpath = ../more\n`,
      );
    },
  ],
  ['core.fsmonitor', (setting) => setting.configure('[core]\n\tfsmonitor = CANARY\n')],
  [
    'hooks',
    (setting) => {
      mkdirSync(setting.at('hooks'));
      for (const hook of ['post-checkout', 'post-index-change', 'reference-transaction', 'pre-auto-gc']) {
        copyFileSync(setting.canary, setting.at(`hooks/${hook}`));
      }
      setting.configure(`[core]\n\thooksPath = ${setting.at('hooks')}\n`);
    },
  ],
  [
    'config.worktree',
    (setting) => {
      setting.configure('[core]\n\trepositoryFormatVersion = 1\n[extensions]\n\tworktreeConfig = true\n');
      writeFileSync(setting.at('config.worktree'), `[core]\n\tfsmonitor = ${setting.canary}\n`);
    },
  ],
  [
    'a promisor remote that has what is missing',
    (setting) => {
      setting.configure(
        '[core]\n\trepositoryFormatVersion = 1\n\tsshCommand = CANARY\n[extensions]\n\tpartialClone = evil\n' +
          '[remote "evil"]\n\turl = /\n\tpromisor = true\n\tuploadpack = CANARY\n' +
          '[protocol]\n\tallow = always\n',
      );
      for (const name of packs(setting)) rmSync(setting.at(`objects/pack/${name}`));
    },
  ],
  [
    'a remote by ssh that has what is missing',
    (setting) => {
      setting.configure(
        '[core]\n\trepositoryFormatVersion = 1\n\tsshCommand = CANARY\n[extensions]\n\tpartialClone = evil\n' +
          '[remote "evil"]\n\turl = ssh://localhost/x\n\tpromisor = true\n',
      );
      for (const name of packs(setting)) writeFileSync(setting.at(`objects/pack/${name}`), '');
    },
  ],
  [
    'a submodule with a configuration of its own',
    (setting) => {
      const inner = path.join(setting.rootfs, 'sub');
      execFileSync('git', ['init', '-q', inner]);
      writeFileSync(path.join(inner, 'f'), '');
      for (const words of [
        ['add', 'f'],
        ['commit', '-qm', 'x'],
      ])
        careful(inner, ...words);
      careful(setting.rootfs, 'add', 'sub');
      careful(setting.rootfs, 'commit', '-qm', 'sub');
      appendFileSync(path.join(inner, '.git/config'), `[core]\n\tfsmonitor = ${setting.canary}\n`);
      setting.configure(
        '[submodule]\n\trecurse = true\n[submodule "sub"]\n\tactive = true\n\tupdate = !CANARY\n',
      );
    },
  ],
  [
    'commondir',
    (setting) => {
      renameSync(setting.at('config'), setting.at('old-config'));
      execFileSync('cp', ['-a', setting.git, path.join(setting.rootfs, 'common')]);
      writeFileSync(
        path.join(setting.rootfs, 'common/config'),
        `[core]\n\trepositoryFormatVersion = 0\n\tfsmonitor = ${setting.canary}\n`,
      );
      writeFileSync(setting.at('commondir'), '../common\n');
    },
  ],
  [
    'a file .git that leads to another repository',
    (setting) => {
      renameSync(setting.git, path.join(setting.rootfs, 'evil'));
      writeFileSync(setting.git, 'gitdir: evil\n');
      appendFileSync(path.join(setting.rootfs, 'evil/config'), `[core]\n\tfsmonitor = ${setting.canary}\n`);
    },
  ],
  [
    'a link .git that leads to another repository',
    (setting) => {
      renameSync(setting.git, path.join(setting.outside, 'evil'));
      symlinkSync('../outside/evil', setting.git);
      appendFileSync(path.join(setting.outside, 'evil/config'), `[core]\n\tfsmonitor = ${setting.canary}\n`);
    },
  ],
  [
    'everything else that has a program as its value',
    (setting) => {
      setting.configure(
        '[core]\n\teditor = CANARY\n\tpager = CANARY\n\taskPass = CANARY\n\tgitProxy = CANARY\n\talternateRefsCommand = CANARY\n' +
          '[diff]\n\texternal = CANARY\n[diff "evil"]\n\ttextconv = CANARY\n\tcommand = CANARY\n[merge "evil"]\n\tdriver = CANARY\n' +
          '[gpg]\n\tprogram = CANARY\n[commit]\n\tgpgSign = true\n[credential]\n\thelper = !CANARY\n[uploadpack]\n\tpackObjectsHook = CANARY\n' +
          '[alias]\n\tcheckout = !CANARY\n\tcat-file = !CANARY\n\tfor-each-ref = !CANARY\n\tls-tree = !CANARY\n\tupdate-ref = !CANARY\n' +
          '[sequence]\n\teditor = CANARY\n[pager]\n\tls-tree = CANARY\n\tcat-file = CANARY\n[trace2]\n\teventTarget = CANARY\n',
      );
      setting.touch();
    },
  ],
];

function packs(setting: Setting): string[] {
  return readdirSync(setting.at('objects/pack'));
}

function careful(directory: string, ...words: readonly string[]): string {
  const who = ['-c', 'user.name=x', '-c', 'user.email=x'];
  return execFileSync('git', ['-C', directory, ...who, ...words], {
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
  });
}

/** Runs git as an unsuspecting user does, until a program has run. */
function naive(setting: Setting): void {
  for (const words of [
    ['status'],
    ['diff'],
    ['checkout', '-f', 'HEAD~1'],
    ['show', 'HEAD~1'],
    ['add', '-A'],
  ]) {
    if (existsSync(setting.sign)) return;
    spawnSync('git', ['-C', setting.rootfs, ...words], { env: { PATH: process.env['PATH'] }, timeout: 2000 });
  }
}

test('git used without care runs each program of the table', { skip }, async (t) => {
  for (const [name, spoil] of programs) {
    await t.test(name, async () => {
      const setting = new Setting();
      using _ = setting.scratch;
      await spoil(setting);
      naive(setting);
      assert.notEqual(setting.song, '');
    });
  }
});

test('the commands of docs/git.md look at a hostile repository and run nothing', { skip }, async (t) => {
  const readme = readFileSync(new URL('../../docs/git.md', import.meta.url), 'utf8');
  const block = /^ {4}git clone --no-local .*\n(?: {4}.*\n)+/m.exec(readme)?.[0] ?? '';
  const lines = block.split('\n').flatMap((line) => line.replace(/ #.*/, '').trim() || []);
  assert.deepEqual(
    lines.map((line) => / (clone|reset|diff) /.exec(line)?.[1]),
    ['clone', 'reset', 'diff'],
  );
  const run = (setting: Setting, command: string) => {
    const heads = path.join(setting.scratch.path, 'copy.git/packed-refs');
    const refs = existsSync(heads) ? readFileSync(heads, 'utf8') : '';
    const branch = /refs\/heads\/(layer2_\w+)/.exec(refs)?.[1] ?? 'HEAD';
    return spawnSync('sh', ['-c', command.replace('layer2_…', branch)], {
      cwd: setting.scratch.path,
      env: { PATH: process.env['PATH'], HOME: '/nonexistent' },
      timeout: 20_000,
      encoding: 'utf8',
    });
  };
  for (const [name, spoil] of programs) {
    await t.test(name, async () => {
      const setting = new Setting();
      using scratch = setting.scratch;
      await spoil(setting);
      for (const command of lines) {
        const { stderr } = run(setting, command);
        assert.equal(setting.song, '', `${command}: ${stderr}`);
      }
      assert.equal(readFileSync(scratch.join('outside/file'), 'utf8'), 'precious\n');
    });
  }
  const setting = new Setting();
  using scratch = setting.scratch;
  setting.touch();
  const ended = lines.map((command) => run(setting, command));
  assert.deepEqual(
    ended.map(({ status }) => status),
    [0, 0, 0],
    ended.map(({ stderr }) => stderr).join(''),
  );
  const branches = readFileSync(scratch.join('copy.git/packed-refs'), 'utf8').match(/(?<=refs\/heads\/)\w+/g);
  assert.deepEqual(
    branches?.map((name) => name.slice(0, 7)),
    ['layer0_', 'layer1_', 'layer2_'],
  );
  const changes = ended[2]!.stdout.match(/^[-+]\w.*/gm);
  assert.deepEqual(changes, ['-one', '+changed in the container']);
});

/** Obstacles at the path of one of git's files or directories. */
const obstacles: [what: string, make: (setting: Setting, place: string) => unknown][] = [
  ['a link to a file of root outside', ({ outside }, place) => symlinkSync(`${outside}/file`, place)],
  ['a link to a directory outside', ({ outside }, place) => symlinkSync(outside, place)],
  ['a link to nothing outside', ({ outside }, place) => symlinkSync(`${outside}/new`, place)],
  ['a FIFO', (_, place) => execFileSync('mkfifo', [place])],
  ['a device without an end', (_, place) => execFileSync('mknod', [place, 'c', '1', '5'])],
  ['a socket', (_, place) => listenOn(place)],
  [
    'a file of a terabyte',
    (_, place) => {
      writeFileSync(place, '');
      truncateSync(place, 2 ** 40);
    },
  ],
  [
    'noise',
    (_, place) =>
      writeFileSync(place, Buffer.from(Array.from({ length: 5000 }, (__, at) => (at * 7919) % 251))),
  ],
  ['nothing in a file', (_, place) => writeFileSync(place, '')],
  ['an empty directory', (_, place) => mkdirSync(place)],
];

/** Makes a socket that remains when its listener has ended. */
async function listenOn(place: string): Promise<void> {
  const short = path.join(tmpdir(), `dlrootfs-test-${randomUUID()}`);
  const server = createServer().listen(short);
  await new Promise((resolve) => {
    server.once('listening', resolve);
  });
  renameSync(short, place);
  await new Promise((resolve) => {
    server.close(resolve);
  });
}

/** Commands of root on such a rootfs, with their exit codes. */
const commands: readonly (readonly [words: readonly string[], exitCode: number])[] = [
  [['-g'], 7],
  [['-g', '--replace'], 0],
];

test(
  'a pull reads nothing of a repository, and --replace removes it as any other files',
  { skip },
  async (t) => {
    const spoils = [
      ...programs.filter(([name]) => /^(hooks|filters|a link|everything)/.test(name)),
      ...obstacles.map(
        ([name, make]) =>
          [
            name,
            (setting: Setting) => {
              rmSync(setting.at('HEAD'));
              return make(setting, setting.at('HEAD'));
            },
          ] as const,
      ),
    ];
    for (const [name, spoil] of spoils) {
      await t.test(name, async () => {
        const setting = new Setting();
        using _ = setting.scratch;
        await spoil(setting);
        const outside = printTree(setting.outside);
        for (const [words, expected] of commands) {
          const argv = [registry.reference('lib/img', '2'), '-d', setting.rootfs, ...words];
          const { exitCode, stderr } = await runProgram(argv);
          assert.equal(exitCode, expected, stderr);
          if (expected === 7)
            assert.match(stderr, /^error: cannot unpack into .*: it is not empty\nhint: .*--replace/);
          assert.equal(setting.song, '', stderr);
          assert.equal(printTree(setting.outside), outside);
        }
        assert.equal(readFileSync(path.join(setting.rootfs, 'etc/top'), 'utf8'), 'two\n');
        assert.equal(careful(setting.rootfs, 'fsck', '--strict', '--full'), '');
        assert.equal(careful(setting.rootfs, 'status', '--porcelain'), '');
      });
    }
  },
);

test('-g: 2,000 directories in directories, and few descriptors', { skip }, async () => {
  using scratch = new Scratch();
  const deep = Array.from({ length: 2000 }, () => 'd').join('/');
  registry.push('lib/deep', '1', { layers: [{ tar: tar(dir(deep), file(`${deep}/f`, 'x')) }] });
  const pull = (name: string, under: readonly string[] = []) =>
    runProgram([registry.reference('lib/deep', '1'), '-d', scratch.join(name), '-g', '-q'], { under });
  const { exitCode, stderr } = await pull('deep');
  assert.equal(exitCode, 0, stderr);
  for (const limit of [24, 32]) {
    const few = await pull('few', ['sh', '-c', `ulimit -n ${limit}; exec "$@"`, 'sh']);
    assert.equal(few.exitCode, 7, few.stderr);
    assert.match(few.stderr, /^error: (?!.*TypeError).+\nhint: .*ulimit/m);
  }
  execFileSync('rm', ['-rf', scratch.join('deep')]);
});
