import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { geteuid } from 'node:process';
import { describe, test } from 'node:test';
import { pull as pullByLibrary } from '../../src/index.ts';
import { dir, file, hardlink, tar, type Item } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import {
  type ProgramOptions,
  type ProgramResult,
  Scratch,
  programCommand,
  runProgram,
} from '../support/program.ts';
import { printTree } from '../support/tree.ts';
import { HANG } from '../support/hang.ts';

const isRoot = geteuid?.() === 0;
const needsRoot = isRoot ? false : 'needs root';

const layer = (...items: Item[]) => ({ tar: tar(...items) });

type Pull = (argv: readonly string[], options?: ProgramOptions) => Promise<ProgramResult>;

/** Runs the program with a registry of four images, one of which is the base of another. */
async function withImages(
  work: (run: Pull, scratch: Scratch, registry: FakeRegistry) => Promise<void>,
): Promise<void> {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();

  const base = layer(dir('etc'), file('etc/base', ''));
  registry.push('base', '1', { layers: [base] });
  registry.push('app', '1', { layers: [base, layer(file('app', ''))] });
  registry.push('other', '1', { layers: [layer(file('other', ''))] });
  registry.push('rooted', '1', { layers: [layer(dir('.', { mode: 0o711, uid: 9, gid: 9 }), file('x', ''))] });
  const named = (word: string) => (/^\w+:1$/.test(word) ? `${registry.host}/${word}` : word);
  await work(
    (argv, options) => {
      const cache = argv.includes('--cache-dir') ? [] : ['--no-cache'];
      return runProgram([...argv.map(named), ...cache], { cwd: scratch.path, ...options });
    },
    scratch,
    registry,
  );
}

function assertRefused(result: ProgramResult, says: RegExp, exitCode = 7): void {
  assert.equal(result.exitCode, exitCode, result.stderr);
  assert.match(result.stderr, says);
  assert.match(result.stderr, /\nhint: [^\n]+\n$/);
  assert.equal(result.stdout, '', 'nothing is fetched first');
}

/** Words that run a command after a line of shell, in a new mount namespace. */
const mounted = (line: string) => ['unshare', '-m', 'sh', '-c', `${line} && exec "$@"`, 'sh'];

describe('the root of the running system is refused', () => {
  const names = [
    '/',
    '//',
    '/..',
    '/usr/../..',
    '/proc/self/root',
    '/proc/thread-self/root/.',
    'link',
    'through/..',
  ];
  for (const name of names) {
    test(`-d ${name}`, async () => {
      await withImages(async (pull, scratch) => {
        symlinkSync('/', scratch.join('link'));
        symlinkSync('/usr', scratch.join('through'));
        assertRefused(
          await pull(['base:1', '-d', name]),
          /^error: cannot use .*: it is the root of the running system$/m,
        );
        assertRefused(await pull(['base:1', '-g', '-d', name]), /root of the running system/);
        assertRefused(await pull(['base:1', '--merge', '-d', name]), /root of the running system/);
      });
    });
  }

  test('a bind mount of it over the working directory', async (t) => {
    await withImages(async (pull, scratch) => {
      mkdirSync(scratch.join('root'));
      const cwd = scratch.join('root');
      if (spawnSync('unshare', ['-m', 'true']).status !== 0) return t.skip('needs the right to mount');
      const covered = await pull(['base:1', '-d', '.'], { cwd, under: mounted('mount --bind / ../root') });
      assertRefused(covered, /^error: cannot use \.: something was mounted over the working directory$/m);
      assert.match(covered.stderr, /^hint: enter it again \(cd "\$PWD"\)/m);
      const again = mounted('mount --bind / ../root && cd "$PWD"');
      assertRefused(
        await pull(['base:1', '-d', '.'], { cwd, under: again }),
        /it is the root of the running/,
      );
    });
  });

  test('a bind mount of it', async (t) => {
    await withImages(async (pull, scratch) => {
      const place = scratch.join('mnt');
      mkdirSync(place);
      if (spawnSync('mount', ['--bind', '/', place]).status !== 0) return t.skip('needs the right to mount');
      try {
        assertRefused(await pull(['base:1', '-d', 'mnt']), /root of the running system/);
      } finally {
        execFileSync('umount', ['-l', place]);
      }
    });
  });

  test('in a chroot, its own root and that of the host', async (t) => {
    if (!isRoot) return t.skip('needs root');
    if (programCommand.length !== 1) return t.skip('needs the binary');
    await withImages(async (pull, scratch) => {
      const root = scratch.join('jail');
      mkdirSync(root);
      // The directory has the whole system in it, but is not its root.
      const shell = `mount --rbind / ${root} && mount -t tmpfs none ${root}/mnt && mkdir ${root}/mnt/jail && mount --rbind / ${root}/mnt/jail && exec chroot ${root}/mnt/jail "$@"`;
      const under = ['unshare', '-m', '--propagation', 'private', 'sh', '-c', shell, 'sh'];
      for (const name of ['/', '/proc/1/root', '/proc/self/root']) {
        assertRefused(
          await pull(['base:1', '-d', name], { under, cwd: '/' }),
          /^error: cannot use .*: it (is the root of the running system|has no path)|^error: cannot write \/proc\/1\/root: permission denied/m,
        );
      }
    });
  });
});

