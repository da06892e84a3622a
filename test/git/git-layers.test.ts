import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, lstatSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { GitError } from '../../src/errors.ts';
import { GitLayers } from '../../src/git/git-layers.ts';
import { findGit } from '../../src/git/git-program.ts';
import { ChangeLog } from '../../src/rootfs/changes.ts';
import { ContentWriter } from '../../src/rootfs/contents.ts';
import { createRing } from '../../src/sys/ring.ts';
import { branchOf, git, idOf, noCommit, pullLayers, scratch, StageLayers, type BuildLayer } from './git.ts';
import { Stage } from './stage.ts';

const threeLayers: BuildLayer[] = [
  (stage) =>
    stage.root().directory('etc').file('etc/motd', 'hello\n').file('json', '{0}').file('layersize', '10'),
  (stage) => stage.file('etc/issue').file('json', '{1}').file('layersize', '20'),
  (stage) => stage.remove('etc/motd').file('json', '{2}').file('layersize', '30'),
];

test('one branch a layer, one on top of the other, the last one checked out', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, threeLayers);
  assert.equal(git(directory, 'branch'), `  ${branchOf(0)}\n  ${branchOf(1)}\n* ${branchOf(2)}\n`);
  assert.equal(git(directory, 'status', '--porcelain'), '');
  const log = git(directory, 'log', '--format=%D|%an|%ae|%cn|%ce|%s|%cI', branchOf(2));
  assert.equal(log, logLine(2, `HEAD -> ${branchOf(2)}`) + logLine(1, branchOf(1)) + logLine(0, branchOf(0)));
  assert.equal(git(directory, 'config', 'user.name'), 'dlrootfs\n');
  assert.equal(git(directory, 'config', 'user.email'), 'mail@mail.com\n');
});

test('each commit holds what the rootfs was after its layer, json and layersize as well', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, threeLayers);
  const names = (number: number): string => git(directory, 'ls-tree', '-r', '--name-only', branchOf(number));
  assert.equal(names(0), 'etc/motd\njson\nlayersize\n');
  assert.equal(names(1), 'etc/issue\netc/motd\njson\nlayersize\n');
  assert.equal(names(2), 'etc/issue\njson\nlayersize\n');
  for (const number of [0, 1, 2])
    assert.equal(git(directory, 'show', `${branchOf(number)}:json`), `{${number}}`);
  assert.equal(
    git(directory, 'diff', '--name-status', branchOf(1), branchOf(2)),
    'D\tetc/motd\nM\tjson\nM\tlayersize\n',
  );
});

test('the same layers give the same commits, whenever they are pulled', async (t) => {
  const directory = scratch(t);
  await pullLayers(path.join(directory, 'one'), threeLayers);
  await pullLayers(path.join(directory, 'other'), threeLayers);
  const commits = (name: string): string => git(path.join(directory, name), 'for-each-ref');
  assert.equal(commits('one'), commits('other'));
});

test('a layer without a good date is committed as of now; one from before 1970 as of then', async (t) => {
  const directory = scratch(t);
  const rootfs = new Stage(directory);
  const layers = new StageLayers(directory);
  const before = Math.floor(Date.now() / 1000);
  for (const [number, created] of [undefined, 'yesterday', '0001-01-01T00:00:00Z'].entries()) {
    rootfs.file(`file${number}`);
    await layers.commit({ id: idOf(number), created }, rootfs);
  }
  await layers.finish();
  const [last, ...others] = git(directory, 'log', '--format=%ct').trim().split('\n').map(Number);
  assert.equal(last, 0);
  for (const time of others) assert.ok(time >= before && time <= before + 100);
});

test('layers that change nothing, and that undo themselves, are commits too', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, [
    (stage) => stage.file('json', '{}'),
    () => undefined,
    (stage) => stage.directory('a').file('a/b').symlink('c', 'a').remove('a').remove('c'),
  ]);
  assert.equal(git(directory, 'ls-tree', '-r', '--name-only', 'HEAD'), 'json\n');
  assert.equal(git(directory, 'rev-list', '--count', 'HEAD'), '3\n');
});

