import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { geteuid } from 'node:process';
import { describe, it, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { prune, StoreFiles } from '../../src/blob/store-files.ts';
import { pruneStore, Store, storeSize } from '../../src/blob/store.ts';
import { DestinationError } from '../../src/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { dir, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { type ProgramResult, runProgram, Scratch } from '../support/program.ts';

const SIGNATURE = 'Signature: 8a477f597d28d172789f06886806bc55';
const rootOnly = { skip: geteuid?.() === 0 ? false : 'needs root, to give files to other users' };
const hex = (text: string) => digestOf(Buffer.from(text)).slice(7);

/** A registry with an image, and commands that use a cache. */
class Setting implements AsyncDisposable {
  readonly scratch = new Scratch();
  readonly registry: FakeRegistry;
  readonly reference: string;

  constructor(registry: FakeRegistry) {
    this.registry = registry;
    registry.push('lib/img', '1', { layers: [{ tar: tar(dir('etc')) }] });
    this.reference = registry.reference('lib/img', '1');
  }

  static async open(): Promise<Setting> {
    return new Setting(await FakeRegistry.start());
  }

  async pull(cache: string, ...flags: readonly string[]): Promise<ProgramResult> {
    rmSync(this.scratch.join('rootfs'), { recursive: true, force: true });
    const argv = [this.reference, '-d', 'rootfs', '--cache-dir', cache, '--progress', 'none', ...flags];
    return await runProgram(argv, { cwd: this.scratch.path });
  }

  async cache(cache: string, ...words: readonly string[]): Promise<ProgramResult> {
    return await runProgram(['cache', ...words, '--cache-dir', cache], { cwd: this.scratch.path });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.scratch[Symbol.dispose]();
    await this.registry[Symbol.asyncDispose]();
  }
}

function makeFile(base: string, name: string, content = 'x'): void {
  mkdirSync(path.dirname(path.join(base, name)), { recursive: true });
  writeFileSync(path.join(base, name), content);
}

/** All paths below a directory, with the contents of files. */
function contentsOf(base: string): string[] {
  const names = readdirSync(base, { recursive: true, encoding: 'utf8' });
  return names
    .map((name) => {
      const place = path.join(base, name);
      return lstatSync(place).isFile() ? `${name}: ${readFileSync(place, 'latin1')}` : name;
    })
    .toSorted();
}

test('a new directory becomes a cache, with the tag that backup programs know', async () => {
  await using setting = await Setting.open();
  for (const cache of ['new', 'empty', 'disk']) {
    const place = setting.scratch.join(cache);
    if (cache !== 'new') mkdirSync(place, { mode: 0o700 });
    if (cache === 'disk') mkdirSync(path.join(place, 'lost+found'));
    const { exitCode, stderr } = await setting.pull(cache);
    assert.deepEqual([exitCode, stderr], [0, '']);
    const text = readFileSync(path.join(place, 'CACHEDIR.TAG'), 'latin1');
    assert.equal(text.slice(0, SIGNATURE.length + 1), `${SIGNATURE}\n`);
    assert.match((await setting.cache(cache)).stdout, /: 3 blobs, 0 partial, /);
  }
});

test('runs that make a cache at the same time share it', async () => {
  using scratch = new Scratch();
  for (let round = 0; round < 20; round += 1) {
    const place = scratch.join(`cache-${round}`);
    const prepared = Array.from({ length: 10 }, async (_, turns) => {
      for (let turn = 0; turn < turns; turn += 1) await setImmediate();
      const files = await StoreFiles.prepare(place);
      files.close();
    });
    await Promise.all(prepared);
  }
});

test('a cache of version 1.4.0, which has no tag, is taken over with all that it holds', async () => {
  await using setting = await Setting.open();
  const cache = setting.scratch.join('cache');
  await setting.pull('cache');
  rmSync(path.join(cache, 'CACHEDIR.TAG'));
  for (const name of [
    `partial/sha256-${hex('a')}`,
    `partial/sha256-${hex('a')}.ranges`,
    'partial/private-0123456789abcdef01234567',
    'partial/.dlrootfs-0123456789abcdef01234567',
    `tags/${hex('b')}`,
    `blobs/sha512/${hex('c')}${hex('d')}`,
  ])
    makeFile(cache, name);
  // A backup program may need this file.
  makeFile(cache, 'CACHEDIR.TAG', `${SIGNATURE}\n`);
  assert.match((await setting.cache('cache')).stdout, /: 4 blobs, 4 partial, /);
  assert.equal(readFileSync(path.join(cache, 'CACHEDIR.TAG'), 'latin1'), `${SIGNATURE}\n`);
  setting.registry.requests.length = 0;
  const { exitCode, stderr } = await setting.pull('cache', '--offline');
  assert.equal(exitCode, 0, stderr);
  assert.match(readFileSync(path.join(cache, 'CACHEDIR.TAG'), 'latin1'), /^Signature: .*\n.* dlrootfs\.\n/);
});

test('a tag that is a symlink is none: the convention wants an ordinary file', async () => {
  await using setting = await Setting.open();
  await setting.pull('cache');
  const cache = setting.scratch.join('cache');
  makeFile(cache, 'notes.txt');
  assert.equal((await setting.cache('cache')).exitCode, 0);
  renameSync(path.join(cache, 'CACHEDIR.TAG'), setting.scratch.join('tag'));
  symlinkSync('../tag', path.join(cache, 'CACHEDIR.TAG'));
  const { exitCode, stderr } = await setting.cache('cache');
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, /it holds \S+, and no CACHEDIR\.TAG of dlrootfs/);
});