describe(
  "another user's symlink in a directory that others may write is not followed",
  { skip: needsRoot },
  () => {
    interface Row {
      readonly name: string;
      readonly mode: number;
      /** Owners of the directory, of the link in it, and of the directory that the link leads to. */
      readonly owners: readonly [directory: number, link: number, target?: number];
      readonly refused: boolean;
    }
    const rows: readonly Row[] = [
      { name: 'of another user', mode: 0o1777, owners: [0, 65_534], refused: true },
      { name: 'of the caller', mode: 0o1777, owners: [65_534, 0], refused: false },
      { name: "of the directory's owner", mode: 0o1777, owners: [65_534, 65_534, 65_534], refused: false },
      {
        name: "of the directory's owner, to what is root's",
        mode: 0o755,
        owners: [65_534, 65_534],
        refused: true,
      },
      { name: 'in a directory that is not sticky', mode: 0o777, owners: [0, 65_534], refused: true },
      { name: 'in a directory that a group may write', mode: 0o775, owners: [0, 65_534], refused: true },
      {
        name: 'in a directory that only its owner may write',
        mode: 0o755,
        owners: [0, 65_534],
        refused: false,
      },
    ];
    for (const { name, mode, owners, refused } of rows) {
      for (const directory of [
        'shared/link',
        'shared/link/new/rootfs',
        './shared/../shared/link/.',
        'outer',
        'outer/x',
      ]) {
        test(`${name}: ${directory}`, async () => {
          await withImages(async (pull, scratch) => {
            mkdirSync(scratch.join('shared'));
            mkdirSync(scratch.join('victim'));
            symlinkSync('../victim', scratch.join('shared/link'));
            symlinkSync('shared/link', scratch.join('outer'));
            lchownSync(scratch.join('shared/link'), owners[1], owners[1]);
            chownSync(scratch.join('shared'), owners[0], owners[0]);
            chmodSync(scratch.join('shared'), mode);
            chownSync(scratch.join('victim'), owners[2] ?? 0, 0);
            const result = await pull(['base:1', '-d', directory]);
            if (refused) {
              assertRefused(result, /^error: cannot use .*: .*shared\/link is a symlink of user 65534 /m);
              assert.deepEqual(readdirSync(scratch.join('victim')), []);
            } else assert.equal(result.exitCode, 0, result.stderr);
          });
        });
      }
    }

    for (const [name, target] of [
      ['out.tar', '../victim/file'],
      ['link/out.tar', '../victim'],
    ] as const) {
      test(`of another user: -o shared/${name}`, async () => {
        await withImages(async (pull, scratch) => {
          mkdirSync(scratch.join('shared'));
          chmodSync(scratch.join('shared'), 0o1777);
          mkdirSync(scratch.join('victim'));
          writeFileSync(scratch.join('victim/file'), 'mine');
          const link = scratch.join('shared', name.split('/')[0]!);
          symlinkSync(target, link);
          lchownSync(link, 65_534, 65_534);
          assertRefused(
            await pull(['base:1', '-o', `shared/${name}`]),
            new RegExp(`^error: cannot use shared/${name}: .* is a symlink of user 65534 `, 'm'),
          );
          assert.equal(readFileSync(scratch.join('victim/file'), 'utf8'), 'mine');
          assert.deepEqual(readdirSync(scratch.join('victim')), ['file']);
        });
      });
    }

    test('of another user: --cache-dir', async () => {
      await withImages(async (pull, scratch) => {
        mkdirSync(scratch.join('shared'));
        chmodSync(scratch.join('shared'), 0o1777);
        mkdirSync(scratch.join('victim'), { mode: 0o700 });
        mkdirSync(scratch.join('victim/partial'), { mode: 0o700 });
        writeFileSync(scratch.join('victim/partial/mine'), '');
        symlinkSync('../victim', scratch.join('shared/link'));
        lchownSync(scratch.join('shared/link'), 65_534, 65_534);
        const says = /^error: cannot use shared\/link.*: .*shared\/link is a symlink of user 65534 /m;
        for (const directory of ['shared/link', 'shared/link/new']) {
          assertRefused(await pull(['base:1', '--cache-dir', directory]), says);
          for (const what of ['size', 'prune']) {
            const words = ['cache', what, '--cache-dir', directory];
            assertRefused(await runProgram(words, { cwd: scratch.path }), says);
          }
        }
        assert.deepEqual(readdirSync(scratch.join('victim'), { recursive: true }), [
          'partial',
          'partial/mine',
        ]);
        assert.deepEqual(readdirSync(scratch.path), ['shared', 'victim']);
      });
    });

    test('a link that leads to nothing either', async () => {
      await withImages(async (pull, scratch) => {
        mkdirSync(scratch.join('shared'));
        chmodSync(scratch.join('shared'), 0o1777);
        symlinkSync('../missing', scratch.join('shared/link'));
        lchownSync(scratch.join('shared/link'), 65_534, 65_534);
        assertRefused(await pull(['base:1', '-d', 'shared/link']), /symlink of user 65534/);
        assert.deepEqual(readdirSync(scratch.path), ['shared']);
      });
    });
  },
);

