import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { dir, file, gzip, hardlink, opaque, sparse, symlink, tar, whiteout } from '../support/archive.ts';
import { type ProgramResult, runProgram, Scratch, startProgram } from '../support/program.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { registryForAllTests } from '../support/pushed-images.ts';
import { randomLayers } from '../support/random-layers.ts';
import { runs } from '../support/runs.ts';
import { printTree } from '../support/tree.ts';
import { missing } from '../support/debian.ts';
import { until } from '../support/until.ts';

const needsRoot = missing('root');

const images = registryForAllTests();
const { pushed } = images;

class Place extends Scratch {
  async run(...argv: readonly string[]): Promise<ProgramResult> {
    return await runProgram([...argv, '--cache-dir', this.join('cache')], { cwd: this.path });
  }

  /** Runs a command that must succeed; returns its standard output. */
  async done(...argv: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(...argv);
    assert.equal(exitCode, 0, stderr);
    return stdout;
  }

  tree(name: string): string {
    return printTree(this.join(name), { without: ['json'], hide: ['time', 'owner'], text: true });
  }
}

const image = (): string =>
  pushed(
    [
      dir('./', { mode: 0o711, mtime: 5 }),
      dir('etc', { mode: 0o750, uid: 3, mtime: [7, 9] }),
      file('etc/os', 'old'),
      file('etc/gone', 'gone'),
      file('etc/keep', 'kept', { mode: 0o640, gid: 9 }),
      dir('opt/app'),
      file('opt/app/low', 'hidden'),
      dir('usr/bin'),
      file('usr/bin/sh', 'shell', { mode: 0o4755 }),
      symlink('bin', 'usr/bin'),
      file('a-first', 'one inode'),
      hardlink('link/second', 'a-first'),
      hardlink('link/third', 'a-first'),
    ],
    [file('etc/os', 'new'), whiteout('etc/gone'), opaque('opt/app'), file('opt/app/high', 'seen')],
    [file('var/other', 'x')],
  );

