import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import {
  character,
  dir,
  fifo,
  file,
  hardlink,
  sparse,
  symlink,
  tar,
  whiteout,
  type Item,
} from '../support/archive.ts';
import { sha256 } from '../support/fake-image.ts';
import { runProgram, Scratch, startProgram, type ProgramResult } from '../support/program.ts';
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

async function run(scratch: Scratch, ...argv: readonly string[]): Promise<ProgramResult> {
  return await runProgram([...argv, '--progress', 'none', '--cache-dir', scratch.join('cache')], {
    cwd: scratch.path,
  });
}

/** Runs diff and returns its lines. The exit code must show if there are any. */
async function diff(scratch: Scratch, ...argv: readonly string[]): Promise<string[]> {
  const { exitCode, stdout, stderr } = await run(scratch, 'diff', ...argv);
  assert.deepEqual([exitCode, stderr], [stdout === '' ? 0 : 9, '']);
  return stdout.split('\n').slice(0, -1);
}

const base: readonly Item[] = [
  dir('etc'),
  file('etc/same', 'same'),
  file('etc/changed', 'one'),
  file('etc/grown', 'one'),
  file('etc/gone', 'x'),
  dir('old/tree'),
  file('old/tree/x', 'x'),
  symlink('link', 'a'),
  file('a', 'linked'),
  hardlink('b', 'a'),
  file('moded', 'x', { mode: 0o755, uid: 1 }),
  file('marked', 'x', { xattrs: { 'user.a': '1' } }),
  character('device', 1, 3),
  fifo('pipe'),
  sparse('holes', 100_000, [[0, 'a'], [60_000, 'b']], '1.0'), // prettier-ignore
];

test('diff prints removed, added and changed paths, and no others', async () => {
  using scratch = new Scratch();
  const one = pushed(base);
  const other = pushed(base, [
    file('etc/changed', 'two'),
    file('etc/grown', 'three'),
    file('etc/same', 'same'),
    whiteout('etc/gone'),
    whiteout('old'),
    file('new/tree/y', 'y'),
    symlink('link', 'b'),
    file('b', 'linked'),
    file('moded', 'x', { mode: 0o4700, uid: 2 }),
    file('marked', 'x', { xattrs: { 'user.b': '1' } }),
    character('device', 1, 5),
    file('pipe', ''),
    file(
      'holes',
      Buffer.concat([Buffer.from('a'), Buffer.alloc(59_999), Buffer.from('b'), Buffer.alloc(39_999)]),
    ),
  ]);
  assert.deepEqual(await diff(scratch, one, other), [
    'changed /b: link /a→none',
    'changed /device: device 1:3→1:5',
    'changed /etc/changed: content',
    'removed /etc/gone',
    'changed /etc/grown: size 3→5',
    'changed /link: target a→b',
    'changed /marked: xattr user.a missing, xattr user.b extra',
    'changed /moded: mode 0755→4700, owner 1:0→2:0',
    'added /new/',
    'removed /old/',
    'changed /pipe: type fifo→file',
  ]);
  assert.deepEqual(await diff(scratch, one, other, '--path', 'etc', '--exclude', 'g*'), [
    'changed /etc/changed: content',
  ]);
  assert.deepEqual(await diff(scratch, one, other, '--path', 'etc/gone'), ['removed /etc/gone']);
  assert.deepEqual(await diff(scratch, one, other, '--path', 'old/tree/x', '--path', 'new/tree'), [
    'added /new/',
    'removed /old/',
  ]);
  assert.deepEqual(await diff(scratch, one, one), []);
  assert.deepEqual(await diff(scratch, other, pushed(base, []), '--path', 'etc/same'), []);
});

/** A file of 1 TiB with some data. */
const sparseImage = (...extents: readonly (readonly [number, string])[]) =>
  pushed([sparse('f', 2 ** 40, extents, '1.0')]);

test('diff finds a byte in a sparse file, and none where only the holes differ', async () => {
  using scratch = new Scratch();
  const one = sparseImage([0, 'a'], [2 ** 35, 'b']);
  assert.deepEqual(
    await diff(scratch, one, sparseImage([0, 'a\0\0'], [2 ** 35 - 3, '\0\0\0b'], [2 ** 36, '\0'])),
    [],
  );
  assert.deepEqual(await diff(scratch, one, sparseImage([0, 'a'], [2 ** 35 + 1, 'b'])), [
    'changed /f: content',
  ]);
});

