import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Setting } from '../faults/setting.ts';
import { dir, file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';

const layers = [{ tar: tar(dir('etc'), file('etc/motd', 'hello\n')) }, { tar: tar(file('etc/issue', 'x')) }];

const unshare = ['unshare', '--net', '--'];
const noNetworkNamespace =
  spawnSync(unshare[0]!, [...unshare.slice(1), 'true']).status === 0
    ? false
    : 'needs the right to make a network namespace (unshare --net)';

test('offline: a tag is what it was when it was asked for last, and a notice says when', async () => {
  await using setting = await Setting.open();
  await setting.pullWell();
  const whole = setting.tree();
  const [name] = readdirSync(`${setting.store}/tags`);
  const then = new Date('2026-03-04T05:06:07Z');
  utimesSync(`${setting.store}/tags/${name}`, then, then);
  setting.registry.push('lib/img', '1', { layers });
  setting.registry.requests.length = 0;
  const { stderr, stdout } = await setting.pullWell(['-d', 'again', '--offline']);
  const { digest } = setting.image;
  assert.equal(
    stderr,
    `notice: offline: ${setting.reference} is ${digest}, as it was at 2026-03-04 05:06 UTC\n`,
  );
  assert.match(stdout, /^Rootfs of .* in again$/m);
  assert.equal(setting.tree('again'), whole);
  assert.deepEqual(setting.registry.log(), []);
});

test('offline: a pull that finds the tag unchanged notes the time anew', async () => {
  await using setting = await Setting.open();
  await setting.pullWell();
  const [name] = readdirSync(`${setting.store}/tags`);
  utimesSync(`${setting.store}/tags/${name}`, 1, 1);
  await setting.pullWell(['-d', 'again']);
  assert.ok(Date.now() - statSync(`${setting.store}/tags/${name}`).mtimeMs < 60_000);
});

test('offline: a tag that came back to an earlier image is that image', async () => {
  await using setting = await Setting.open();
  await setting.pullWell();
  setting.registry.push('lib/img', '1', { layers });
  await setting.pullWell(['-d', 'second']);
  setting.registry.putManifest('lib/img', '1', setting.image);
  await setting.pullWell(['-d', 'third']);
  await setting.pullWell(['-d', 'fourth', '--offline']);
  assert.equal(setting.tree('fourth'), setting.tree('out'));
});

test('offline: without any network', { skip: noNetworkNamespace }, async () => {
  await using setting = await Setting.open();
  await setting.pullWell();
  const byDigest = setting.registry.reference('lib/img', setting.image.digest);
  const { stderr } = await setting.pullWell(
    ['-d', 'again', '--offline', '--mirror', 'mirror.example', '--progress', 'none'],
    { under: unshare },
    byDigest,
  );
  assert.equal(stderr, '');
  assert.equal(setting.tree('again'), setting.tree('out'));
  for (const place of [['-o', 'all.tar'], ['--dry-run']]) {
    await setting.pullWell([...place, '--offline'], { under: unshare });
  }
  const inspected = await runProgram(
    ['inspect', byDigest, '--offline', '--json', '--cache-dir', setting.store],
    { under: unshare },
  );
  assert.equal(inspected.exitCode, 0, inspected.stderr);
  const { layers: described } = JSON.parse(inspected.stdout) as { layers: { cached: boolean }[] };
  assert.deepEqual(
    described.map(({ cached }) => cached),
    [true, true, true],
  );
});

test(
  'without a network the hint names --offline where the cache has all of the image',
  {
    skip: noNetworkNamespace,
  },
  async () => {
    await using setting = await Setting.open();
    await setting.pullWell();
    const tried = async (...argv: readonly string[]): Promise<string | undefined> => {
      const { exitCode, stderr } = await runProgram(
        [...argv, setting.reference, '--retry', '0', '--cache-dir', setting.store],
        { under: unshare, cwd: setting.scratch.path },
      );
      assert.equal(exitCode, 5, stderr);
      return /^hint: .*$/m.exec(stderr)?.[0];
    };
    const words = /; the cache has this image: --offline uses it$/;
    for (const argv of [['-d', 'again'], ['inspect'], ['verify', '-d', 'out']])
      assert.match((await tried(...argv))!, words);
    rmSync(`${setting.store}/blobs`, { recursive: true });
    assert.doesNotMatch((await tried('-d', 'again'))!, words);
  },
);

const offlineNotice = (tag: string) =>
  new RegExp(`^notice: offline: \\S+:${tag} is sha256:\\w+, as it was at `, 'm');

test('offline: verify, diff and cat read the cache alone', { skip: noNetworkNamespace }, async () => {
  await using setting = await Setting.open();
  const { reference, registry, store, image } = setting;
  await setting.pullWell();
  registry.push('lib/img', '2', { layers });
  const other = registry.reference('lib/img', '2');
  await setting.pullWell(['-d', 'other'], {}, other);
  registry.requests.length = 0;
  const run = (under: readonly string[], ...words: readonly string[]) =>
    runProgram([...words, '--cache-dir', store, '--progress', 'none'], { cwd: setting.scratch.path, under });
  const byDigest = registry.reference('lib/img', image.digest);
  const cat = await run([], 'cat', byDigest, 'etc/motd');
  assert.deepEqual([cat.exitCode, cat.stdout, cat.stderr], [0, 'new\n', '']);
  assert.deepEqual(registry.log(), [], 'a digest needs no network');
  for (const name of [byDigest, reference]) {
    const same = await run(unshare, 'verify', name, '-d', 'out', '--contents', '--offline');
    assert.deepEqual([same.exitCode, same.stdout], [0, ''], same.stderr);
    const read = await run(unshare, 'cat', name, 'etc/motd', '--offline');
    assert.deepEqual([read.exitCode, read.stdout], [0, 'new\n'], read.stderr);
    for (const { stderr } of [same, read])
      if (name === reference) assert.match(stderr, offlineNotice('1'));
      else assert.equal(stderr, '');
  }
  const differences = await run(unshare, 'diff', reference, other, '--offline');
  assert.equal(differences.exitCode, 9, differences.stderr);
  assert.match(differences.stdout, /^changed \/etc\/motd: size 4→6$/m);
  for (const tag of ['1', '2']) assert.match(differences.stderr, offlineNotice(tag));
  rmSync(setting.blob(image.layers[1]!.digest));
  for (const words of [
    ['verify', reference, '-d', 'out'],
    ['diff', other, reference],
    ['cat', reference, 'base'],
  ]) {
    const { exitCode, stdout, stderr } = await run(unshare, ...words, '--offline');
    assert.deepEqual([exitCode, stdout], [3, ''], stderr);
    assert.match(stderr, /^error: cannot read \S+ offline: the cache does not have 1 of its 3 layers/m);
    assert.ok(stderr.endsWith(`hint: run dlrootfs cache add ${reference} --cache-dir ${store}\n`), stderr);
  }
});

test('offline: what is missing is named, with the command that fills the cache', async () => {
  await using setting = await Setting.open();
  const { reference, store, image } = setting;
  const hint = (flags: string) => `hint: run dlrootfs cache add ${flags}--cache-dir ${store}\n`;
  const never = await setting.pull(['--offline']);
  assert.deepEqual([never.exitCode, setting.names], [3, []]);
  assert.equal(
    never.stderr,
    `error: cannot read the manifest of ${reference} offline: the cache does not have it\n${hint(`${reference} `)}`,
  );
  assert.deepEqual(setting.registry.log(), []);
  await setting.pullWell();
  rmSync(setting.blob(image.layers[1]!.digest));
  for (const place of [
    ['-d', 'again'],
    ['-o', 'again.tar'],
  ]) {
    const { exitCode, stderr } = await setting.pull([...place, '--offline', '--platform', 'linux/amd64']);
    assert.equal(exitCode, 3);
    const id = image.layers[1]!.digest.slice(7, 19);
    assert.ok(
      stderr.endsWith(
        `error: cannot read ${reference} offline: the cache does not have 1 of its 3 layers (${id})\n${hint(`${reference} --platform linux/amd64 `)}`,
      ),
      stderr,
    );
    assert.deepEqual(setting.names, ['out']);
  }
  rmSync(setting.blob(image.configDigest));
  const config = await setting.pull(['-d', 'again', '--offline']);
  assert.match(config.stderr, /^error: cannot read the config of .* offline: the cache does not have it$/m);
});

test('offline: a layer that is damaged in the cache is an error, and nothing is left', async () => {
  await using setting = await Setting.open();
  await setting.pullWell();
  writeFileSync(setting.blob(setting.image.layers[2]!.digest), 'short');
  const { exitCode, stderr } = await setting.pull(['-d', 'again', '--offline']);
  assert.equal(exitCode, 3, stderr);
  assert.match(
    stderr,
    /^error: cannot read the layer sha256:\w+ of .* offline: the cache does not have it$/m,
  );
  assert.match(stderr, /^hint: run dlrootfs cache add /m);
  assert.deepEqual(setting.names, ['out']);
});

test('offline: for another platform than the one in the cache', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.pushIndex('lib/img', '1', [
    { layers, platform: { os: 'linux', architecture: 'amd64' } },
    { layers: [{ tar: tar(file('arm', '')) }], platform: { os: 'linux', architecture: 'arm64' } },
  ]);
  const reference = registry.reference('lib/img', '1');
  const run = (...words: readonly string[]) =>
    runProgram([...words, '--cache-dir', 'store'], { cwd: scratch.path });
  const added = await run('cache', 'add', reference, '--platform', 'linux/amd64');
  assert.equal(added.exitCode, 0, added.stderr);
  const here = await run(reference, '--offline', '-d', 'here', '--platform', 'linux/amd64');
  assert.equal(here.exitCode, 0, here.stderr);
  const other = await run(reference, '--offline', '-d', 'other', '--platform', 'linux/arm64');
  assert.equal(other.exitCode, 3);
  assert.match(other.stderr, /^error: cannot read the manifest \S+ offline: the cache does not have it$/m);
  assert.match(other.stderr, /^hint: run dlrootfs cache add \S+ --platform linux\/arm64 --cache-dir store$/m);
});