describe('--path', () => {
  test('takes a file as the layers leave it, and the directories above', async () => {
    using place = new Place();
    const reference = image();
    await place.done(reference, '-d', 'out', '--path', '/etc/os');
    assert.equal(place.tree('out'), 'drwxr-x--- etc/\n-rw-r--r-- etc/os "new"\n');
    assert.deepEqual(printTree(place.join('out'), { root: true, without: ['json'] }).match(/^d.*$/gm), [
      'drwx--x--x 0:0 5.000000000 ./',
      'drwxr-x--- 3:0 7.000000009 etc/',
    ]);
    assert.match(
      await place.done(reference, '-d', 'lines', '--path', 'etc/os'),
      /^Downloading layers:\n(\t[0-9a-f]{12} \.\.\. done\n){3}\nRootfs of /m,
    );
  });

  for (const [flags, expected] of [
    [
      ['--path', 'opt'],
      ['opt/', 'opt/app/', 'opt/app/high "seen"'],
    ],
    [
      ['--path', 'etc', '--exclude', 'os'],
      ['etc/', 'etc/keep "kept"'],
    ],
    [
      ['--path', 'usr/bin/sh'],
      ['usr/', 'usr/bin/', 'usr/bin/sh "shell"'],
    ],
    [
      ['--path', './/usr/../bin/sh'],
      ['bin -> usr/bin', 'usr/', 'usr/bin/', 'usr/bin/sh "shell"'],
    ],
    [['--path', 'bin'], ['bin -> usr/bin']],
    [
      ['--path', 'bin/'],
      ['bin -> usr/bin', 'usr/', 'usr/bin/', 'usr/bin/sh "shell"'],
    ],
    [
      ['--path', 'link/third'],
      ['link/', 'link/third "one inode"'],
    ],
    [
      ['--path', 'link'],
      ['link/', 'link/second "one inode" =1', 'link/third "one inode" =1'],
    ],
    [
      ['--path', 'a-first', '--path', 'link/third'],
      ['a-first "one inode" =1', 'link/', 'link/third "one inode" =1'],
    ],
    [
      [
        '--exclude',
        '/a*',
        '--exclude',
        'etc/',
        '--exclude',
        'usr/**',
        '--exclude',
        'var',
        '--exclude',
        'opt',
      ],
      ['bin -> usr/bin', 'link/', 'link/second "one inode" =1', 'link/third "one inode" =1', 'usr/'],
    ],
  ] as const)
    test(flags.join(' '), async () => {
      using place = new Place();
      const reference = image();
      await place.done(reference, '-d', 'out', '--no-json', ...flags);
      const tree = place.tree('out');
      assert.deepEqual(tree.replaceAll(/^\S+ /gm, '').split('\n').slice(0, -1), expected);
      await place.done(reference, '-o', 'part.tar', ...flags);
      mkdirSync(place.join('untarred'));
      execFileSync('tar', ['-xpf', place.join('part.tar'), '-C', place.join('untarred')]);
      assert.equal(place.tree('untarred'), tree);
      assert.equal(await place.done('verify', reference, '-d', 'out', '--contents', ...flags), '');
    });

  test('the very tar of one file on standard output', async () => {
    using place = new Place();
    const tarred = await place.done(image(), '--path', 'etc/os', '-o', '-');
    assert.match(tarred, /^\.\/\0[^]*etc\/\0[^]*etc\/os\0[^]*new/);
  });

  test(
    'is as the whole with all else removed, whatever the layers are',
    { skip: needsRoot, timeout: 600_000 },
    async () => {
      using place = new Place();
      const excludes = fc.constantFrom('*-b', 'a', 'b/', '/c', 'a/b', '**/c', 'a/**', '[bc]', '?', 'c/');
      await fc.assert(
        fc.asyncProperty(
          randomLayers,
          fc.array(fc.nat(), { maxLength: 3 }),
          fc.array(excludes, { maxLength: 2 }),
          async (items, numbers, patterns) => {
            for (const name of ['out', 'part', 'expected', 'work'])
              rmSync(place.join(name), { recursive: true, force: true });
            const reference = pushed(...items);
            fc.pre((await place.run(reference, '-d', 'out', '--no-json')).exitCode === 0);
            const all = pathsOf(place.join('out'));
            // In a tar, such a name would be a whiteout.
            fc.pre(all.length > 0 && !all.some((name) => name.includes('.wh.') || name.includes('\ufffd')));
            // In git `?` matches one byte, here one character.
            fc.pre(!patterns.includes('?') || all.every((name) => Buffer.byteLength(name) === name.length));
            const wanted = numbers.map((number) => all[number % all.length]!.replace(/\/$/, ''));
            const ignored = gitIgnored(place, all, patterns);
            fc.pre(!wanted.some((name) => ignored(name)));
            const flags = [
              ...wanted.flatMap((name) => ['--path', name]),
              ...patterns.flatMap((pattern) => ['--exclude', pattern]),
            ];
            await place.done(reference, '-d', 'part', '--no-json', ...flags);
            execFileSync('cp', ['-a', place.join('out'), place.join('expected')]);
            for (const name of all.map((each) => each.replace(/\/$/, ''))) {
              const isWanted =
                wanted.length === 0 ||
                wanted.some((each) => `${name}/`.startsWith(`${each}/`) || each.startsWith(`${name}/`));
              if (!isWanted || ignored(name))
                rmSync(place.join('expected', name), { recursive: true, force: true });
            }
            const tree = (name: string) => printTree(place.join(name), { hide: ['time'] });
            assert.equal(tree('part'), tree('expected'));
            // The times are equal, too.
            assert.equal(await place.done('verify', reference, '-d', 'part', '--contents', ...flags), '');
          },
        ),
        { numRuns: runs(3, 30) },
      );
    },
  );
});

/** Returns all paths in a directory, with a slash after directories, without following links. */
function pathsOf(root: string, above = ''): string[] {
  return readdirSync(path.join(root, above), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(above, entry.name);
    return entry.isDirectory() ? [`${name}/`, ...pathsOf(root, name)] : [name];
  });
}