const makeForeign = (scratch: Scratch): string => {
  mkdirSync(scratch.join('out'), { mode: 0o750 });
  chmodSync(scratch.join('out'), 0o750);
  chownSync(scratch.join('out'), 1000, 1000);
  return scratch.join('out');
};
const ownerOf = (path: string): string => {
  const { uid, gid, mode } = statSync(path);
  return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`;
};

describe('an empty DIR of another user', { skip: needsRoot }, () => {
  test("becomes the caller's where the image has no entry for its root, and this is said", async () => {
    await withImages(async (pull, scratch) => {
      const out = makeForeign(scratch);
      const { exitCode, stderr } = await pull(['base:1', '-d', 'out']);
      assert.equal(exitCode, 0, stderr);
      assert.equal(ownerOf(out), '0:0 750');
      assert.match(
        stderr,
        /^notice: out belonged to user 1000 and now belongs to user 0, as the root of the image does$/m,
      );
    });
  });

  test("has the owner that the image's root entry says", async () => {
    await withImages(async (pull, scratch) => {
      const out = makeForeign(scratch);
      const { exitCode, stderr } = await pull(['rooted:1', '-d', 'out']);
      assert.equal(exitCode, 0, stderr);
      assert.equal(ownerOf(out), '9:9 711');
      assert.match(stderr, /^notice: out belonged to user 1000 and now belongs to user 9, /m);
    });
  });

  test('in place, where it cannot be replaced', async () => {
    await withImages(async (pull, scratch) => {
      const out = makeForeign(scratch);
      const { exitCode, stderr } = await pull(['base:1', '-d', '.'], { cwd: out });
      assert.equal(exitCode, 0, stderr);
      assert.equal(ownerOf(out), '0:0 750');
      assert.match(stderr, /^notice: \. belonged to user 1000 and now belongs to user 0, /m);
    });
  });

  test('one of the caller is as before, without a word', async () => {
    await withImages(async (pull, scratch) => {
      mkdirSync(scratch.join('out'), { mode: 0o700 });
      const { exitCode, stderr } = await pull(['base:1', '-d', 'out']);
      assert.deepEqual([exitCode, stderr, ownerOf(scratch.join('out'))], [0, '', '0:0 700']);
    });
  });
});

describe('a DIR that holds files', () => {
  const NOT_EMPTY =
    /^error: cannot unpack into out: it is not empty\nhint: add --merge to [^\n]*, --replace to [^\n]*\n$/;

  test('is refused before anything is downloaded; --merge lays the image over them', async () => {
    const rows: Readonly<Record<string, (out: string) => void>> = {
      'a file': (out) => writeFileSync(`${out}/mine`, 'mine'),
      'an empty directory': (out) => mkdirSync(`${out}/mine`),
      'a link to nothing': (out) => symlinkSync('nothing', `${out}/mine`),
      'a name that is no UTF-8': (out) => writeFileSync(Buffer.from(`${out}/\xe9`, 'latin1'), ''),
      'a file lost+found': (out) => writeFileSync(`${out}/lost+found`, ''),
      'a link lost+found': (out) => symlinkSync('..', `${out}/lost+found`),
      "a directory lost+found with a mode that is not mke2fs's": (out) =>
        mkdirSync(`${out}/lost+found`, 0o755),
      'lost+found and a file': (out) => {
        mkdirSync(`${out}/lost+found`, 0o700);
        writeFileSync(`${out}/mine`, '');
      },
    };
    for (const [what, fill] of Object.entries(rows)) {
      await withImages(async (pull, scratch, registry) => {
        const out = scratch.join('out');
        mkdirSync(out);
        fill(out);
        const before = printTree(out);
        for (const flags of [[], ['-g'], ['--path', 'etc'], ['--layers', '0']]) {
          const { exitCode, stderr } = await pull(['base:1', '-d', 'out', ...flags]);
          assert.equal(exitCode, 7, `${what}: ${stderr}`);
          assert.match(stderr, NOT_EMPTY, what);
        }
        assert.equal(printTree(out), before, what);
        assert.deepEqual(registry.log(/./), [], what);
        const merged = await pull(['base:1', '-d', 'out', '--merge']);
        assert.equal(merged.exitCode, 0, `${what}: ${merged.stderr}`);
        assert.match(merged.stderr, /^notice: out is not empty: the image is laid over its files$/m);
        assert.ok(readdirSync(out).includes('etc'));
      });
    }
  });

  test('the image that it holds is no reason: changed files come back by --merge, added ones stay', async () => {
    await withImages(async (pull, scratch) => {
      assert.equal((await pull(['app:1', '-d', 'out'])).exitCode, 0);
      assert.equal((await pull(['app:1', '-d', 'out'])).exitCode, 7);
      writeFileSync(scratch.join('out/mine'), 'mine');
      writeFileSync(scratch.join('out/app'), 'changed');
      rmSync(scratch.join('out/etc/base'));
      const again = await pull(['app:1', '-d', 'out', '--merge']);
      assert.equal(again.exitCode, 0, again.stderr);
      assert.deepEqual(readdirSync(scratch.join('out')).toSorted(), ['app', 'etc', 'json', 'mine']);
      assert.equal(readFileSync(scratch.join('out/app'), 'utf8'), '');
      assert.deepEqual(readdirSync(scratch.join('out/etc')), ['base']);
    });
  });

  test('that came after the first look is refused too', async () => {
    await withImages(async (_, scratch, registry) => {
      const out = scratch.join('out');
      const pulled = pullByLibrary(`${registry.host}/base:1`, {
        destination: out,
        cache: false,
        report({ type }) {
          if (type !== 'image') return;
          mkdirSync(out);
          writeFileSync(`${out}/mine`, 'mine');
        },
      });
      await assert.rejects(pulled, { exitCode: 7, code: 'NOT_EMPTY' });
      assert.deepEqual(readdirSync(scratch.path), ['out']);
      assert.deepEqual(readdirSync(out), ['mine']);
    });
  });

  test(
    'lost+found alone, as mke2fs makes it, stays, also where the pull fails',
    { skip: needsRoot },
    async () => {
      await withImages(async (pull, scratch, registry) => {
        const lost = scratch.join('out/lost+found');
        mkdirSync(lost, { recursive: true, mode: 0o700 });
        writeFileSync(`${lost}/#12`, 'found');
        const inode = statSync(lost).ino;
        registry.push('broken', '1', {
          layers: [{ tar: tar(dir('etc'), file('etc/new', '')) }, { tar: tar(hardlink('etc/x', 'nowhere')) }],
        });
        const failed = await pull(['broken:1', '-d', 'out']);
        assert.equal(failed.exitCode, 6, failed.stderr);
        assert.deepEqual(readdirSync(scratch.join('out')), ['lost+found']);
        const { exitCode, stderr } = await pull(['base:1', '-d', 'out', '-g']);
        assert.equal(exitCode, 0, stderr);
        assert.deepEqual(readdirSync(scratch.join('out')).toSorted(), [
          '.git',
          'etc',
          'json',
          'layersize',
          'lost+found',
        ]);
        assert.deepEqual([statSync(lost).ino, readFileSync(`${lost}/#12`, 'utf8')], [inode, 'found']);
      });
    },
  );
});

