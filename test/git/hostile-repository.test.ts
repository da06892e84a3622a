import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  chownSync,
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
import { Scratch, runProgram, startProgram } from '../support/program.ts';
import { isThorough } from '../support/runs.ts';
import { printTree } from '../support/tree.ts';

// A container that has a -g rootfs as its / can write anything into /.git. Nothing of it may run, lead out of DIR, or hold the program up.

const skip = missing('root');
const SLOW_SECONDS = 30;

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

  /** What ran, if anything did. */
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

/** What root does with such a rootfs. */
type Command = [name: string, words: (rootfs: string) => string[]];

const commands: Command[] = [
  ['checkout', (rootfs) => ['checkout', 'layer0', '-d', rootfs]],
  ['checkout --force', (rootfs) => ['checkout', 'layer1', '-d', rootfs, '--force']],
  ['a further pull', (rootfs) => [registry.reference('lib/img', '2'), '-d', rootfs, '-g']],
  ['the same pull', (rootfs) => [registry.reference('lib/img', '1'), '-d', rootfs, '-g']],
];

const [checkoutCommand, , furtherPull] = commands as [Command, Command, Command, Command];

/** Runs commands on a rootfs of its own, spoilt; every one ends soon, in order or with an error that helps, and touches nothing outside. */
async function holds(spoil: (setting: Setting) => unknown, ran = commands): Promise<void> {
  for (const [name, words] of ran) {
    const setting = new Setting();
    using scratch = setting.scratch;
    await spoil(setting);
    const outside = printTree(setting.outside);
    const temporary = scratch.join('tmp');
    mkdirSync(temporary);
    const started = performance.now();
    const { exitCode, stderr } = await runProgram(words(setting.rootfs), {
      environment: { TMPDIR: temporary },
      timeoutMilliseconds: SLOW_SECONDS * 1000,
    });
    const seconds = (performance.now() - started) / 1000;
    assert.equal(setting.song, '', `${name}: ran\n${stderr}`);
    assert.equal(printTree(setting.outside), outside, `${name}: outside\n${stderr}`);
    assert.ok(seconds < SLOW_SECONDS, `${name}: took ${seconds} s\n${stderr}`);
    assert.ok(exitCode === 0 || exitCode === 7, `${name}: exit code ${exitCode}\n${stderr}`);
    if (exitCode === 7) assert.match(stderr, /^error: (?!.*bug).+\nhint: .+\n$/m, name);
    assert.deepEqual(readdirSync(temporary), [], `${name}: left behind`);
  }
}

/** Everything in a `.git` that makes git run a program. */
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

function careful(directory: string, ...words: readonly string[]): void {
  const who = ['-c', 'user.name=x', '-c', 'user.email=x'];
  execFileSync('git', ['-C', directory, ...who, ...words], {
    stdio: 'ignore',
    env: { PATH: process.env['PATH'] },
  });
}

test('a program that a repository names: it does not run', { skip }, async (t) => {
  for (const [name, spoil] of programs)
    await t.test(name, () => holds(spoil, [checkoutCommand, furtherPull]));
});

/** git as an unsuspecting user would call it, until something runs. */
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

test(
  'the table is in earnest: git runs these programs where it is used without care',
  { skip },
  async (t) => {
    for (const [name, spoil] of programs) {
      await t.test(name, async () => {
        const setting = new Setting();
        using _ = setting.scratch;
        await spoil(setting);
        naive(setting);
        assert.notEqual(setting.song, '');
      });
    }
  },
);

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

const names = [
  'HEAD',
  'config',
  'index',
  'packed-refs',
  'dlrootfs-checkout',
  'info',
  'info/exclude',
  'objects',
  'objects/pack',
  'refs',
  'refs/heads',
  'logs',
  'index.lock',
  'PACK',
  'IDX',
  'REF',
];