test('offline: flags that contradict it', async () => {
  const { exitCode, stderr } = await runProgram(['alpine', '--offline', '--no-cache']);
  assert.equal(exitCode, 2);
  assert.match(stderr, /^error: cannot use --offline with --no-cache: /);
  assert.equal((await runProgram(['tags', 'alpine', '--offline'])).exitCode, 2);
});

test('cache add: fills the cache with all that a pull needs, and makes no directory', async () => {
  await using setting = await Setting.open();
  const { reference, store } = setting;
  const add = (...flags: readonly string[]) =>
    runProgram(['cache', 'add', reference, '--cache-dir', store, ...flags], { cwd: setting.scratch.path });
  const first = await add();
  const bytes = setting.image.layers.reduce((sum, { size }) => sum + size, 0);
  assert.equal(first.exitCode, 0, first.stderr);
  assert.match(
    first.stdout,
    new RegExp(`^${store}: has ${reference}: 3 layers, .* downloaded, 0 B cached before\n$`),
  );
  assert.deepEqual(setting.names, []);
  const again = await add('--json');
  assert.deepEqual(JSON.parse(again.stdout), {
    directory: store,
    reference,
    digest: setting.image.digest,
    layers: 3,
    sizes: { cache: bytes, network: 0 },
  });
  setting.registry.requests.length = 0;
  await setting.pullWell(['--offline']);
  assert.deepEqual(setting.registry.log(), []);
});