test(
  'diff is empty if and only if the directories of two images are equal',
  { skip: needsRoot, timeout: 600_000 },
  async () => {
    using scratch = new Scratch();
    await fc.assert(
      fc.asyncProperty(randomLayers, randomLayers, fc.boolean(), async (layers, others, related) => {
        for (const name of ['one', 'other']) rmSync(scratch.join(name), { recursive: true, force: true });
        const one = pushed(...layers);
        const other = related ? pushed(...layers, ...others.slice(0, 1)) : pushed(...layers, [], []);
        const pulls = [
          await run(scratch, one, '-d', 'one', '--no-json'),
          await run(scratch, other, '-d', 'other', '--no-json'),
        ];
        fc.pre(pulls.every(({ exitCode }) => exitCode === 0));
        const lines = await diff(scratch, one, other);
        const [first, second] = ['one', 'other'].map((name) => printTree(scratch.join(name)));
        assert.equal(
          lines.filter((line) => !line.startsWith('changed /:')).length === 0,
          first === second,
          lines.join('\n'),
        );
      }),
      { numRuns: runs(3, 30) },
    );
  },
);

test('diff of two digests needs no network once the images are cached', async () => {
  using scratch = new Scratch();
  await using own = await FakeRegistry.start();
  const digests = ['1', '2'].map(
    (tag) => own.push('lib/img', tag, { layers: [{ tar: tar(file('a', tag)) }] }).digest,
  );
  const [one, other] = digests.map((digest) => own.reference('lib/img', digest));
  assert.deepEqual(await diff(scratch, one!, other!), ['changed /a: content']);
  const asked = own.requests.length;
  assert.deepEqual(await diff(scratch, one!, other!), ['changed /a: content']);
  assert.equal(own.requests.length, asked);
});

test('diff sends credentials to no second registry', async () => {
  using scratch = new Scratch();
  await using other = await FakeRegistry.start();
  const one = pushed([file('a', 'x')]);
  other.push('lib/img', '1', { layers: [{ tar: tar(file('a', 'x')) }] });
  const argv = ['diff', one, other.reference('lib/img', '1'), '--cache-dir', scratch.join('cache')];
  const { exitCode, stderr } = await runProgram([...argv, '-u', 'me:secret'], { cwd: scratch.path });
  assert.equal(exitCode, 2);
  assert.match(
    stderr,
    /^error: cannot send the credentials to two registries: \S+ and \S+\nhint: log in to both /,
  );
  assert.equal(other.requests.length, 0);
  assert.deepEqual(await diff(scratch, one, other.reference('lib/img', '1')), []);
});

test('diff says which image is missing, and ends at a signal with nothing left', async () => {
  using scratch = new Scratch();
  mkdirSync(scratch.join('work'));
  const one = pushed([file('a', 'x')]);
  const absent = await run(scratch, 'diff', one, images.registry.reference('lib/img', 'nowhere'));
  assert.deepEqual([absent.exitCode, absent.stdout], [3, '']);
  assert.match(absent.stderr, /no tag nowhere/);
  const path = await run(scratch, 'diff', one, one, '--path', 'b');
  assert.equal(path.exitCode, 3, path.stderr);
  await using slow = await FakeRegistry.start({
    faults: [{ path: /\/blobs\//, skip: 1, times: 9, rate: 1000 }],
  });
  slow.push('lib/img', '1', { layers: [{ tar: tar(file('a', 'x'.repeat(100_000))), compression: 'none' }] });
  const running = startProgram(['diff', one, slow.reference('lib/img', '1'), '--no-cache'], {
    cwd: scratch.join('work'),
  });
  await until('the blob to be asked for', () =>
    slow.requests.some((request) => request.path.includes('/blobs/')),
  );
  running.kill('SIGHUP');
  assert.equal((await running.result).exitCode, 129);
});

/** Returns an image of one file as `docker save` writes it. */
function saved(text: string): Buffer {
  const layer = tar(file('a', text));
  const config = { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [sha256(layer)] } };
  return tar(
    file('manifest.json', JSON.stringify([{ Config: 'config.json', Layers: ['layer.tar'] }])),
    file('config.json', JSON.stringify(config)),
    file('layer.tar', layer),
  );
}

test('diff of archives: one from standard input, not two', async () => {
  using scratch = new Scratch();
  writeFileSync(scratch.join('one.tar'), saved('one'));
  const compare = (...words: readonly string[]) =>
    runProgram(['diff', ...words, '--progress', 'none', '--no-cache', '--platform', 'linux/amd64'], {
      cwd: scratch.path,
      stdin: saved('two'),
    });
  for (const words of [
    ['docker-archive:one.tar', '-'],
    ['-', 'docker-archive:one.tar'],
  ]) {
    const { exitCode, stdout, stderr } = await compare(...words);
    assert.deepEqual([exitCode, stdout], [9, 'changed /a: content\n'], stderr);
  }
  const twice = await compare('-', '-');
  assert.equal(twice.exitCode, 2);
  assert.match(twice.stderr, /^error: cannot read two images from standard input\nhint: /);
});