/** A name of the table as one in this repository. */
function actual(setting: Setting, name: string): string {
  const pack = packs(setting).find((one) => one.endsWith(name === 'IDX' ? '.idx' : '.pack'))!;
  const ref = () => readdirSync(setting.at('refs/heads'))[0]!;
  if (name === 'REF') return setting.at(`refs/heads/${ref()}`);
  return setting.at(name === 'PACK' || name === 'IDX' ? `objects/pack/${pack}` : name);
}

function replace(setting: Setting, name: string, make: (place: string) => unknown): unknown {
  const place = actual(setting, name);
  rmSync(place, { recursive: true, force: true });
  mkdirSync(path.dirname(place), { recursive: true });
  return make(place);
}

/** What may stand in a place where git has a file or a directory. */
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

/** A socket that stays when its listener is gone. */
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

/** Each pair (every third one, unless thorough) meets one of the commands; each obstacle meets all of them, each name at least three. */
test('anything in the place of a file of git: no hang, no bug, nothing outside', { skip }, async (t) => {
  for (const [row, [what, make]] of obstacles.entries()) {
    await t.test(what, async () => {
      const ran = names.map(async (name, column) => {
        if (!isThorough && (row + column) % 3 !== 0) return;
        const command = commands[Math.floor((row + column) / 3) % commands.length]!;
        await holds((setting) => replace(setting, name, (place) => make(setting, place)), [command]).catch(
          (error: unknown) => {
            throw new Error(`${what} at ${name}`, { cause: error });
          },
        );
      });
      await Promise.all(ran);
    });
  }
});

test(
  'a marker that another process holds open is no reason to wait: SIGTERM ends everything',
  { skip },
  async () => {
    const setting = new Setting();
    using scratch = setting.scratch;
    execFileSync('mkfifo', [setting.at('dlrootfs-checkout')]);
    const running = startProgram(['checkout', '0', '-d', setting.rootfs], { cwd: scratch.path });
    setTimeout(() => running.kill('SIGTERM'), 300);
    const { exitCode } = await running.result;
    assert.ok(exitCode === 7 || exitCode === 143);
  },
);

test('other things that lead elsewhere', { skip }, async (t) => {
  const rows: [name: string, spoil: (setting: Setting) => unknown][] = [
    [
      'alternates',
      (setting) => {
        mkdirSync(setting.at('objects/info'), { recursive: true });
        writeFileSync(setting.at('objects/info/alternates'), '/dev/zero\n../../../outside\n');
        writeFileSync(setting.at('objects/info/http-alternates'), 'http://localhost/\n');
      },
    ],
    [
      'grafts and shallow',
      (setting) => {
        writeFileSync(setting.at('info/grafts'), 'noise\n');
        writeFileSync(setting.at('shallow'), `${'0'.repeat(40)}\n`);
      },
    ],
    [
      'replaced objects',
      (setting) => {
        const id = execFileSync('git', ['-C', setting.rootfs, 'rev-parse', 'HEAD'], {
          encoding: 'utf8',
        }).trim();
        const other = execFileSync('git', ['-C', setting.rootfs, 'rev-parse', 'HEAD~1'], {
          encoding: 'utf8',
        });
        mkdirSync(setting.at('refs/replace'));
        writeFileSync(setting.at(`refs/replace/${id}`), other);
      },
    ],
    [
      'worktrees and modules',
      (setting) => {
        mkdirSync(setting.at('worktrees/x'), { recursive: true });
        writeFileSync(setting.at('worktrees/x/gitdir'), '/etc/passwd\n');
        mkdirSync(setting.at('modules/x'), { recursive: true });
        symlinkSync('/', setting.at('modules/x/config'));
      },
    ],
    [
      'a HEAD that climbs out',
      (setting) => writeFileSync(setting.at('HEAD'), 'ref: refs/heads/../../../outside/file\n'),
    ],
    ['a HEAD that names no branch', (setting) => writeFileSync(setting.at('HEAD'), 'ref: refs/heads/none\n')],
    [
      'refs that climb out',
      (setting) => writeFileSync(setting.at('packed-refs'), `${'1'.repeat(40)} refs/heads/../../x\n`),
    ],
    ['a ref to nothing', (setting) => writeFileSync(actual(setting, 'REF'), `${'1'.repeat(40)}\n`)],
    [
      'records to nothing',
      (setting) => {
        for (const name of readdirSync(setting.at('refs/dlrootfs'))) {
          writeFileSync(setting.at(`refs/dlrootfs/${name}`), `${'1'.repeat(40)}\n`);
        }
      },
    ],
    ['a pack that is cut off', (setting) => truncateSync(actual(setting, 'PACK'), 300)],
    ['a config that is none', (setting) => writeFileSync(setting.at('config'), '[core\n\0\n')],
    [
      'a format of the future',
      (setting) =>
        setting.configure(
          '[core]\n\trepositoryFormatVersion = 99\n[extensions]\n\tobjectFormat = sha256\n\trefStorage = reftable\n',
        ),
    ],
    ['a marker of a process that lives', (setting) => writeFileSync(setting.at('dlrootfs-checkout'), '1\n')],
  ];
  for (const [row, [name, spoil]] of rows.entries())
    await t.test(name, () => holds(spoil, [commands[row % commands.length]!]));
});