test('what replaces something of another type', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, [
    (stage) =>
      stage
        .file('file')
        .directory('folder')
        .file('folder/inner')
        .symlink('link', 'file')
        .file('to-fifo')
        .file('back'),
    (stage) =>
      stage
        .remove('file')
        .directory('file')
        .file('file/inner')
        .remove('folder')
        .symlink('folder', 'file')
        .remove('link')
        .file('link')
        .remove('to-fifo')
        .fifo('to-fifo')
        .remove('back')
        .directory('back')
        .remove('back')
        .file('back', 'again', { mode: 0o755 }),
  ]);
  assert.deepEqual(
    git(directory, 'ls-tree', '-r', '--format=%(objectmode) %(path)', 'HEAD').trim().split('\n'),
    ['100755 back', '100644 file/inner', '120000 folder', '100644 link'],
  );
  assert.equal(git(directory, 'status', '--porcelain'), '');
});

test('names of any bytes', async (t) => {
  const directory = scratch(t);
  const names = [
    'caf\xe9',
    'caf\xc3\xa9',
    'cafe\xcc\x81',
    'new\nline',
    'tab\tand "quotes" and \\',
    '"quoted"',
    '\\n',
    ' leading',
    'trailing ',
    '-dash',
    ':colon',
    '.gitignore',
    'README',
    'Readme',
    'a\\b',
    'git~1',
    '.g\xe2\x80\x8cit',
    'CON',
    '\x01\x02\x7f\xff',
    '*?[x]',
    'x'.repeat(255),
  ];
  await pullLayers(directory, [
    (stage) => {
      for (const name of names) stage.file(name, `of ${name}`);
    },
    (stage) => {
      for (const name of names) stage.remove(name).directory(name).file(`${name}/${name}`, 'below');
    },
    (stage) => {
      for (const name of names.slice(0, 5)) stage.remove(`${name}/${name}`);
    },
  ]);
  const listed = (number: number): string[] =>
    git(directory, 'ls-tree', '-r', '-z', '--name-only', branchOf(number)).split('\0').slice(0, -1);
  assert.deepEqual(new Set(listed(0)), new Set(names));
  assert.deepEqual(new Set(listed(1)), new Set(names.map((name) => `${name}/${name}`)));
  assert.deepEqual(new Set(listed(2)), new Set(names.slice(5).map((name) => `${name}/${name}`)));
  assert.equal(git(directory, 'status', '--porcelain'), '');
  assert.equal(git(directory, 'fsck', '--strict', '--full'), '');
});

test('modes: whether the owner may run it', async (t) => {
  const directory = scratch(t);
  const modes = [0o000, 0o644, 0o600, 0o755, 0o100, 0o011, 0o4755, 0o2644, 0o1777];
  await pullLayers(directory, [
    (stage) => {
      for (const mode of modes) stage.file(`m${mode.toString(8).padStart(4, '0')}`, 'x', { mode });
    },
  ]);
  const listing = git(directory, 'ls-tree', '--format=%(path) %(objectmode)', 'HEAD').trim().split('\n');
  assert.deepEqual(
    listing,
    modes
      .map((mode) => `m${mode.toString(8).padStart(4, '0')} ${(mode & 0o100) === 0 ? '100644' : '100755'}`)
      .toSorted(),
  );
  assert.equal(git(directory, 'status', '--porcelain'), '');
});

test('what git cannot hold is in no commit, and git status does not show it', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, [
    (stage) =>
      stage
        .directory('sub')
        .directory('sub/.git')
        .file('sub/.git/config')
        .file('kept')
        .symlink('.gitmodules', 'x')
        .hardlink('sub/file', 'sub/.git/config')
        .directory('alone')
        .directory('alone/.GIT')
        .file('alone/.GIT/HEAD', 'in no commit'),
  ]);
  assert.equal(git(directory, 'ls-files'), 'kept\nsub/file\n');
  assert.equal(git(directory, 'show', 'HEAD:sub/file'), 'content of sub/.git/config\n');
  assert.equal(git(directory, 'status', '--porcelain'), '');
  assert.match(git(directory, 'fsck', '--strict', '--full'), /^(dangling blob \w+\n)+$/);
});

test('content of any size, each once', async (t) => {
  const directory = scratch(t);
  const sizes = [
    0, 1, 63, 64, 65_534, 65_535, 65_536, 131_070, 131_071, 4_000_000, 4_194_304, 9_000_001, 40_000_000,
  ];
  const contents = sizes.map((size) => randomBytes(size));
  await pullLayers(directory, [
    (stage) => {
      for (const [index, bytes] of contents.entries()) stage.file(`f${index}`, bytes);
    },
    (stage) => {
      for (const [index, bytes] of contents.entries()) stage.file(`again${index}`, bytes);
    },
  ]);
  assert.equal(git(directory, 'fsck', '--strict', '--full'), '');
  for (const [index, bytes] of contents.entries()) {
    const id = createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
    for (const name of ['f', 'again'])
      assert.equal(git(directory, 'rev-parse', `HEAD:${name}${index}`).trim(), id);
  }
  const packs = readdirSync(path.join(directory, '.git/objects/pack')).filter((name) =>
    name.endsWith('.pack'),
  );
  const total = packs.reduce(
    (sum, name) => sum + readFileSync(path.join(directory, '.git/objects/pack', name)).length,
    0,
  );
  assert.ok(total < 1.01 * sizes.reduce((sum, size) => sum + size, 0), `${total} bytes`);
});

