import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { dir, fifo, file, hardlink, opaque, symlink, tar, whiteout, type Item } from '../support/archive.ts';
import { printTree } from '../support/tree.ts';
import { writeXattr } from '../support/xattrs.ts';
import { diskBackends, build, isRoot, temporaryDirectory } from './harness.ts';

/**
 * Makes a user's directory: `etc/mine`, `full/a/b`, `bare/`, `link -> full`, `dangling -> nowhere`, `plain`.
 */
function usersDirectory(t: TestContext): string {
  const root = temporaryDirectory(t);
  for (const name of ['etc', 'full/a', 'bare']) mkdirSync(join(root, name), { recursive: true });
  for (const name of ['etc/mine', 'full/a/b', 'plain']) writeFileSync(join(root, name), 'mine');
  symlinkSync('full', join(root, 'link'));
  symlinkSync('nowhere', join(root, 'dangling'));
  return root;
}

const users = [
  'd bare/',
  'l dangling -> nowhere',
  'd etc/',
  '- etc/mine "mine"',
  'd full/',
  'd full/a/',
  '- full/a/b "mine"',
  'l link -> full',
  '- plain "mine"',
];

interface Row {
  readonly name: string;
  readonly layers: readonly (readonly Item[])[];
  readonly come?: readonly string[];
  readonly gone?: readonly string[];
  readonly error?: RegExp;
  /** The expected exit code; default: 7. */
  readonly exitCode?: number;
}

const rows: readonly Row[] = [
  {
    name: 'new things come beside those of the user',
    layers: [[file('etc/new', '1'), dir('d'), symlink('l', 'x')]],
    come: ['- etc/new "1"', 'd d/', 'l l -> x'],
  },
  {
    name: 'files and links of the user give way to entries of their name',
    layers: [[file('plain', '1'), file('link', '2'), dir('dangling')]],
    come: ['- plain "1"', '- link "2"', 'd dangling/'],
    gone: ['- plain "mine"', 'l link -> full', 'l dangling -> nowhere'],
  },
  { name: 'directories are merged', layers: [[dir('etc'), file('full/a/c', '1')]], come: ['- full/a/c "1"'] },
  {
    name: 'an empty directory of the user gives way',
    layers: [[file('bare', '1')]],
    come: ['- bare "1"'],
    gone: ['d bare/'],
  },
  {
    name: 'a directory with files of the user gives way to nothing: a file',
    layers: [[file('full', '1')]],
    error: /layer 0: full: cannot replace the directory full: directory not empty/,
  },
  {
    name: 'a directory with files of the user gives way to nothing: a symlink',
    layers: [[symlink('etc', 'x')]],
    error: /etc.*ENOTEMPTY/,
  },
  {
    name: 'a directory with files of the user gives way to nothing: a hard link',
    layers: [[file('x', ''), hardlink('full/a', 'x')]],
    error: /full\/a.*ENOTEMPTY/,
  },
  {
    name: 'a directory that the image filled beside a file of the user does not give way either',
    layers: [[file('full/ours', '')], [file('full', '1')]],
    error: /full.*ENOTEMPTY/,
  },
  {
    name: 'a directory that the image alone made gives way',
    layers: [
      [file('ours/a/b', ''), file('etc/d/e', '')],
      [file('ours', '1'), symlink('etc/d', 'x')],
    ],
    come: ['- ours "1"', 'l etc/d -> x'],
  },
  {
    name: 'whiteouts do not touch what is the user’s',
    layers: [
      [file('x', '')],
      [
        whiteout('plain'),
        whiteout('full'),
        whiteout('etc/mine'),
        whiteout('link'),
        whiteout('bare'),
        whiteout('x'),
      ],
    ],
  },
  {
    name: 'a whiteout leaves an empty directory of the user, also when the image has it',
    layers: [[dir('bare')], [whiteout('bare'), whiteout('nothing')]],
  },
  {
    name: 'opaque markers do not touch what is the user’s',
    layers: [
      [file('etc/ours', ''), file('full/d/e', ''), file('x', '')],
      [opaque(''), opaque('etc'), opaque('full')],
    ],
  },
  {
    name: 'a whiteout of a directory takes only what this run put into it',
    layers: [
      [dir('full'), file('full/ours', ''), file('full/a/ours', ''), file('full/d/e', '')],
      [whiteout('full')],
    ],
  },
  {
    name: 'a whiteout takes a file of the run that replaced one of the user',
    layers: [[file('plain', 'ours')], [whiteout('plain')]],
    gone: ['- plain "mine"'],
  },
  {
    name: 'an opaque marker keeps what its own layer put there',
    layers: [[file('etc/a', '1')], [file('etc/b', '2'), opaque('etc')]],
    come: ['- etc/b "2"'],
  },
  {
    name: 'a file of the user is no directory',
    layers: [[file('plain/x', '1')]],
    error: /layer 0: plain\/x: cannot use plain as a directory: .*ENOTDIR/,
    exitCode: 6,
  },
  {
    name: 'a file of the run gives way to a directory that a path needs, also one that replaced one of the user',
    layers: [[file('plain', '1')], [file('plain/x', '2')]],
    come: ['d plain/', '- plain/x "2"'],
    gone: ['- plain "mine"'],
  },
  {
    name: 'what hard links of aufs name is kept in DIR while the layer is applied, and no longer',
    layers: [
      [
        file('.wh..wh.plnk/1', 'shared'),
        hardlink('etc/new', '.wh..wh.plnk/1'),
        hardlink('plain', '.wh..wh.plnk/1'),
      ],
    ],
    come: ['- etc/new "shared" =1', '- plain "shared" =1'],
    gone: ['- plain "mine"'],
  },
  {
    name: 'nor after a failure',
    layers: [[file('.wh..wh.plnk/1', 'shared'), dir('.wh..wh.plnk'), hardlink('x', 'nowhere')]],
    error: /layer 0: x: cannot link/,
    exitCode: 6,
  },
  {
    name: 'links of the user are followed inside DIR',
    layers: [[file('link/x', '1')]],
    come: ['- full/x "1"'],
  },
];