/** Asserts that verify reports `json` in DIR as a file that no pull has written. */
async function isExtra(run: Pull): Promise<void> {
  const options = { timeoutMilliseconds: HANG };
  const { exitCode, stdout, stderr } = await run(['verify', 'base:1', '-d', 'out'], options);
  assert.deepEqual([exitCode, stderr], [9, '']);
  assert.match(stdout, /^extra \/json$/m);
}

describe('the json of a DIR, which verify looks at', () => {
  test("the original's is understood, with tabs as it wrote them", async () => {
    await withImages(async (pull, scratch) => {
      mkdirSync(scratch.join('out'));
      const id = 'ab'.repeat(32);
      writeFileSync(
        scratch.join('out/json'),
        `{\n\t"id": "${id}",\n\t"parent": "${'cd'.repeat(32)}",\n\t"created": "2014-06-01T00:00:00Z\\u001b[31m",\n\t"os": "linux",\n\t"architecture": "amd64"\n}`,
      );
      const { exitCode, stderr } = await pull(['verify', 'base:1', '-d', 'out']);
      assert.equal(exitCode, 9);
      assert.match(stderr, /top layer abababababab for linux\/amd64 of 2014-06-01T00:00:00Z\\x1b\[31m$/m);
    });
  });

  test('what is no image JSON is a file like any other, and nothing is waited for', async () => {
    const id = 'ab'.repeat(32);
    const contents = [
      '',
      '{',
      '[]',
      'null',
      '{"id":"x","os":"linux"}',
      `{"id":"${id}"}`,
      `{"id":"${id}","os":${'['.repeat(200)}`,
      `{"name":"left-pad","os":["linux"]}`,
    ];
    await withImages(async (pull, scratch) => {
      const json = scratch.join('out/json');
      mkdirSync(scratch.join('out'));
      for (const content of contents) {
        writeFileSync(json, content);
        await isExtra(pull);
      }
      rmSync(json);
      execFileSync('mkfifo', [json]);
      await isExtra(pull);
      rmSync(json);
      writeFileSync(scratch.join('foreign'), JSON.stringify({ id, os: 'linux' }));
      symlinkSync('../foreign', json);
      await isExtra(pull);
    });
  });
});

describe('--merge', () => {
  test('goes neither with -g nor with -o', async () => {
    await withImages(async (pull) => {
      assertRefused(await pull(['base:1', '--merge', '-g']), /^error: cannot use merge with git/m, 2);
      assertRefused(
        await pull(['base:1', '--merge', '-o', 'x.tar']),
        /^error: cannot use --merge with -o/m,
        2,
      );
    });
  });
});

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');
/** Runs the pull through a shell, which makes arguments of any bytes. Node passes UTF-8 only. */
const shell = async (
  pull: (argv: readonly string[], options?: ProgramOptions) => Promise<ProgramResult>,
  argv: readonly string[],
) => {
  const words = argv.map((word) => word.replaceAll('\u00e9', String.raw`\351`));
  const script = `i=0; for a; do shift; set -- "$@" "$(printf '%b' "$a")"; done; exec "$@"`;
  // The words that the test harness adds are plain text.
  return await pull(words, { under: ['sh', '-c', script, 'sh'] });
};
const names = (scratch: Scratch): string[] =>
  readdirSync(scratch.path, { encoding: 'buffer' })
    .map((name) => name.toString('latin1'))
    .toSorted();

describe('names that are not UTF-8', () => {
  test('-d: new with levels above, empty, laid over, through a link, with --prepare; -q prints the bytes', async () => {
    await withImages(async (pull, scratch) => {
      const made = await shell(pull, ['base:1', '-d', 'a\u00e9/b\u00e9/c\u00e9']);
      assert.equal(made.exitCode, 0, made.stderr);
      assert.deepEqual(names(scratch), ['a\u00e9']);
      const place = Buffer.concat([bytes(scratch.path), bytes('/a\u00e9/b\u00e9/c\u00e9')]);
      assert.deepEqual(readdirSync(place).toSorted(), ['etc', 'json']);
      const again = await shell(pull, ['app:1', '--merge', '--prepare', '-d', 'a\u00e9/b\u00e9/c\u00e9']);
      assert.equal(again.exitCode, 0, again.stderr);
      assert.match(again.stderr, /^notice: a\\xe9\/b\\xe9\/c\\xe9 is not empty: /m);
      mkdirSync(Buffer.concat([bytes(scratch.path), bytes('/empty\u00e9')]));
      symlinkSync(bytes('empty\u00e9'), scratch.join('link'));
      assert.equal((await pull(['base:1', '-d', 'link'])).exitCode, 0);
      assert.deepEqual(readdirSync(Buffer.concat([bytes(scratch.path), bytes('/empty\u00e9')])).toSorted(), [
        'etc',
        'json',
      ]);
      assert.deepEqual(names(scratch), ['a\u00e9', 'empty\u00e9', 'link']);
    });
  });

  test('below a working directory whose name is not UTF-8', async () => {
    await withImages(async (pull, scratch) => {
      mkdirSync(Buffer.concat([bytes(scratch.path), bytes('/w\u00e9')]));
      const under = ['sh', '-c', `cd "$(printf 'w\\351')" && exec "$@"`, 'sh'];
      const result = await pull(['base:1', '-d', 'out'], { under });
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(names(scratch), ['w\u00e9']);
      const archive = await pull(['base:1', '-o', 'x.tar'], { under });
      assert.equal(archive.exitCode, 0, archive.stderr);
      assert.deepEqual(readdirSync(Buffer.concat([bytes(scratch.path), bytes('/w\u00e9')])).toSorted(), [
        'out',
        'x.tar',
      ]);
    });
  });

  test('-o, --cache-dir, --ca-file and a source', async () => {
    await withImages(async (pull, scratch) => {
      const archive = await shell(pull, ['base:1', '-o', 'x\u00e9.tar', '--cache-dir', 'cache\u00e9']);
      assert.equal(archive.exitCode, 0, archive.stderr);
      assert.deepEqual(names(scratch), ['cache\u00e9', 'x\u00e9.tar']);
      const missing = await shell(pull, ['base:1', '-d', 'out', '--ca-file', 'no\u00e9']);
      assert.equal(missing.exitCode, 2);
      assert.match(missing.stderr, /^error: cannot open no\\xe9 for --ca-file: /m);
      const source = await shell(pull, ['docker-archive:x\u00e9.tar', '-d', 'out']);
      assert.equal(source.exitCode, 3, source.stderr);
      assert.match(source.stderr, /x\\xe9\.tar holds no image in that form/);
    });
  });

  test('-g and --for refuse them', async () => {
    await withImages(async (pull, scratch) => {
      for (const flags of [['-g'], ['--for', 'runc']]) {
        const result = await shell(pull, ['base:1', ...flags, '-d', 'x\u00e9']);
        assert.ok(result.exitCode === 2 && /not UTF-8\nhint: /.test(result.stderr), result.stderr);
      }
      assert.deepEqual(names(scratch), []);
    });
  });
});