/** Returns a test for the paths that git would ignore. */
function gitIgnored(
  place: Place,
  paths: readonly string[],
  patterns: readonly string[],
): (name: string) => boolean {
  mkdirSync(place.join('work'));
  const git = (words: readonly string[], input = '') =>
    execFileSync('sh', ['-c', `git --git-dir ../git --work-tree . ${words.join(' ')} || [ $? = 1 ]`], {
      cwd: place.join('work'),
      input,
      encoding: 'utf8',
    });
  git(['init', '-q']);
  mkdirSync(place.join('git/info'), { recursive: true });
  writeFileSync(place.join('git/info/exclude'), patterns.map((pattern) => `${pattern}\n`).join(''));
  for (const name of paths) if (name.endsWith('/')) mkdirSync(place.join('work', name), { recursive: true });
  const input = paths.map((name) => `${name.replace(/\/$/, '')}\0`).join('');
  const names = new Set(git(['check-ignore', '--no-index', '-z', '--stdin'], input).split('\0'));
  return (name) => names.has(name);
}

describe('a part that cannot be', () => {
  for (const [flags, exitCode, message] of [
    [['--path', 'etc/none'], 3, /has no \/etc\/none\nhint: list what it has: dlrootfs ls \S+ \/etc$/m],
    [['--path', 'etc/os/'], 3, /has no \/etc\/os\//],
    [['--path', 'etc', '--path', 'no/such'], 3, /has no \/no\/such/],
    [['--path', 'etc/gone'], 3, /has no \/etc\/gone/],
    [
      ['--path', 'etc/os', '--exclude', 'etc/'],
      2,
      /cannot select \/etc\/os: a pattern of --exclude excludes \/etc/,
    ],
    [['--exclude', '/'], 2, /"\/" is no pattern of paths/],
    [['--path', 'etc', '-g'], 2, /cannot use git for a part of an image/],
  ] as const)
    test(flags.join(' '), async () => {
      using place = new Place();
      const result = await place.run(image(), '-d', 'out', ...flags);
      assert.equal(result.exitCode, exitCode, result.stderr);
      assert.match(result.stderr, message);
      assert.deepEqual(
        readdirSync(place.path).filter((name) => name !== 'cache'),
        [],
      );
    });

  test('a layer that is wrong is refused, also where nothing is taken from it', async () => {
    using place = new Place();
    const good = gzip(tar(file('etc/os', 'x')));
    const bad = Buffer.from(gzip(tar(file('var/other', 'y'.repeat(5000)))));
    bad[bad.length - 6]! ^= 1;
    images.registry.push('lib/bad', '1', { layers: [good, bad] });
    const { exitCode, stderr } = await place.run(
      images.registry.reference('lib/bad', '1'),
      '-d',
      'out',
      '--path',
      'etc/os',
    );
    assert.equal(exitCode, 6, stderr);
    assert.deepEqual(
      readdirSync(place.path).filter((name) => name !== 'cache'),
      [],
    );
  });

  test('a signal leaves nothing', async () => {
    using place = new Place();
    await using slow = await FakeRegistry.start({
      faults: [{ path: /\/blobs\//, skip: 1, times: 9, rate: 1000 }],
    });
    slow.push('lib/img', '1', {
      layers: [{ tar: tar(file('a', 'x'.repeat(100_000))), compression: 'none' }],
    });
    const argv = [slow.reference('lib/img', '1'), '-d', 'out', '--no-cache', '--path', 'a'];
    const running = startProgram(argv, { cwd: place.path });
    await until('the blob to be asked for', () =>
      slow.requests.some(({ path: asked }) => asked.includes('/blobs/')),
    );
    running.kill('SIGTERM');
    assert.equal((await running.result).exitCode, 143);
    assert.deepEqual(readdirSync(place.path), []);
  });
});

test('a part in a directory says so, and a second pull and verify know', async () => {
  using place = new Place();
  const reference = image();
  await place.done(reference, '-d', 'out', '--path', 'etc/os', '--exclude', '*.x');
  const json = JSON.parse(readFileSync(place.join('out/json'), 'utf8')) as Record<string, unknown>;
  assert.deepEqual(json['dlrootfs.part'], { paths: ['etc/os'], excludes: ['*.x'] });
  const whole = await place.run('verify', reference, '-d', 'out', '--progress', 'none');
  assert.equal(whole.exitCode, 9);
  assert.match(whole.stdout, /^missing \/usr\/$/m);
  assert.equal(
    whole.stderr,
    'notice: out/json says that out holds only a part of the image: --path etc/os --exclude *.x\n',
  );
  const part = await place.run(
    'verify',
    reference,
    '-d',
    'out',
    '--progress',
    'none',
    '--path',
    'etc/os',
    '--exclude',
    '*.x',
  );
  assert.deepEqual([part.exitCode, part.stdout, part.stderr], [0, '', '']);
  const more = await place.run(reference, '-d', 'out', '--path', 'opt', '--merge');
  assert.equal(more.exitCode, 0, more.stderr);
  assert.ok(existsSync(place.join('out/opt/app/high')) && existsSync(place.join('out/etc/os')));
  await place.done(reference, '-d', 'out', '--merge');
  const { exitCode, stdout } = await place.run('verify', reference, '-d', 'out', '--contents');
  assert.deepEqual([exitCode, stdout], [0, '']);
});

const catImage = (): string =>
  pushed(
    [
      dir('etc'),
      file('etc/os', 'old'),
      symlink('etc/link', '../usr/lib/os'),
      symlink('lib', '/usr/lib'),
      symlink('out', '../../../../etc/os'),
      symlink('circle', 'circle'),
      symlink('gone', 'nowhere'),
      file('usr/lib/os', Buffer.from([0, 255, 10, 0xc3])),
      hardlink('also', 'etc/os'),
      file('empty', ''),
    ],
    [file('etc/os', 'new'), sparse('holes', 200_000, [[5, 'a'], [100_000, 'b']], '1.0')], // prettier-ignore
  );

describe('cat', () => {
  test('writes the bytes of a file, symlinks followed inside the image', async () => {
    using place = new Place();
    const reference = catImage();
    const bytes = async (name: string): Promise<Buffer> => {
      await place.done('cat', reference, name, '--progress', 'none');
      const line = `exec "$0" "$@" >${place.join('bytes')}`;
      const { exitCode, stderr } = await runProgram(
        ['cat', reference, name, '--cache-dir', place.join('cache')],
        { under: ['sh', '-c', line] },
      );
      assert.equal(exitCode, 0, stderr);
      return readFileSync(place.join('bytes'));
    };
    assert.equal((await bytes('/etc/os')).toString(), 'new');
    assert.equal((await bytes('also')).toString(), 'old');
    assert.deepEqual(await bytes('etc/link'), Buffer.from([0, 255, 10, 0xc3]));
    assert.deepEqual(await bytes('lib/../lib/os'), Buffer.from([0, 255, 10, 0xc3]));
    assert.equal((await bytes('out')).toString(), 'new');
    assert.equal((await bytes('empty')).length, 0);
    const holes = Buffer.alloc(200_000);
    holes.write('a', 5);
    holes.write('b', 100_000);
    assert.ok((await bytes('holes')).equals(holes));
  });

  for (const [name, message] of [
    ['etc', /^error: cannot read etc of \S+: it is a directory, not a file\nhint: .*--path etc -d DIR$/m],
    ['none', /^error: \S+ has no \/none\nhint: /m],
    ['etc/os/', /has no \/etc\/os\//],
    ['circle', /it is a symlink, not a file|has no \/circle/],
    ['gone', /has no \/gone/],
  ] as const)
    test(`of ${name} says what is there`, async () => {
      using place = new Place();
      const { exitCode, stdout, stderr } = await place.run('cat', catImage(), name);
      assert.deepEqual([exitCode, stdout], [3, '']);
      assert.match(stderr, message);
    });
});