describe('a directory with other files and without the tag is no cache', () => {
  const OLD_CACHE = ['blobs/sha256/', 'blobs/sha512/', 'partial/', 'tags/'];
  const rows: readonly [name: string, holds: readonly string[], named: string][] = [
    ['a file', ['notes.txt'], 'notes.txt'],
    ['an OCI layout', ['oci-layout', 'index.json', `blobs/sha256/${hex('x')}`], 'index.json'],
    ['blobs alone, as of containerd', [`blobs/sha256/${hex('x')}`], 'blobs'],
    ['the cache of another program', ['CACHEDIR.TAG', 'http/x'], 'http'],
    ['the tag of another program', ['CACHEDIR.TAG'], 'CACHEDIR.TAG'],
    ['a file beside the folders', [...OLD_CACHE, 'notes.txt'], 'notes.txt'],
    ['a file among tags', [...OLD_CACHE, 'tags/notes.txt'], 'tags/notes.txt'],
    ['a file among blobs', [...OLD_CACHE, 'blobs/sha256/README'], 'blobs/sha256/README'],
    ['a digest of another length', [...OLD_CACHE, `blobs/sha512/${hex('x')}`], `blobs/sha512/${hex('x')}`],
    [
      'a digest in capitals',
      [...OLD_CACHE, `tags/${hex('x').toUpperCase()}`],
      `tags/${hex('x').toUpperCase()}`,
    ],
    ['another algorithm', [...OLD_CACHE, 'blobs/md5/x'], 'blobs/md5'],
    ['a file among partial ones', [...OLD_CACHE, 'partial/sha256-x'], 'partial/sha256-x'],
  ];
  for (const [name, holds, named] of rows) {
    it(name, async () => {
      using scratch = new Scratch();
      for (const file of holds) {
        if (file.endsWith('/')) mkdirSync(scratch.join('X', file), { recursive: true });
        else makeFile(scratch.join('X'), file);
      }
      const directory = scratch.join('X');
      const before = contentsOf(directory);
      const options = { directory, spoolDirectory: scratch.path, maxBytes: 0, report: () => undefined };
      for (const use of [
        () => pruneStore(directory, 0),
        () => storeSize(directory),
        () => Store.open({ ...options, required: true }),
        () => Store.open(options),
      ])
        await assert.rejects(use, (error: unknown) => {
          assert.ok(error instanceof DestinationError);
          assert.ok(
            error.message.includes(` it holds ${named}, and no CACHEDIR.TAG of dlrootfs`),
            error.message,
          );
          return true;
        });
      assert.deepEqual(contentsOf(directory), before);
    });
  }

  it('in all commands', async () => {
    await using setting = await Setting.open();
    makeFile(setting.scratch.join('X'), 'tags/notes.txt');
    const results = [
      await setting.cache('X', 'prune'),
      await setting.cache('X', 'size'),
      await setting.cache('X', 'add', setting.reference),
      await setting.pull('X'),
    ];
    for (const { exitCode, stderr } of results) {
      assert.equal(exitCode, 7);
      assert.equal(
        stderr,
        'error: cannot use X as cache: it holds tags, and no CACHEDIR.TAG of dlrootfs\n' +
          'hint: choose an empty or a new directory with --cache-dir, or move tags away\n',
      );
    }
    assert.deepEqual(contentsOf(setting.scratch.join('X')), ['tags', 'tags/notes.txt: x']);
    assert.equal(setting.registry.requests.length, 0);
  });
});