/** Gives layer 0 a record of the container's making. */
function forgeRecord(setting: Setting, lines: string): void {
  const ref = readdirSync(setting.at('refs/dlrootfs')).find((name) => name.startsWith('layer0_'))!;
  const call = (input: string, ...words: readonly string[]) =>
    execFileSync('git', ['-C', setting.rootfs, '-c', 'user.name=x', '-c', 'user.email=x', ...words], {
      input,
      encoding: 'utf8',
    }).trim();
  const id = call(`#mtree\n${lines}`, 'hash-object', '-w', '--stdin');
  const tree = call(`100644 blob ${id}\trecord.mtree\n`, 'mktree');
  const layer = call('', 'rev-parse', `refs/heads/${ref}`);
  const commit = call('', 'commit-tree', tree, '-p', layer, '-m', 'x');
  writeFileSync(setting.at(`refs/dlrootfs/${ref}`), `${commit}\n`);
}

test('records of the container’s own making', { skip }, async (t) => {
  const file0 = 'uid=0 gid=0 mode=644 time=1.0 size=1';
  const rows: [name: string, lines: string][] = [
    ['noise', 'x\u0001y=z\n'],
    ['an unknown type', './x type=door\n'],
    ['a path that climbs out', `./../outside/file type=file ${file0}\n`],
    ['a path that climbs out below', `./a type=dir\n./a/../../outside/file type=link link=/etc/passwd\n`],
    ['an absolute path', `.//etc/passwd type=file ${file0}\n`],
    ['a path into the repository', `./.git/config type=file ${file0}\n`],
    [
      'a link out, and a file through it',
      `./l type=link link=../outside time=1.0\n./l/file type=file ${file0}\n`,
    ],
    ['numbers that are none', './x type=file uid=x gid=-1 mode=99 time=zz size=1e999\n'],
    ['a hard link to nothing', './x type=hardlink link=./nothing\n'],
    ['a content that is an option', `./.x/.git/f type=file ${file0} contents=--help\n`],
    [
      'a content that is no blob',
      `./.x type=dir time=1.0 mode=755\n./.x/.git type=dir time=1.0 mode=755\n./.x/.git/f type=file ${file0} contents=../..\n`,
    ],
    ['a device with impossible numbers', './d type=char mode=666 time=1.0 device=linux,99999999,-5\n'],
    ['a very deep path', `./${'a/'.repeat(20_000)}x type=file ${file0}\n`],
    ['an attribute with an impossible name', './x type=dir mode=755 time=1.0 xattr.\\000\\001=AAAA\n'],
    ['a link to nowhere', './x type=link link= time=1.0\n'],
  ];
  for (const [name, lines] of rows)
    await t.test(name, () => holds((setting) => forgeRecord(setting, lines), [checkoutCommand]));
});

