import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { diff, pull } from '../../src/index.ts';
import { firstLayers } from '../../src/oci/first-layers.ts';
import type { Image, Layer } from '../../src/oci/image.ts';
import type { PullSummary } from '../../src/commands/summary.ts';
import { character, dir, file, hardlink, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch, runProgram } from '../support/program.ts';
import { printTree } from '../support/tree.ts';

const layers = [
  { tar: tar(dir('etc', { mtime: 1 }), file('etc/motd', 'hello\n'), dir('empty', { mode: 0o700, uid: 5 })) },
  {
    tar: tar(
      whiteout('etc/motd'),
      file('tool', '#!/bin/sh\n', { mode: 0o4755, gid: 7 }),
      hardlink('tool2', 'tool'),
      character('null', 1, 3),
    ),
  },
  { tar: tar(file('etc/issue', 'one\n'), whiteout('empty')) },
];

/** An image of three layers, and for each number of its first layers an image of only these. */
class Setting implements AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly scratch = new Scratch();
  readonly ids: readonly string[];

  private constructor(registry: FakeRegistry) {
    this.registry = registry;
    for (const count of [1, 2]) registry.push('lib/img', `only${count}`, { layers: layers.slice(0, count) });
    this.ids = registry.push('lib/img', '1', { layers }).layers.map(({ digest }) => digest.slice(7));
  }

  static async open(): Promise<Setting> {
    return new Setting(await FakeRegistry.start());
  }

  reference(tag = '1'): string {
    return this.registry.reference('lib/img', tag);
  }

  run(...words: string[]) {
    const argv = [...words, '--cache-dir', this.scratch.join('cache')];
    return runProgram(argv, { cwd: this.scratch.path });
  }

  async runWell(...words: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(...words);
    assert.deepEqual([exitCode, stderr], [0, '']);
    return stdout;
  }

  /** The tree in a directory; `json` and the root's time are those of each pull. */
  tree(name: string): string {
    return printTree(this.scratch.join(name), { without: ['json'] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.scratch[Symbol.dispose]();
    await this.registry[Symbol.asyncDispose]();
  }
}

test('--layers: exactly the image that has no other layers, from the cache without a download', async () => {
  await using setting = await Setting.open();
  await setting.runWell(setting.reference(), '-d', 'out', '-q');
  for (const count of [1, 2])
    await setting.runWell(setting.reference(`only${count}`), '-d', `only${count}`, '-q');
  setting.registry.requests.length = 0;
  const [first, second] = setting.ids as [string, string];
  for (const [wanted, count] of [
    ['1', 1],
    ['2', 2],
    [first.slice(0, 12), 1],
    [second, 2],
    [`sha256:${second.toUpperCase()}`, 2],
  ] as const) {
    await setting.runWell(setting.reference(), '-d', 'out', '--layers', wanted, '--replace=always', '-q');
    assert.equal(setting.tree('out'), setting.tree(`only${count}`), wanted);
    const { id } = JSON.parse(readFileSync(setting.scratch.join('out/json'), 'utf8')) as { id: string };
    assert.equal(id, setting.ids[count - 1]);
    await setting.runWell('verify', setting.reference(), '-d', 'out', '--layers', wanted, '--contents');
  }
  await setting.runWell(setting.reference(), '-d', 'out', '--layers', '0', '--replace', '-q');
  assert.deepEqual(readdirSync(setting.scratch.join('out')), []);
  const argv = [setting.reference(), '-d', 'out', '--layers', '2', '--replace', '--offline', '-q'];
  const offline = await setting.run(...argv);
  assert.equal(offline.exitCode, 0, offline.stderr);
  assert.equal(setting.tree('out'), setting.tree('only2'));
  assert.deepEqual(
    setting.registry.log(/./).filter((line) => setting.ids.some((id) => line.includes(id))),
    [],
  );
});

test('--layers with --replace: nothing is done if DIR has these layers, it is rebuilt if not', async () => {
  await using setting = await Setting.open();
  const refresh = async (...flags: string[]) => {
    const { exitCode, stderr } = await setting.run(
      setting.reference(),
      '-d',
      'out',
      '--replace',
      '-q',
      ...flags,
    );
    assert.equal(exitCode, 0, stderr);
    return stderr;
  };
  const nothing = 'notice: out is this image already: nothing was done\n';
  assert.equal(await refresh('--layers', '2'), '');
  assert.equal(await refresh('--layers', '2'), nothing);
  assert.equal(await refresh('--layers', setting.ids[1]!), nothing);
  assert.equal(await refresh('--layers', '1'), '');
  assert.equal(await refresh(), '');
  assert.equal(await refresh('--layers', '3'), nothing);
});

test('--layers with -o, cat, --path and diff', async () => {
  await using setting = await Setting.open();
  await setting.runWell(setting.reference(), '-o', 'x.tar', '--layers', '1');
  await setting.runWell(setting.reference('only1'), '-o', 'only1.tar');
  assert.ok(
    readFileSync(setting.scratch.join('x.tar')).equals(readFileSync(setting.scratch.join('only1.tar'))),
  );
  assert.equal(await setting.runWell('cat', setting.reference(), 'etc/motd', '--layers', '1'), 'hello\n');
  assert.equal((await setting.run('cat', setting.reference(), 'etc/motd')).exitCode, 3);
  await setting.runWell(setting.reference(), '-d', 'part', '--path', 'etc', '--layers', '1');
  assert.deepEqual(readdirSync(setting.scratch.join('part/etc')), ['motd']);

  const compare = (...flags: string[]) =>
    setting.run('diff', setting.reference(), setting.reference(), ...flags);
  assert.deepEqual((await compare('--layers', '1')).stdout, '');
  const second = await compare('--layers', '1', '--layers', '2');
  assert.deepEqual(
    [second.exitCode, second.stdout],
    [9, 'removed /etc/motd\nadded /null\nadded /tool\nadded /tool2\n'],
  );
  const all = await compare('--layers', '2', '--layers', '3');
  assert.equal(all.stdout, 'removed /empty/\nadded /etc/issue\n');
  const { exitCode, stderr } = await compare('--layers', '1', '--layers', '1', '--layers', '1');
  assert.equal(exitCode, 2);
  assert.match(stderr, /^error: diff takes --layers twice at most.*\nhint: /);
});

test('--layers with -g: the branches of these layers', { skip: missing('git') }, async () => {
  await using setting = await Setting.open();
  await setting.runWell(setting.reference(), '-d', 'out', '-g', '--layers', '2', '-q');
  const git = (...words: string[]) =>
    execFileSync('git', ['-C', setting.scratch.join('out'), ...words], { encoding: 'utf8' });
  assert.equal(
    git('branch', '--format=%(refname:short)'),
    `layer0_${setting.ids[0]}\nlayer1_${setting.ids[1]}\n`,
  );
  assert.equal(git('status', '--porcelain'), '');
  await setting.runWell(setting.reference(), '-d', 'none', '-g', '--layers', '0', '-q');
  assert.ok(existsSync(setting.scratch.join('none/.git/HEAD')));
});

test('--layers: what --json and the original lines say', async () => {
  await using setting = await Setting.open();
  const summary = JSON.parse(
    await setting.runWell(setting.reference(), '-d', 'out', '--layers', '2', '--json'),
  ) as PullSummary;
  assert.deepEqual(
    summary.layers.map(({ id }) => id),
    setting.ids.slice(0, 2),
  );
  assert.equal(summary.imageLayers, 3);
  const lines = await setting.runWell(setting.reference(), '-d', 'two', '--layers', '2');
  assert.match(lines, /^Pulling 2 layers:$/m);
  const whole = JSON.parse(await setting.runWell(setting.reference(), '-d', 'all', '--json')) as PullSummary;
  assert.deepEqual([whole.layers.length, whole.imageLayers], [3, 3]);
  assert.equal(whole.id, summary.id);
});

test('--layers: wrong values and combinations are refused', async () => {
  await using setting = await Setting.open();
  const rows: [wanted: string, exitCode: number, says: RegExp][] = [
    ['4', 3, /^error: .*lib\/img:1 has 3 layers, not 4\nhint: write --layers with a number from 0 to 3; /m],
    ['fedcba98', 3, /^error: no layer of .*lib\/img:1 has an id that begins with fedcba98\nhint: /m],
    [
      'abc',
      2,
      /^error: --layers takes a number of layers or the beginning of a layer's id, not "abc"\nhint: /m,
    ],
    ['-1', 2, /not "-1"/],
    ['1.5', 2, /not "1\.5"/],
    ['sha512:abcd', 2, /not "sha512:abcd"/],
  ];
  for (const [wanted, expected, says] of rows) {
    const { exitCode, stderr } = await setting.run(setting.reference(), '-d', 'out', '--layers', wanted);
    assert.equal(exitCode, expected, stderr);
    assert.match(stderr, says);
    assert.ok(!existsSync(setting.scratch.join('out')));
  }
});

test('the library takes a number or an id, for diff two; it refuses others', async () => {
  await using setting = await Setting.open();
  const destination = setting.scratch.join('out');
  const image = setting.reference();
  const { layers: found } = await pull(image, { destination, layers: setting.ids[1]!, cache: false });
  assert.equal(found.length, 2);
  const { differences } = await diff(image, image, { layers: [1, 2], cache: false });
  assert.equal(differences.length, 4);
  assert.deepEqual((await diff(image, image, { layers: 1, cache: false })).differences, []);
  for (const wrong of [-1, 0.5, Number.NaN, 'x', 'ABCD'])
    await assert.rejects(pull(image, { destination, layers: wrong }), { exitCode: 2 });
});

/** Returns the number of layers that `wanted` takes from an image whose layers have these ids. */
function taken(wanted: string, ...ids: string[]): number {
  const image = { layers: ids.map((id) => ({ id }) as unknown as Layer) } as unknown as Image;
  return firstLayers(image, wanted, 'x').layers.length;
}

test('the beginning of an id must be that of one layer', () => {
  assert.equal(taken('ab', 'aa0', 'ab0', 'b00'), 2);
  assert.equal(taken('b00', 'aa0', 'ab0', 'b00'), 3);
  for (const ids of [
    ['ab1', 'ab2', 'c'],
    ['abc', 'x', 'abc'],
  ])
    assert.throws(() => taken('ab', ...ids), {
      exitCode: 3,
      code: 'NO_SUCH_LAYER',
      hint: /--layers 1, --layers [23],/,
    });
  assert.throws(() => taken('', 'ab', 'cd'), { code: 'NO_SUCH_LAYER' });
});