test('in a cache, names that it does not give are neither counted nor removed', async () => {
  await using setting = await Setting.open();
  const cache = setting.scratch.join('cache');
  await setting.pull('cache');
  const foreign = [
    'notes.txt',
    'blobs/README',
    'blobs/sha256/README',
    `blobs/sha256/${hex('x')}.bak`,
    `blobs/sha512/${hex('x')}`,
    'partial/sha256-x',
    'partial/private-x',
    `partial/sha256-${hex('x')}.ranges.bak`,
    'tags/notes.txt',
  ];
  for (const name of foreign) {
    makeFile(cache, name);
    utimesSync(path.join(cache, name), 1, 1);
  }
  assert.match((await setting.cache('cache')).stdout, /: 3 blobs, 0 partial, /);
  assert.match((await setting.cache('cache', 'prune')).stdout, /: removed 3 blobs, 0 partial, /);
  const left = contentsOf(cache).filter((name) => name.endsWith(': x'));
  assert.deepEqual(left, foreign.map((name) => `${name}: x`).toSorted());
  assert.match((await setting.cache('cache')).stdout, /: 0 blobs, 0 partial, 0 B\n$/);
});

const run = (setting: Setting, ...argv: readonly string[]) =>
  runProgram(argv, { cwd: setting.scratch.path, environment: { HOME: setting.scratch.join('home') } });

describe('as root, a cache that another user may rename', rootOnly, () => {
  const USER = 4321;
  /** The user's directories; the cache is at `home/.cache/dlrootfs`. */
  function home(setting: Setting): string {
    mkdirSync(setting.scratch.join('home/.cache'), { recursive: true });
    for (const name of ['home', 'home/.cache']) chownSync(setting.scratch.join(name), USER, USER);
    return setting.scratch.join('home');
  }

  it('is not used nor made, and the pull goes on', async () => {
    await using setting = await Setting.open();
    const above = home(setting);
    const pulled = await run(setting, setting.reference, '-d', 'rootfs', '--progress', 'none');
    assert.equal(pulled.exitCode, 0, pulled.stderr);
    const said = `cannot use ${above}/.cache/dlrootfs: another user may rename what is in ${above}`;
    assert.ok(
      pulled.stderr.includes(
        `continuing without the cache: ${said}; choose another directory with --cache-dir\n`,
      ),
      pulled.stderr,
    );
    assert.ok(existsSync(setting.scratch.join('rootfs/etc')));
    assert.deepEqual(contentsOf(above), ['.cache']);
    const added = await run(setting, 'cache', 'add', setting.reference);
    assert.equal(added.exitCode, 7);
    assert.equal(added.stderr, `error: ${said}\nhint: choose another directory with --cache-dir\n`);
    assert.deepEqual(contentsOf(above), ['.cache']);
    assert.equal((await run(setting, 'cache', 'size')).exitCode, 0);
  });

  for (const owner of [0, USER]) {
    it(`is left alone behind a link of user ${owner}: to a directory of root's`, async () => {
      await using setting = await Setting.open();
      const above = home(setting);
      const victim = setting.scratch.join('victim');
      for (const name of [`blobs/sha256/${hex('x')}`, `tags/${hex('y')}`, `partial/sha256-${hex('z')}`])
        makeFile(victim, name);
      mkdirSync(path.join(victim, 'blobs/sha512'));
      const before = contentsOf(victim);
      symlinkSync(victim, path.join(above, '.cache/dlrootfs'));
      lchownSync(path.join(above, '.cache/dlrootfs'), owner, owner);
      for (const words of [['prune'], ['size'], ['add', setting.reference]]) {
        const { exitCode, stderr } = await run(setting, 'cache', ...words);
        assert.equal(exitCode, 7, stderr);
        const said =
          owner === 0 ? `another user may rename what is in ${above}\n` : `is a symlink of user ${owner} `;
        assert.ok(stderr.includes(said), stderr);
      }
      const pulled = await run(setting, setting.reference, '-d', 'rootfs', '--progress', 'none');
      assert.equal(pulled.exitCode, 0, pulled.stderr);
      assert.deepEqual(contentsOf(victim), before);
    });
  }

  it('is used in a sticky directory, where nobody else may rename it', async () => {
    await using setting = await Setting.open();
    mkdirSync(setting.scratch.join('home'));
    chmodSync(setting.scratch.join('home'), 0o1777);
    const pulled = await run(setting, setting.reference, '-d', 'rootfs', '--progress', 'none');
    assert.deepEqual([pulled.exitCode, pulled.stderr], [0, '']);
  });
});