test('a commit with files that no rootfs can have', { skip }, async (t) => {
  for (const name of ['..', '.git', '.', 'a/../../b']) {
    await t.test(name, () =>
      holds(
        (setting) => {
          const call = (input: string | Buffer, ...words: readonly string[]) =>
            execFileSync('git', ['-C', setting.rootfs, '-c', 'user.name=x', '-c', 'user.email=x', ...words], {
              input,
              encoding: 'utf8',
            }).trim();
          const blob = call('evil', 'hash-object', '-w', '--stdin');
          const entry = Buffer.concat([Buffer.from(`100644 ${name}\0`), Buffer.from(blob, 'hex')]);
          const tree = call(entry, 'hash-object', '-w', '-t', 'tree', '--literally', '--stdin');
          const commit = call('', 'commit-tree', tree, '-p', 'HEAD', '-m', 'x');
          writeFileSync(setting.at('HEAD'), `${commit}\n`);
          const ref = readdirSync(setting.at('refs/heads')).find((one) => one.startsWith('layer0_'))!;
          writeFileSync(setting.at(`refs/heads/${ref}`), `${commit}\n`);
        },
        [checkoutCommand],
      ),
    );
  }
});

test(
  'changed owners, modes and extended attributes are the user’s: kept without --force',
  { skip },
  async (t) => {
    const rows: [name: string, change: (at: (name: string) => string) => unknown, named: string][] = [
      ['the mode of a file', (at) => chmodSync(at('tool'), 0o755), 'tool'],
      ['the mode of a directory', (at) => chmodSync(at('etc'), 0o700), 'etc'],
      ['the owner of a file', (at) => chownSync(at('etc/issue'), 1, 1), 'etc/issue'],
      ['the owner of a directory', (at) => chownSync(at('etc'), 0, 5), 'etc'],
      ['an attribute of a file', (at) => setAttribute(at('tool'), 'user.note'), 'tool'],
      ['an attribute of a directory', (at) => setAttribute(at('etc'), 'user.note'), 'etc'],
      ['an attribute of root', (at) => setAttribute(at('etc/issue'), 'trusted.note'), 'etc/issue'],
    ];
    for (const [what, change, named] of rows) {
      await t.test(what, async () => {
        const setting = new Setting();
        using _ = setting.scratch;
        change((name) => path.join(setting.rootfs, name));
        const before_ = printTree(setting.rootfs, { without: ['.git'] });
        const run = (...words: readonly string[]) => runProgram([...words, '-d', setting.rootfs]);
        const refused = await run('checkout', '0');
        assert.equal(refused.exitCode, 7, refused.stderr);
        assert.ok(
          refused.stderr.startsWith(`error: ${named} has an owner, a mode or an extended attribute`),
          refused.stderr,
        );
        const pulled = await run(registry.reference('lib/img', '2'), '-g');
        assert.equal(pulled.exitCode, 7, pulled.stderr);
        assert.equal(printTree(setting.rootfs, { without: ['.git'] }), before_);
        const forced = await run('checkout', '2', '--force');
        assert.equal(forced.exitCode, 0, forced.stderr);
        assert.equal(
          printTree(setting.rootfs, { without: ['.git'] }),
          printTree(pristine, { without: ['.git'] }),
        );
      });
    }
  },
);

function setAttribute(place: string, name: string): void {
  execFileSync('setfattr', ['-n', name, '-v', 'mine', place]);
}