test('cache add: what goes wrong is an error, and exits as a pull does', async () => {
  await using setting = await Setting.open();
  const { reference, store, registry } = setting;
  const run = async (...words: readonly string[]) => {
    const { exitCode, stderr } = await runProgram(['cache', ...words], {
      cwd: setting.scratch.path,
    });
    assert.match(stderr, /^error: .*\nhint: .*\n/m);
    return `${exitCode} ${/^error: (.*)$/m.exec(stderr)![1]!.replaceAll(/\d{4,} bytes|\d{4,}/g, 'N')}`;
  };
  assert.equal(await run('add'), '2 cache add needs an image');
  assert.equal(await run('size', reference), `2 unexpected word: ${reference}`.replaceAll(/\d{4,}/g, 'N'));
  assert.equal(await run('prune', '--mirror', 'x'), '2 --mirror has no effect with cache prune');
  assert.equal(await run('add', 'oci:x'), '2 cannot add oci:x to the cache: it is on this machine already');
  assert.equal(await run('add', reference), '2 no home directory for the cache is known');
  const cache = ['--cache-dir', store];
  assert.match(await run('add', registry.reference('lib/img', 'none'), ...cache), /^3 /);
  assert.match(await run('add', reference, ...cache, '--cache-size', '1M'), /^2 cannot add .* may have N$/);
  writeFileSync(setting.scratch.join('file'), '');
  registry.requests.length = 0;
  assert.match(await run('add', reference, '--cache-dir', setting.scratch.join('file')), /^7 /);
  mkdirSync(setting.scratch.join('open'));
  chmodSync(setting.scratch.join('open'), 0o777);
  assert.match(
    await run('add', reference, '--cache-dir', setting.scratch.join('open')),
    /^7 cannot use the cache .* can be written by others$/,
  );
  assert.deepEqual(registry.log(), []);
});