for (const backend of diskBackends) {
  describe(`over a directory of the user's, ${backend}`, () => {
    for (const row of rows) {
      test(row.name, (t) => {
        const root = usersDirectory(t);
        const apply = (): unknown =>
          build(
            root,
            row.layers.map((items) => tar(...items)),
            { backend, mode: 'overlay' },
          );
        if (row.error) assert.throws(apply, { exitCode: row.exitCode ?? 7, message: row.error });
        else apply();
        const tree = printTree(root, { text: true, hide: ['mode', 'owner', 'time'] })
          .split('\n')
          .filter((line) => line !== '');
        if (row.error) {
          for (const line of users) assert.ok(tree.includes(line), line);
          assert.doesNotMatch(tree.join(), /\.dlrootfs-/);
          return;
        }
        const kept = users.filter((line) => row.gone?.includes(line) !== true);
        assert.deepEqual(tree.toSorted(), [...kept, ...(row.come ?? [])].toSorted());
      });
    }

    for (const flag of ['i', 'a']) {
      test(`a file of the user that nobody may remove (chattr +${flag}) is named`, (t) => {
        const root = usersDirectory(t);
        const plain = join(root, 'plain');
        if (!isRoot || spawnSync('chattr', [`+${flag}`, plain]).status !== 0) return t.skip('needs chattr');
        try {
          assert.throws(() => build(root, [tar(file('plain', '1'))], { backend, mode: 'overlay' }), {
            exitCode: 7,
            message: 'layer 0: plain: cannot replace plain: operation not permitted (EPERM)',
          });
          assert.equal(readFileSync(plain, 'utf8'), 'mine');
        } finally {
          spawnSync('chattr', [`-${flag}`, plain]);
        }
      });
    }

    test('directories that no entry names keep mode, owner and attributes', (t) => {
      const root = usersDirectory(t);
      const etc = join(root, 'etc');
      chmodSync(etc, 0o2710);
      if (isRoot) chownSync(etc, 5, 7);
      chmodSync(etc, 0o2710);
      writeXattr(etc, 'user.mine', '1');
      utimesSync(join(root, 'full'), 7, 7);
      const before = printTree(root, { hide: ['time'] })
        .split('\n')
        .find((line) => line.includes(' etc/'));
      build(root, [tar(file('etc/new', ''), fifo('etc/p'), dir('d/e'))], { backend, mode: 'overlay' });
      const after = printTree(root, { hide: ['time'] })
        .split('\n')
        .find((line) => line.includes(' etc/'));
      assert.equal(after, before);
      assert.equal(statSync(join(root, 'full')).mtimeMs, 7000);
      assert.equal(statSync(join(etc, 'new')).gid, process.getegid!());
    });

    test('a second pull over the first gives the same tree', (t) => {
      if (!isRoot) return t.skip('needs root, to look into closed directories');
      const root = temporaryDirectory(t);
      const layers = [
        tar(
          dir('ro', { mode: 0o555 }),
          file('ro/f', '1', { mode: 0 }),
          dir('none', { mode: 0 }),
          file('none/f', '2', { mode: 0o4000 }),
          hardlink('h', 'ro/f'),
          symlink('l', 'ro'),
          fifo('p'),
        ),
        tar(whiteout('none/f'), file('none/g', '3'), file('l/x', '4'), dir('.', { mode: 0o555 })),
      ];
      const pulls = ['stage', 'overlay', 'overlay'] as const;
      const trees = pulls.map((mode) => {
        build(root, layers, { backend, mode });
        const tree = printTree(root, { root: true });
        return tree;
      });
      assert.equal(trees[1], trees[0]);
      assert.equal(trees[2], trees[0]);
    });
  });
}

