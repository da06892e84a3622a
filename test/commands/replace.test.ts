import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { noInjection, Setting } from '../faults/setting.ts';
import { git } from '../git/git.ts';
import { layoutFiles, tagged, writeFiles } from '../layout/build-layout.ts';
import { dir, file, symlink, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { fakeManifest } from '../support/fake-image.ts';
import { noOtherUser } from '../support/other-user.ts';
import { runProgram } from '../support/program.ts';
import { printTree } from '../support/tree.ts';

const needsRoot = missing('root');
const NOTHING_DONE = 'notice: out is this image already: nothing was done\n';
const removes = (what: string) => `notice: out has no json of an image: --replace removes ${what} in it\n`;

/**
 * Fills a directory with a tree that differs from the image: other names, other contents, a directory instead
 * of a file.
 */
function fillOther(directory: string): void {
  mkdirSync(path.join(directory, 'etc/motd/deep'), { recursive: true });
  mkdirSync(path.join(directory, 'mine'));
  chmodSync(directory, 0o2711);
  writeFileSync(path.join(directory, 'etc/motd/deep/x'), 'x');
  writeFileSync(path.join(directory, 'base'), 'mine');
  symlinkSync('/etc', path.join(directory, 'link'));
  chmodSync(path.join(directory, 'mine'), 0);
}

/** Pulls with --replace, without lines of progress. */
const replaceWell = (setting: Setting, ...flags: readonly string[]) =>
  setting.pullWell(['--replace', '--progress', 'none', ...flags]);

const identity = (name: string) => statSync(name).ino;

test('replace: DIR becomes exactly the image, and nothing else stays beside it', async () => {
  await using setting = await Setting.open();
  await setting.pullWell(['-d', 'model']);
  fillOther(mkdirp(setting.scratch.join('out')));
  const { stderr } = await replaceWell(setting);
  assert.equal(stderr, removes('7 files and directories'));
  assert.equal(setting.tree('out'), setting.tree('model'));
  assert.equal(statSync(setting.scratch.join('out')).mode & 0o7777, 0o755);
  // DIR is missing, empty, or a symlink to a directory.
  mkdirSync(setting.scratch.join('empty'), 0o700);
  symlinkSync('out', setting.scratch.join('link'));
  writeFileSync(setting.scratch.join('out/mine'), '');
  for (const name of ['new', 'empty', 'link']) await setting.pullWell(['--replace', '-d', name]);
  for (const name of ['new', 'empty', 'out']) assert.equal(setting.tree(name), setting.tree('model'), name);
  assert.ok(lstatSync(setting.scratch.join('link')).isSymbolicLink());
  assert.deepEqual(setting.names, ['empty', 'link', 'model', 'new', 'out']);
});

test('replace: what is removed from a directory that no pull made is counted, up to a limit', async () => {
  await using setting = await Setting.open();
  const out = mkdirp(setting.scratch.join('out'));
  const notices = async () =>
    (await replaceWell(setting, '--progress', 'json')).stderr.match(/.*"notice".*/g);
  assert.equal(await notices(), null);
  rmSync(path.join(out, 'json'));
  writeFileSync(mkdirp(path.join(out, 'json')) + '/x', '');
  rmSync(path.join(out, 'usr'), { recursive: true });
  mkdirSync(Buffer.from(`${out}/\xff`, 'latin1'));
  writeFileSync(Buffer.from(`${out}/\xff/\xfe`, 'latin1'), '');
  const message = removes('8 files and directories').slice('notice: '.length, -1);
  assert.deepEqual(await notices(), [JSON.stringify({ type: 'notice', message })]);
  const rows: readonly (readonly [count: number, what: string])[] = [
    [1, '1 file or directory'],
    [1000, '1000 files and directories'],
    [1001, 'more than 1000 files and directories'],
    [3000, 'more than 1000 files and directories'],
  ];
  for (const [count, what] of rows) {
    rmSync(out, { recursive: true });
    mkdirp(out);
    for (let n = 0; n < count; n += 1) writeFileSync(path.join(out, `f${n}`), '');
    assert.equal((await replaceWell(setting)).stderr, removes(what));
  }
});

function mkdirp(name: string): string {
  mkdirSync(name, { recursive: true });
  return name;
}

test('replace: --dry-run tells whether DIR is up to date, by one request, and changes nothing', async () => {
  await using setting = await Setting.open();
  const out = setting.scratch.join('out');
  const look = async (...flags: readonly string[]) => {
    const before = setting.registry.requests.length;
    const found = await setting.pull(['--replace', '--dry-run', '--progress', 'none', ...flags]);
    assert.equal(found.stderr, '');
    const asked = setting.registry.requests.slice(before).map((each) => `${each.method} ${each.path}`);
    return { ...found, asked };
  };
  const image = new RegExp(`: a pull makes it \\S+/lib/img:1 \\(sha256:[0-9a-f]{64}\\)\nTo fetch: .*\n$`);
  const makes = (why: string) => new RegExp(`^out ${why}${image.source}`);
  const absent = await look();
  assert.equal(absent.exitCode, 9);
  assert.match(absent.stdout, makes('does not exist yet'));
  assert.ok(!existsSync(out));
  await replaceWell(setting);
  const same = await look();
  assert.equal(same.exitCode, 0);
  assert.match(same.stdout, /^out is up to date: \S+\/lib\/img:1 \(sha256:[0-9a-f]{64}\)\n$/);
  assert.deepEqual(same.asked, ['GET /v2/', 'HEAD /v2/lib/img/manifests/1']);
  assert.match(
    (await look('--replace=always')).stdout,
    makes('is this image, and --replace=always makes it again'),
  );
  assert.equal((await look('-g')).exitCode, 9);
  const before = setting.tree();
  writeFileSync(path.join(out, 'base'), 'mine');
  assert.match((await look()).stdout, makes('was changed since'));
  assert.equal(readFileSync(path.join(out, 'base'), 'utf8'), 'mine');
  const { stdout } = await replaceWell(setting, '--json');
  assert.equal((JSON.parse(stdout) as { changed: boolean }).changed, true);
  const again = await replaceWell(setting, '--json');
  assert.equal((JSON.parse(again.stdout) as { changed: boolean }).changed, false);
  assert.equal(setting.tree(), before);
  const layers = [{ tar: tar(file('other', 'x')) }];
  setting.registry.push('lib/img', '1', { layers });
  const other = await look('--json');
  assert.equal(other.exitCode, 9);
  const { changed, reason, destination } = JSON.parse(other.stdout) as Record<string, unknown>;
  assert.deepEqual([changed, reason, destination], [true, 'other-image', 'out']);
  assert.deepEqual((await look('-q')).stdout, '');
  assert.equal(setting.tree(), before);
  // A dry run refuses the same directories as a pull.
  const home = await setting.pull(['--replace', '--dry-run', '-d', '/usr']);
  assert.equal(home.exitCode, 7);
});

test('replace: again, nothing is done; =always, another image and other flags build anew', async () => {
  await using setting = await Setting.open();
  const out = setting.scratch.join('out');
  await replaceWell(setting);
  let before = identity(out);
  const run = async (flags: readonly string[], isNew: boolean, notices = isNew ? '' : NOTHING_DONE) => {
    const { stderr } = await setting.pullWell([...flags, '--progress', 'none']);
    assert.equal(identity(out) !== before, isNew, flags.join(' '));
    assert.equal(stderr, notices);
    before = identity(out);
  };
  await run(['--replace'], false);
  const { stdout } = await setting.pullWell(['--replace', '--offline', '--json']);
  assert.equal((JSON.parse(stdout) as { layers: unknown[] }).layers.length, 3);
  await run(['--replace=always'], true);
  await run(['--replace'], false);
  await run(['--replace', '--no-json'], true);
  // An earlier --no-json is no reason to report the missing json.
  await run(['--replace=always', '--no-json'], true);
  await run(['--replace'], true, removes('307 files and directories'));
  await run(['--replace', '--no-cache'], true);
  setting.registry.push('lib/img', '1', { layers: [{ tar: tar(file('x', 'y')) }] });
  await run(['--replace'], true);
  await run(['--replace'], false);
  assert.deepEqual(readdirSync(out).toSorted(), ['json', 'x']);
});

/** Changes of a rootfs that are hard to see. */
const touches: readonly (readonly [what: string, touch: (root: string) => void, skip?: string | false])[] = [
  ['other content, its size and times as before', (root) => rewrite(`${root}/etc/motd`)],
  ['a mode, and back', (root) => [0o600, 0o644].forEach((mode) => chmodSync(`${root}/etc/motd`, mode))],
  ['an owner', (root) => chownSync(`${root}/base`, 7, 7), needsRoot],
  ['an attribute', (root) => setXattr(`${root}/base`), missing('setfattr')],
  ['an attribute of the root', (root) => setXattr(root), missing('setfattr')],
  ['the mode of the root', (root) => chmodSync(root, 0o700)],
  ['a hard link, removed again', (root) => [linkSync(`${root}/base`, `${root}/y`), rmSync(`${root}/y`)]],
  ['a file more', (root) => keepTimes(root, () => writeFileSync(`${root}/more`, ''))],
  ['a file less', (root) => keepTimes(`${root}/usr/share`, () => rmSync(`${root}/usr/share/f7`))],
  ['a name', (root) => keepTimes(root, () => renameSync(`${root}/base`, `${root}/case`))],
  ['a copy in the place of a directory', copyOver],
];

function rewrite(name: string): void {
  const { length } = readFileSync(name);
  keepTimes(name, () => writeFileSync(name, 'x'.repeat(length)));
}

function keepTimes(name: string, work: () => void): void {
  const { atime, mtime } = statSync(name);
  work();
  utimesSync(name, atime, mtime);
}

function setXattr(name: string): void {
  assert.equal(spawnSync('setfattr', ['-n', 'user.x', '-v', '1', name]).status, 0);
}

function copyOver(root: string): void {
  assert.equal(spawnSync('cp', ['-a', `${root}/usr`, `${root}/usr2`]).status, 0);
  rmSync(`${root}/usr`, { recursive: true });
  renameSync(`${root}/usr2`, `${root}/usr`);
}

test('replace: any change makes the next run build DIR again', async (t) => {
  await using setting = await Setting.open();
  await replaceWell(setting);
  const model = setting.tree();
  for (const [what, touch, skip = false] of touches) {
    if (skip !== false) {
      t.diagnostic(`left out: ${what}: ${skip}`);
      continue;
    }
    touch(setting.scratch.join('out'));
    assert.doesNotMatch((await replaceWell(setting, '--offline')).stderr, /nothing was done/, what);
    assert.equal(setting.tree(), model, what);
  }
  assert.equal((await replaceWell(setting)).stderr, NOTHING_DONE);
});

test('replace: a directory that only looks like the image is not taken for it', async () => {
  await using setting = await Setting.open();
  await setting.pullWell(['--replace', '-d', 'other']);
  spawnSync('cp', ['-a', 'other', 'out'], { cwd: setting.scratch.path });
  const before = identity(setting.scratch.join('out'));
  await replaceWell(setting);
  assert.notEqual(identity(setting.scratch.join('out')), before);
});

test('replace: an obstacle is named, and nothing is requested or changed', { skip: needsRoot }, async () => {
  await using setting = await Setting.open();
  const { scratch, store } = setting;
  const base = scratch.path;
  for (const name of ['home/me', 'mounted', 'holds/mount', 'work/deep', 'caches', 'images'])
    mkdirp(scratch.join(name));
  writeFileSync(scratch.join('file'), '');
  writeFileSync(scratch.join('images/x.tar'), '');
  const mounts = [scratch.join('mounted'), scratch.join('holds/mount')];
  const mounted = mounts.every((point) => spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', point]).status === 0);
  try {
    const rows: readonly (readonly [dir: string, message: RegExp, cwd?: string, image?: string])[] = [
      ['/', /cannot use \/: it is the root of the running system/],
      ['/etc', /: it is a directory of the system$/m],
      ['/proc', /: it is a directory of the system$/m],
      [scratch.join('home/me'), /: it is the home directory$/m],
      [scratch.join('home'), /: the home directory is in it$/m],
      [scratch.join('work'), /: the working directory is in it$/m, scratch.join('work/deep')],
      ['.', /: it is the working directory$/m, scratch.join('work/deep')],
      [scratch.join('caches'), /: it is the cache$/m],
      [scratch.join('caches/blobs'), /: it is in the cache$/m],
      [base, /: the home directory is in it$/m, '/'],
      ['images', /: the image is in it$/m, base, 'docker-archive:images/x.tar'],
      ['file', /file is not a directory$/m],
      ...(mounted
        ? ([
            ['mounted', /: something is mounted there$/m],
            ['holds', /: .*holds\/mount is mounted in it$/m],
          ] as const)
        : []),
    ];
    for (const [directory, message, cwd = base, image = setting.reference] of rows) {
      const { exitCode, stderr } = await runProgram(
        [image, '-d', directory, '--replace', '--cache-dir', scratch.join('caches')],
        { cwd, environment: { HOME: scratch.join('home/me') } },
      );
      assert.equal(exitCode, 7, `${directory}: ${stderr}`);
      assert.match(stderr, message, directory);
      assert.match(stderr, /^hint: ./m);
      assert.doesNotMatch(stderr, /^notice/m);
    }
    assert.deepEqual(setting.registry.log(), []);
    assert.ok(!existsSync(store) && existsSync(scratch.join('images/x.tar')));
  } finally {
    for (const point of mounts) spawnSync('umount', [point]);
  }
  for (const flags of [['--replace', '--merge'], ['--replace', '-o', 'x.tar'], ['--replace=no']]) {
    assert.equal((await setting.pull(flags)).exitCode, 2, flags.join(' '));
  }
});

test(
  "replace: a plain user replaces a directory of their own, and nobody else's",
  { skip: noOtherUser },
  async () => {
    await using setting = await Setting.open();
    const { scratch } = setting;
    for (const name of ['.', 'out', 'roots', 'store']) chownSync(mkdirp(scratch.join(name)), 65_534, 65_534);
    chownSync(scratch.join('roots'), 0, 0);
    fillOther(scratch.join('out'));
    spawnSync('chown', ['-R', '65534:65534', scratch.join('out')]);
    const { exitCode, stderr } = await setting.pull(['--replace'], { uid: 65_534 });
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(readdirSync(scratch.join('out')).toSorted(), ['base', 'etc', 'json', 'lib', 'usr']);
    const refused = await setting.pull(['--replace', '-d', 'roots'], { uid: 65_534 });
    assert.equal(refused.exitCode, 7);
    assert.match(
      refused.stderr,
      /^error: cannot replace roots: it belongs to user 0 and group 0\nhint: run as root/m,
    );
    assert.deepEqual(setting.names, ['out', 'roots']);
  },
);

test('replace: a failure leaves DIR as it was', async () => {
  await using setting = await Setting.open();
  const out = mkdirp(setting.scratch.join('out'));
  fillOther(out);
  const before = printTree(out, { root: true });
  setting.registry.fault({ path: /\/blobs\//, times: 99, status: 404 });
  const { exitCode } = await setting.pull(['--replace']);
  assert.equal(exitCode, 3);
  assert.equal(printTree(out, { root: true }), before);
  assert.deepEqual(setting.names, ['out']);
});

for (const error of ['ENOSYS', 'EINVAL']) {
  test(`replace: without renameat2, ${error}`, { skip: noInjection }, async () => {
    await using setting = await Setting.open();
    await setting.pullWell(['-d', 'model']);
    fillOther(mkdirp(setting.scratch.join('out')));
    const under = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `inject=renameat2:error=${error}`];
    const { stderr } = await setting.pullWell(['--replace', '--progress', 'none'], { under });
    assert.equal(stderr, removes('7 files and directories'));
    assert.equal(setting.tree(), setting.tree('model'));
    assert.deepEqual(setting.names, ['model', 'out']);
  });
}

test('replace: a run without renameat2, killed between its two steps: the next one finds the old tree', async () => {
  await using setting = await Setting.open();
  const { scratch } = setting;
  const stage = scratch.join('.out.dlrootfs-999999998-0123456789ab');
  fillOther(mkdirp(`${stage}-old`));
  const before = printTree(`${stage}-old`, { root: true });
  writeFileSync(path.join(mkdirp(stage), 'new'), '');
  const missingTag = setting.registry.reference('lib/img', 'none');
  assert.equal((await setting.pull(['--replace'], {}, missingTag)).exitCode, 3);
  assert.equal(printTree(scratch.join('out'), { root: true }), before);
  await replaceWell(setting);
  assert.deepEqual(setting.names, ['out']);
  // A run was killed after both renames: only the removal is missing.
  fillOther(mkdirp(`${stage}-old`));
  await replaceWell(setting);
  assert.deepEqual(setting.names, ['out']);
});

test('replace: an old tree of another owner is removed by the next run', { skip: needsRoot }, async () => {
  await using setting = await Setting.open();
  const stage = setting.scratch.join('.out.dlrootfs-999999998-0123456789ab');
  fillOther(mkdirp(stage));
  chownSync(stage, 100_000, 100_000);
  await replaceWell(setting);
  assert.deepEqual(setting.names, ['out']);
});

test(
  'replace: what cannot be removed is told, and root removes it in the next run',
  { skip: noOtherUser },
  async () => {
    await using setting = await Setting.open();
    const { scratch } = setting;
    for (const name of ['.', 'out', 'store']) chownSync(mkdirp(scratch.join(name)), 65_534, 65_534);
    writeFileSync(path.join(mkdirp(scratch.join('out/of-root')), 'x'), '');
    const { exitCode, stderr } = await setting.pull(['--replace', '--progress', 'none'], { uid: 65_534 });
    assert.equal(exitCode, 0, stderr);
    assert.match(
      stderr,
      /^notice: out was replaced, but its old contents are still in \S+\/\.out\.dlrootfs-\S+, which cannot be removed: .*of-root.*EACCES/m,
    );
    assert.deepEqual(readdirSync(scratch.join('out')).toSorted(), ['base', 'etc', 'json', 'lib', 'usr']);
    assert.equal(setting.names.length, 2);
    await setting.pullWell(['--replace=always', '--no-cache']);
    assert.deepEqual(setting.names, ['out']);
  },
);

test('replace: removes immutable files, files of odd modes and deep trees', { skip: needsRoot }, async () => {
  await using setting = await Setting.open();
  const out = mkdirp(setting.scratch.join('out'));
  fillOther(out);
  mkdirp(path.join(out, 'a/b/c'));
  writeFileSync(path.join(out, 'a/b/c/x'), '');
  writeFileSync(path.join(out, 'a/log'), '');
  const marked = ['+i a/b/c/x', '+i a/b/c', '+a a/b', '+a a/log'].every((words) => {
    const [flag, name] = words.split(' ');
    return spawnSync('chattr', [flag!, path.join(out, name!)]).status === 0;
  });
  const deep = 'd/'.repeat(300);
  mkdirp(path.join(out, deep));
  const { stderr } = await replaceWell(setting);
  assert.equal(stderr, removes('312 files and directories'));
  assert.deepEqual(setting.names, ['out']);
  assert.ok(marked, 'the file system of the test has these attributes');
});

test('replace: a link in DIR is removed, and what it leads to stays', async () => {
  await using setting = await Setting.open();
  const out = mkdirp(setting.scratch.join('out'));
  writeFileSync(path.join(mkdirp(setting.scratch.join('outside/in')), 'x'), '');
  symlinkSync('../outside', path.join(out, 'link'));
  linkSync(setting.scratch.join('outside/in/x'), path.join(out, 'hard'));
  await replaceWell(setting);
  assert.deepEqual(readdirSync(setting.scratch.join('outside/in')), ['x']);
  assert.deepEqual(setting.names, ['out', 'outside']);
});

test('replace: two runs at the same time leave one of the two images', async () => {
  await using setting = await Setting.open();
  const { registry, scratch } = setting;
  registry.push('lib/img', '2', {
    layers: [{ tar: tar(dir('two'), file('two/x', 'y'), symlink('l', 'two')) }],
  });
  const second = registry.reference('lib/img', '2');
  await setting.pullWell(['-d', 'one']);
  await setting.pullWell(['-d', 'two'], {}, second);
  fillOther(mkdirp(scratch.join('out')));
  for (let round = 0; round < 3; round += 1) {
    await Promise.all([
      setting.pullWell(['--replace=always']),
      setting.pullWell(['--replace=always'], {}, second),
      setting.pullWell(['--replace=always']),
    ]);
    assert.ok([setting.tree('one'), setting.tree('two')].includes(setting.tree()), setting.tree());
    assert.deepEqual(setting.names, ['one', 'out', 'two']);
  }
});

test(
  'replace: with -g a new repository, and the one that was there goes as any other files',
  { skip: missing('git') },
  async () => {
    await using setting = await Setting.open();
    const out = setting.scratch.join('out');
    await setting.pullWell(['-g']);
    git(out, 'checkout', '-q', '-b', 'mine');
    writeFileSync(path.join(out, 'mine'), '');
    assert.equal((await replaceWell(setting, '-g')).stderr, '');
    assert.equal((await replaceWell(setting, '-g')).stderr, NOTHING_DONE);
    assert.equal(git(out, 'status', '--porcelain'), '');
    assert.doesNotMatch(git(out, 'branch'), /mine/);
    assert.equal((await replaceWell(setting)).stderr, '');
    assert.ok(!existsSync(path.join(out, '.git')));
    // A repository in the image is replaced as any other file.
    const own = tar(file('.git/HEAD', 'ref: refs/heads/main\n'));
    setting.registry.push('lib/img', '1', { layers: [{ tar: own }] });
    await replaceWell(setting);
    assert.ok(existsSync(path.join(out, '.git/HEAD')));
  },
);

test('replace: a local image; the note about its tree keeps the cache within its limit', async () => {
  await using setting = await Setting.open();
  const { scratch, store } = setting;
  const image = { layers: [{ tar: tar(file('x', 'y')) }] };
  writeFiles(scratch.join('layout'), layoutFiles([tagged(fakeManifest(image), '1')]));
  await setting.pullWell(['-d', 'other']);
  const layer = setting.blob(setting.image.layers[0]!.digest);
  const run = async (...flags: string[]) => {
    const argv = ['oci:layout', '-d', 'out', '--replace', '--cache-dir', store, ...flags];
    const { exitCode, stderr } = await runProgram(argv, { cwd: scratch.path });
    assert.equal(exitCode, 0, stderr);
    return stderr.match(/^notice: .*\n/gm)?.join('') ?? '';
  };
  assert.equal(await run(), '');
  assert.equal(await run(), NOTHING_DONE);
  assert.ok(existsSync(layer));
  assert.equal(await run('--cache-size', '50K'), NOTHING_DONE);
  assert.ok(!existsSync(layer));
  assert.equal(await run(), NOTHING_DONE);
});

test('replace: files of --prepare belong to it', async () => {
  await using setting = await Setting.open();
  const flags = ['--replace', '--prepare', '--for', 'nspawn', '--force'];
  const first = await setting.pullWell(flags);
  assert.match(first.stderr, /^notice: prepared .*\/etc\/hosts/m);
  assert.equal(readFileSync(setting.scratch.join('out/etc/hostname'), 'utf8'), 'out\n');
  const again = await setting.pullWell(flags);
  assert.match(again.stderr, /nothing was done/);
  assert.doesNotMatch(again.stderr, /prepared/);
  assert.deepEqual(setting.names, ['out', 'out.nspawn']);
});