test('a directory whose tree takes more memory than the writer begins with', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, [
    (stage) => {
      stage.directory('wide');
      for (let number = 0; number < 4000; number += 1)
        stage.file(`wide/${'name-'.repeat(12)}${number}`, `${number}`);
    },
    (stage) => stage.file('wide/one-more'),
  ]);
  assert.equal(git(directory, 'fsck', '--strict', '--full'), '');
  assert.equal(git(directory, 'status', '--porcelain'), '');
});

test('hard links: content also where a later layer removed the first name', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, [
    (stage) => stage.file('first', 'shared', { mode: 0o755 }).hardlink('second', 'first'),
    (stage) => stage.remove('first').hardlink('third', 'second').file('first', 'new'),
  ]);
  assert.equal(git(directory, 'show', 'HEAD:second'), 'shared');
  assert.equal(git(directory, 'show', 'HEAD:third'), 'shared');
  assert.equal(git(directory, 'show', 'HEAD:first'), 'new');
  assert.equal(git(directory, 'status', '--porcelain'), '');
});

test('nothing of the repository depends on where it is', async (t) => {
  const directory = scratch(t);
  await pullLayers(path.join(directory, 'stage'), threeLayers);
  renameSync(path.join(directory, 'stage'), path.join(directory, 'final'));
  assert.equal(git(path.join(directory, 'final'), 'status', '--porcelain'), '');
});

test('the index is such that git reads no file to know that nothing changed', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, threeLayers);
  const index = readFileSync(path.join(directory, '.git/index'));
  git(directory, 'update-index', '--refresh');
  git(directory, 'status');
  assert.deepEqual(firstEntry(readFileSync(path.join(directory, '.git/index'))), firstEntry(index));
});

test('the same where later layers gave files further names, or took some', async (t) => {
  const directory = scratch(t);
  await pullLayers(directory, [
    (stage) => stage.file('a').file('b').file('c').hardlink('c2', 'c').symlink('s', 'a').symlink('u', 'b'),
    (stage) => stage.hardlink('a2', 'a').file('d').hardlink('s2', 's').remove('u'),
    (stage) => stage.remove('c').file('b', 'other').remove('a2').symlink('u', 'd'),
  ]);
  const index = readFileSync(path.join(directory, '.git/index'));
  assert.equal(git(directory, 'ls-files'), 'a\nb\nc2\nd\ns\ns2\nu\n');
  git(directory, 'update-index', '--refresh');
  git(directory, 'status');
  assert.ok(index.equals(readFileSync(path.join(directory, '.git/index'))));
});

/** Returns a log of the changes in a stage, without their contents, and a writer of contents. */
function changesAlone(layers: GitLayers): { readonly changes: ChangeLog; readonly contents: ContentWriter } {
  const changes = new ChangeLog(new ContentWriter(createRing()), (records) => layers.note(records));
  return { changes, contents: new ContentWriter(layers.contents) };
}

test('the rootfs may change as soon as commit has returned; blobs may be named later', async (t) => {
  const directory = scratch(t);
  const layers = GitLayers.open(findGit(process.env), directory);
  const { changes, contents: writer } = changesAlone(layers);
  const stage = new Stage(directory);
  stage.file('a', 'one').file('gone', 'two').hardlink('b', 'a').tell(changes);
  await layers.commit({ id: idOf(0) });
  stage.file('a', 'three').remove('gone').tell(changes);
  stage.hardlink('c', 'b').tell(changes);
  const second = layers.commit({ id: idOf(1) });
  for (const content of ['one', 'two', 'three']) writer.write(Buffer.from(content));
  writer.flush();
  await second;
  writer.end();
  await layers.finish();
  const contents = (number: number): string[] =>
    git(directory, 'ls-tree', '--format=%(path) %(objectname)', branchOf(number)).trim().split('\n');
  const [one, two, three] = ['one', 'two', 'three'].map((content) =>
    createHash('sha1').update(`blob ${content.length}\0${content}`).digest('hex'),
  );
  assert.deepEqual(contents(0), [`a ${one}`, `b ${one}`, `gone ${two}`]);
  assert.deepEqual(contents(1), [`a ${three}`, `b ${one}`, `c ${one}`]);
  assert.equal(git(directory, 'status', '--porcelain'), '');
});