test('a rename above an open cache: its files stay those of the directory that was opened', async () => {
  using scratch = new Scratch();
  const cache = scratch.join('above/cache');
  const other = scratch.join('other/cache');
  const name = `blobs/sha256/${hex('x')}`;
  const [files, theirs] = [await StoreFiles.prepare(cache), await StoreFiles.prepare(other)];
  theirs.close();
  makeFile(cache, name);
  makeFile(other, name);
  makeFile(other, `tags/${hex('y')}`);
  const before = contentsOf(other);
  renameSync(scratch.join('above'), scratch.join('moved'));
  symlinkSync('other', scratch.join('above'));
  await files.write(`tags/${hex('z')}`, 'new');
  assert.equal(readFileSync(scratch.join(`moved/cache/tags/${hex('z')}`), 'utf8'), 'new');
  assert.deepEqual(
    (await prune(files, 0)).removed.map((file) => file.name).toSorted(),
    [name, `tags/${hex('z')}`].toSorted(),
  );
  files.close();
  assert.deepEqual(contentsOf(other), before);
});

test('the record of a tag has the tag itself, and records of earlier versions are read', async () => {
  using scratch = new Scratch();
  const directory = scratch.join('cache');
  const open = () =>
    Store.open({ directory, spoolDirectory: scratch.path, maxBytes: 2 ** 30, report: () => undefined });
  const digest = digestOf(Buffer.from('manifest'));
  const store = await open();
  await store.remember('docker.io/library/alpine:3', digest);
  const note = path.join(directory, 'tags', hex('docker.io/library/alpine:3'));
  assert.equal(readFileSync(note, 'utf8'), `${digest}\ndocker.io/library/alpine:3\n`);
  for (const old of [digest, `${digest}\ndocker.io/library/alpine:3\n`]) {
    writeFileSync(note, old);
    assert.equal((await store.recall('docker.io/library/alpine:3'))?.digest, digest);
  }
  await store.close();
});

test('where the cache is required, a directory that cannot be used is an error', async () => {
  using scratch = new Scratch();
  writeFileSync(scratch.join('file'), '');
  const directory = scratch.join('file/cache');
  const options = { directory, spoolDirectory: scratch.path, maxBytes: 1, report: () => undefined };
  await assert.rejects(Store.open({ ...options, required: true }), (error: unknown) => {
    assert.ok(error instanceof DestinationError);
    assert.match(error.message, /^cannot use the cache \S+file\/cache: not a directory \(ENOTDIR\)$/);
    return true;
  });
});
