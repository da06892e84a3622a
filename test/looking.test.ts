import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { character, dir, file, hardlink, opaque, symlink, tar, whiteout } from './support/archive.ts';
import { FakeRegistry } from './support/fake-registry.ts';
import { runProgram, Scratch } from './support/program.ts';

const layers = [
  {
    tar: tar(
      dir('etc'),
      file('etc/motd', 'old\n', { mtime: 86_400 }),
      file('etc/gone', 'x'),
      dir('old'),
      file('old/x', ''),
    ),
  },
  {
    tar: tar(
      whiteout('etc/gone'),
      opaque('old'),
      file('etc/motd', 'new\n', { uid: 7, gid: 42, mode: 0o4755, mtime: 1_700_000_000 }),
      hardlink('etc/same', 'etc/motd'),
      dir('etc/deep', { mode: 0o1777 }),
      file('etc/deep/x', ''),
      file('etc.d', ''),
      symlink('link', 'etc', { mtime: 0 }),
      character('null', 1, 3, { mtime: 0 }),
    ),
  },
];

interface Looking extends Disposable {
  readonly image: string;
  readonly registry: FakeRegistry;
  readonly run: (...argv: readonly string[]) => ReturnType<typeof runProgram>;
}

async function open(registry: FakeRegistry): Promise<Looking> {
  const scratch = new Scratch();
  registry.push('team/app', '1', { layers });
  return {
    registry,
    image: registry.reference('team/app', '1'),
    run: (...argv) => runProgram([...argv, '--cache-dir', scratch.join('cache')], { cwd: scratch.path }),
    [Symbol.dispose]: () => {
      assert.ok(!existsSync(scratch.join('rootfs')));
      scratch[Symbol.dispose]();
    },
  };
}

test('ls: a directory of the image as all layers make it', async () => {
  await using registry = await FakeRegistry.start();
  using looking = await open(registry);
  const { run, image } = looking;
  const names = async (...argv: readonly string[]) => {
    const { exitCode, stdout, stderr } = await run('ls', image, ...argv);
    assert.equal(exitCode, 0, stderr);
    return stdout.split('\n').slice(0, -1);
  };
  const root = ['etc', 'etc.d', 'link', 'null', 'old'];
  assert.deepEqual((await names()).toSorted(), root);
  assert.deepEqual((await names('/')).toSorted(), root);
  const etc = ['deep', 'motd', 'same'];
  for (const path of ['etc', '/etc/', 'link', 'link/deep/..'])
    assert.deepEqual((await names(path)).toSorted(), etc, path);
  assert.deepEqual(await names('old'), []);
  assert.deepEqual(await names('etc/motd'), ['motd']);
  const long = await names('-l');
  for (const line of [
    'crw------- 0:0 1, 3 1970-01-01 00:00 null',
    'lrwxrwxrwx 0:0    0 1970-01-01 00:00 link -> etc',
  ])
    assert.ok(long.includes(line), long.join('\n'));
  const inEtc = await names('/etc', '--long');
  assert.ok(inEtc.includes('-rwsr-xr-x 7:42 4 2023-11-14 22:13 motd'), inEtc.join('\n'));
  assert.ok(inEtc.some((line) => /^drwxrwxrwt 0:0 +0 .* deep$/.test(line)));
  const absent = await run('ls', image, '/none');
  assert.equal(absent.exitCode, 3);
  assert.match(absent.stderr, /^error: .*none.*\nhint: list what it has: dlrootfs ls \S+\n/m);
  for (const path of ['link/deep/none', 'link/deep/none/x', '/link/deep/x/y']) {
    const { stderr } = await run('cat', image, path);
    assert.match(stderr, /^hint: list what it has: dlrootfs ls \S+ \/link\/deep\n/m, path);
  }
});

test('inspect --index prints what pins all platforms, -q what pins this one', async () => {
  await using registry = await FakeRegistry.start();
  using looking = await open(registry);
  const { run } = looking;
  const index = registry.pushIndex('team/many', '1', [
    { layers },
    { layers, platform: { os: 'linux', architecture: 's390x' } },
  ]);
  const image = registry.reference('team/many', '1');
  const print = async (...argv: readonly string[]) => {
    const { exitCode, stdout, stderr } = await run('inspect', ...argv, '--platform', 'linux/amd64');
    assert.equal(exitCode, 0, stderr);
    return stdout;
  };
  assert.equal(await print('--index', image), `${index.digest}\n`);
  assert.equal(await print('-q', '--index', image), `${index.digest}\n`);
  const own = await print('-q', image);
  assert.match(own, /^sha256:[0-9a-f]{64}\n$/);
  assert.notEqual(own, `${index.digest}\n`);
  assert.match(await print(image), new RegExp(`^Index: +${index.digest}$`, 'm'));
  // A reference of one image.
  assert.equal(await print('--index', looking.image), await print('-q', looking.image));
});

test('cache list and rm: what the cache has by tag, and what only one tag needs', async () => {
  await using registry = await FakeRegistry.start();
  using looking = await open(registry);
  const { run, image } = looking;
  const shared = [...layers, { tar: tar(file('more', 'x'.repeat(10_000))) }];
  registry.push('team/app', '2', { layers: shared });
  const other = registry.reference('team/app', '2');
  assert.deepEqual(await run('cache', 'list'), { exitCode: 0, stdout: '', stderr: '' });
  const added = await run('cache', 'add', image, other, '--progress', 'none');
  assert.equal(added.exitCode, 0, added.stderr);
  assert.equal(added.stdout.split('\n').length, 3);
  const list = async () =>
    JSON.parse((await run('cache', 'list', '--json')).stdout) as {
      reference: string;
      digest: string;
      bytes: number;
    }[];
  const found = await list();
  assert.deepEqual(
    found.map(({ reference }) => reference),
    [other, image],
  );
  assert.ok(found[0]!.bytes > found[1]!.bytes);
  const { stdout } = await run('cache', 'list');
  assert.match(
    stdout,
    /^\S+\/team\/app:2 {2}sha256:[0-9a-f]{64} +\S+ (?:B|KiB) {2}\d{4}-\d\d-\d\d \d\d:\d\d UTC\n/,
  );
  const removed = await run('cache', 'rm', other, '--json');
  const { blobs } = JSON.parse(removed.stdout) as { blobs: number };
  // The requests: the manifest, the config, and the layer that the other image does not have.
  assert.equal(blobs, 3);
  assert.deepEqual(
    (await list()).map(({ reference }) => reference),
    [image],
  );
  const offline = await run(image, '--offline', '-d', 'out', '-q');
  assert.equal(offline.exitCode, 0, offline.stderr);
  const again = await run('cache', 'rm', other);
  assert.equal(again.exitCode, 3);
  assert.match(again.stderr, /^error: the cache does not have \S+\/team\/app:2\nhint: dlrootfs cache list /);
  await run('cache', 'rm', `docker://${image}`);
  assert.match((await run('cache')).stdout, /: 0 blobs, 0 partial, 0 B\n$/);
});

test('cache list leaves out notes of trees', async () => {
  await using registry = await FakeRegistry.start();
  using looking = await open(registry);
  using scratch = new Scratch();
  const { run, image } = looking;
  await run(image, '-d', scratch.join('out'), '--replace', '-q');
  const { stdout } = await run('cache', 'list');
  assert.equal(stdout.split('\n').length, 2);
  assert.ok(readdirSync(scratch.join('out')).includes('etc'));
});