test('contents that are not those of the changes are refused: none gets into a commit', async (t) => {
  const rows: [what: string, write: (writer: ContentWriter) => void][] = [
    ['one is missing', (writer) => writer.write(Buffer.from('one'))],
    [
      'one more than there are files',
      (writer) => {
        for (const text of ['one', 'two', 'three']) writer.write(Buffer.from(text));
      },
    ],
    [
      'one is left out',
      (writer) => {
        writer.write(Buffer.from('one'));
        writer.count += 1;
        writer.write(Buffer.from('two'));
      },
    ],
    [
      'one is shorter than was said',
      (writer) => {
        writer.begin(4);
        writer.add(Buffer.from('one'));
        writer.write(Buffer.from('two'));
      },
    ],
  ];
  for (const [what, write] of rows) {
    await t.test(what, async (row) => {
      const directory = scratch(row);
      const layers = GitLayers.open(findGit(process.env), directory);
      const { changes, contents } = changesAlone(layers);
      new Stage(directory).file('a', 'one').file('b', 'two').tell(changes);
      await layers.commit({ id: idOf(0) });
      write(contents);
      contents.end();
      await assert.rejects(
        layers.finish(),
        (error: unknown) => error instanceof GitError && error.exitCode === 7,
      );
      await layers.discard();
      assert.deepEqual(readdirSync(path.join(directory, '.git/refs/heads')), []);
    });
  }
});

test('a change of a file without a content of its own is refused', () => {
  const changes = new ChangeLog(new ContentWriter(createRing()), () => undefined);
  assert.throws(() => changes.written('a', { type: 'file', mode: 0o644 }, ''), /content -1 came for file 0/);
  changes.contents.write(Buffer.from('x'));
  changes.written('a', { type: 'file', mode: 0o644 }, '');
  changes.contents.write(Buffer.from('y'));
  changes.contents.write(Buffer.from('z'));
  assert.throws(() => changes.written('b', { type: 'symlink', mode: 0 }, ''), /content 2 came for file 1/);
});

test('a failure after commit has returned is thrown by the next call', async (t) => {
  const rows: [what: string, next: (layers: GitLayers) => Promise<void>][] = [
    ['commit', (layers) => layers.commit({ id: idOf(1) })],
    ['finish', (layers) => layers.finish()],
    [
      'finish after settle',
      (layers) => {
        layers.settle();
        return layers.finish();
      },
    ],
  ];
  for (const [what, next] of rows) {
    await t.test(what, async (row) => {
      const directory = scratch(row);
      const layers = GitLayers.open(findGit(process.env), directory);
      const { changes, contents } = changesAlone(layers);
      new Stage(directory).file('a').tell(changes);
      await layers.commit({ id: idOf(0) });
      // Now no pack can be made.
      rmSync(path.join(directory, '.git/objects/pack'), { recursive: true });
      contents.write(Buffer.from('content of a\n'));
      contents.flush();
      await assert.rejects(
        next(layers),
        (error: unknown) =>
          error instanceof GitError && /^cannot open .*tmp_pack_.*ENOENT/.test(error.message),
      );
      await layers.discard();
    });
  }
});

test('the index has the final status of each file, even if settle came before the modes of directories', async (t) => {
  const directory = scratch(t);
  const layers = new StageLayers(directory);
  const stage = new Stage(directory);
  stage.directory('d', { mode: 0o700 }).file('d/a').file('d/b', '', { mode: 0o755 }).symlink('d/c', 'a');
  await layers.commit({ id: idOf(0) }, stage);
  await layers.commit({ id: idOf(1) }, stage.file('d/b', 'new'));
  // The first layer is committed, and the status of its files has been read.
  await layers.commit({ id: idOf(2) }, stage.hardlink('d/e', 'd/a'));
  layers.layers.settle();
  stage.settle();
  await layers.finish();
  const expected = ['d/a', 'd/b', 'd/c', 'd/e'].map((name) => {
    const { ctimeNs, mtimeNs, ...stat } = lstatSync(path.join(directory, name), { bigint: true });
    return (
      `${name}\n  ctime: ${indexTime(ctimeNs)}\n  mtime: ${indexTime(mtimeNs)}\n` +
      `  dev: ${stat.dev}\tino: ${stat.ino}\n  uid: ${stat.uid}\tgid: ${stat.gid}\n  size: ${stat.size}\tflags: 0\n`
    );
  });
  assert.equal(git(directory, 'ls-files', '--debug'), expected.join(''));
  assert.equal(git(directory, 'status', '--porcelain'), '');
});