test(
  'a process that swaps directories for links meanwhile: nothing is written outside',
  { skip },
  async () => {
    const setting = new Setting();
    using scratch = setting.scratch;
    const swap = (name: string) =>
      `mv ${name} ${name}.x; ln -s ${setting.outside} ${name}; rm ${name}; mv ${name}.x ${name}`;
    const loop = `while :; do ${swap('etc')}; ${swap('.git/info')}; ${swap('.git')}; done`;
    const swapper = spawn('sh', ['-c', loop], { cwd: setting.rootfs, stdio: 'ignore' });
    try {
      const outside = printTree(setting.outside, { hide: ['time'] });
      for (const branch of ['0', '2', '1', '0', '1', '2']) {
        const { exitCode, stderr } = await runProgram(['checkout', branch, '-d', setting.rootfs, '--force']);
        assert.ok(exitCode === 0 || exitCode === 7, stderr);
      }
      assert.equal(printTree(setting.outside, { hide: ['time'] }), outside);
    } finally {
      swapper.kill('SIGKILL');
      await once(swapper, 'close');
    }
    assert.ok(scratch.path !== '');
  },
);

test(
  'what a killed run left in the directory for temporary files goes with the next one',
  { skip },
  async () => {
    const setting = new Setting();
    using scratch = setting.scratch;
    const temporary = scratch.join('tmp');
    // No process has this number.
    mkdirSync(path.join(temporary, '.git.dlrootfs-4194305-0123456789ab/objects/pack'), { recursive: true });
    const environment = { TMPDIR: temporary };
    const { exitCode, stderr } = await runProgram(['checkout', '0', '-d', setting.rootfs], { environment });
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(readdirSync(temporary), []);

    chmodSync(temporary, 0o777);
    const open = await runProgram(['checkout', '1', '-d', setting.rootfs], { environment });
    assert.equal(open.exitCode, 7);
    assert.match(open.stderr, /^error: cannot use .* other users may replace files in it\nhint: .*TMPDIR/m);
  },
);

test('-g: 4,000 directories in directories, and few descriptors', { skip }, async () => {
  using scratch = new Scratch();
  const deep = Array.from({ length: 4000 }, () => 'd').join('/');
  registry.push('lib/deep', '1', { layers: [{ tar: tar(dir(deep), file(`${deep}/f`, 'x')) }] });
  const pull = (name: string, under: readonly string[] = []) =>
    runProgram([registry.reference('lib/deep', '1'), '-d', scratch.join(name), '-g', '-q'], { under });
  const { exitCode, stderr } = await pull('deep');
  assert.equal(exitCode, 0, stderr);
  for (const limit of [20, 24, 28, 32]) {
    const few = await pull('few', ['sh', '-c', `ulimit -n ${limit}; exec "$@"`, 'sh']);
    assert.equal(few.exitCode, 7, few.stderr);
    assert.match(few.stderr, /^error: (?!.*TypeError).+\nhint: .*ulimit/m);
  }
  execFileSync('rm', ['-rf', scratch.join('deep')]);
});

test('checkout: 2,100 directories in directories, gone and back', { skip }, async () => {
  using scratch = new Scratch();
  const deep = Array.from({ length: 2100 }, () => 'd').join('/');
  const layers = [{ tar: tar(file('base', '')) }, { tar: tar(dir(deep), file(`${deep}/f`, 'x')) }];
  registry.push('lib/deeper', '1', { layers });
  const pulled = await runProgram([registry.reference('lib/deeper', '1'), '-d', scratch.join('deep'), '-g']);
  assert.equal(pulled.exitCode, 0, pulled.stderr);
  const files = () =>
    execFileSync('find', [scratch.join('deep'), '-name', 'f', '-size', '1c', '-printf', '%d'], {
      encoding: 'utf8',
    });
  for (const [branch, depth] of [
    ['0', ''],
    ['1', '2101'],
  ] as const) {
    const back = await runProgram(['checkout', branch, '-d', scratch.join('deep')]);
    assert.equal(back.exitCode, 0, back.stderr);
    assert.equal(files(), depth);
  }
  execFileSync('rm', ['-rf', scratch.join('deep')]);
});