test('what was changed is told, in the order in which it happened', (t) => {
  const root = temporaryDirectory(t);
  const { changes } = build(
    root,
    [
      tar(
        dir('d'),
        file('d/a', ''),
        symlink('l', 'd'),
        file('l/b', ''),
        hardlink('h', 'd/a'),
        file('gone', ''),
        file('e/f/g', ''),
      ),
      tar(whiteout('gone'), file('d', ''), file('e/x', ''), opaque('e'), file('l', ''), whiteout('nothing')),
      tar(fifo('h'), dir('l')),
      tar(dir('.'), symlink('l2', 'x y'), hardlink('m', 'l2'), hardlink('m', 'm'), hardlink('d', 'd')),
    ],
    { recordChanges: true },
  );
  const told = changes.map((list) =>
    list.map(({ kind, path, target }) => `${kind} ${path}${target === '' ? '' : ` ${target}`}`),
  );
  assert.deepEqual(told, [
    [
      'directory d',
      'file d/a',
      'symlink l',
      'file d/b',
      'hardlink h d/a',
      'file gone',
      'directory e',
      'directory e/f',
      'file e/f/g',
    ],
    ['removed gone', 'removed d', 'file d', 'file e/x', 'removed e/f', 'removed l', 'file l'],
    ['removed h', 'special h', 'removed l', 'directory l'],
    ['symlink l2', 'hardlink m l2'],
  ]);
  assert.equal(readFileSync(join(root, 'd'), 'utf8'), '');
});

for (const backend of diskBackends) {
  test(`names that are reserved at the root are refused before anything of them is written, ${backend}`, (t) => {
    const attempts: Readonly<Record<string, Item[]>> = {
      'a file below': [file('.git/config', 'evil')],
      'the directory': [dir('.git')],
      'a symlink in its place': [symlink('.git', 'x')],
      'another case': [file('.GIT/config', 'evil')],
      'through a symlink': [symlink('l', '.git'), file('l/config', 'evil')],
      'through a symlink that climbs': [symlink('d/l', '../.git/hooks'), file('d/l/x', 'evil')],
      'a hard link to one of its files': [hardlink('h', '.git/config')],
      'through a dangling symlink': [symlink('l', '/.git/new'), file('l/x', 'evil')],
    };
    for (const [name, items] of Object.entries(attempts)) {
      for (const mode of ['stage', 'overlay'] as const) {
        const root = temporaryDirectory(t);
        mkdirSync(join(root, '.git/hooks'), { recursive: true });
        writeFileSync(join(root, '.git/config'), 'ours');
        const before = printTree(join(root, '.git'));
        assert.throws(
          () => build(root, [tar(...items)], { backend, mode, recordChanges: true }),
          { name: 'IntegrityError', message: /^layer 0: / },
          name,
        );
        assert.equal(printTree(join(root, '.git')), before, name);
      }
    }
    const root = temporaryDirectory(t);
    mkdirSync(join(root, '.git'));
    writeFileSync(join(root, '.git/config'), 'ours');
    const layers = [
      tar(file('d/.git/x', '1'), file('.gitignore', '2')),
      tar(opaque(''), whiteout('.git'), file('y', '')),
    ];
    build(root, layers, { backend, recordChanges: true });
    assert.equal(
      printTree(root, { text: true, hide: ['mode', 'owner', 'time'] }),
      'd .git/\n- .git/config "ours"\n- y ""\n',
    );
  });
}