test('an index that is not completed leaves no lock behind', async (t) => {
  const directory = scratch(t);
  const abort = new AbortController();
  const layers = new StageLayers(directory, abort.signal);
  const stage = new Stage(directory);
  for (let number = 0; number < 5000; number += 1) stage.symlink(`link${number}`, 'a');
  await layers.commit({ id: idOf(0) }, stage);
  await layers.commit({ id: idOf(1) }, stage);
  layers.layers.settle();
  const index = path.join(directory, '.git/index');
  while (!existsSync(`${index}.lock`) && !existsSync(index)) await setImmediate();
  const reason = new Error('enough');
  abort.abort(reason);
  await assert.rejects(layers.finish(), reason);
  assert.deepEqual([existsSync(index), existsSync(`${index}.lock`)], [false, false]);
});

test('discard waits for settle before it closes what settle writes to', async (t) => {
  const directory = scratch(t);
  const layers = new StageLayers(directory);
  const stage = new Stage(directory);
  for (let number = 0; number < 5000; number += 1) stage.symlink(`link${number}`, 'a');
  await layers.commit({ id: idOf(0) }, stage);
  layers.layers.settle();
  const index = path.join(directory, '.git/index');
  while (!existsSync(`${index}.lock`) && !existsSync(index)) await setImmediate();
  await layers.layers.discard();
  const written = readdirSync(path.join(directory, '.git')).filter((name) => name.startsWith('index'));
  assert.deepEqual(written, ['index']);
});

test('a pull that is given up leaves no file of git behind but an empty repository', async (t) => {
  const directory = scratch(t);
  const layers = new StageLayers(directory);
  const stage = new Stage(directory);
  await layers.commit({ id: idOf(0) }, stage.file('a'));
  await layers.layers.discard();
  assert.deepEqual(readdirSync(path.join(directory, '.git/objects/pack')), []);
  assert.throws(() => git(directory, 'rev-parse', '--verify', 'HEAD'), noCommit);
});

test('commit and finish throw the reason of the abort', async (t) => {
  const directory = scratch(t);
  const abort = new AbortController();
  const layers = new StageLayers(directory, abort.signal);
  const stage = new Stage(directory);
  await layers.commit({ id: idOf(0) }, stage.file('a'));
  const reason = new Error('enough');
  abort.abort(reason);
  await assert.rejects(layers.finish(), reason);
});

test('changes that are not those of one rootfs are an error that names the path', async (t) => {
  const rows: [what: string, change: (changes: ChangeLog) => void, message: RegExp][] = [
    ['in no directory', (changes) => changes.made('x/b'), /do not fit together at x\/b/],
    [
      'linked to nothing',
      (changes) => changes.written('b', { type: 'hardlink', mode: 0 }, 'c'),
      /do not fit together at b/,
    ],
    [
      'the root as a file',
      (changes) => changes.written('', { type: 'fifo', mode: 0 }, ''),
      /do not fit together at /,
    ],
  ];
  for (const [what, change, message] of rows) {
    await t.test(what, async (row) => {
      const layers = GitLayers.open(findGit(process.env), scratch(row));
      const { changes } = changesAlone(layers);
      change(changes);
      changes.flush();
      await assert.rejects(
        layers.commit({ id: idOf(0) }),
        (error: unknown) => error instanceof GitError && error.exitCode === 7 && message.test(error.message),
      );
      await layers.discard();
    });
  }
});

function logLine(number: number, refs: string): string {
  return `${refs}|dlrootfs|mail@mail.com|dlrootfs|mail@mail.com|adding layer ${number}|2020-01-0${number + 1}T00:00:00Z\n`;
}

/** Formats a time as `git ls-files --debug` does. */
function indexTime(nanoseconds: bigint): string {
  return `${nanoseconds / 1_000_000_000n}:${nanoseconds % 1_000_000_000n}`;
}

/** The entry of the first file in an index. */
function firstEntry(index: Buffer): Buffer {
  return index.subarray(12, 12 + 72);
}
