// What comes out of a registry of version 1, from outside.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { shellImage } from '../../scripts/demo/shell-image.ts';
import { endMark } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runProgram, type ProgramResult } from '../support/program.ts';
import { printTree, treeDiff } from '../support/tree.ts';
import { hubIs, image, withV1 } from '../support/v1-setting.ts';

const git = (directory: string, ...argv: readonly string[]): string =>
  execFileSync('git', ['-C', directory, ...argv], { encoding: 'utf8' });

const tree = (directory: string): string => printTree(directory, { without: ['json'] });

/** The original's lines (protocols.md, 3.4); those of layers that are fetched at the same time are sorted. */
function originalLines(name: string, ids: readonly string[], destination: string): string {
  const short = ids.map((id) => id.slice(0, 12));
  const pulling = [
    ...short.map((id) => `\tPulling fs layer ${id}`),
    ...short.map((id) => `\tDone ${id}`),
  ].toSorted();
  return [
    `Opening a session for ${name} ...`,
    `Image ID: ${ids.at(-1)}`,
    `Pulling ${ids.length} layers:`,
    ...pulling,
    'Downloading layers:',
    ...short.map((id) => `\t${id} ... done`),
    '',
    `Rootfs of ${name}:latest in ${destination}`,
    '',
  ].join('\n');
}

function linesOf({ stdout }: ProgramResult): string {
  const lines = stdout.split('\n');
  const end = lines.indexOf('Downloading layers:');
  return [...lines.slice(0, 3), ...lines.slice(3, end).toSorted(), ...lines.slice(end)].join('\n');
}

for (const mode of ['standalone', 'split'] as const) {
  test(`v1: the demo's image comes out as out of version 2, byte for byte (${mode})`, async () => {
    await using modern = await FakeRegistry.start();
    modern.push('demo/shell', 'latest', shellImage());
    await withV1({ mode }, async ({ registry, scratch }) => {
      const ids = registry.push('demo/shell', 'latest', shellImage()).map(({ id }) => id);
      const cwd = scratch.path;
      const old = await runProgram([registry.reference('demo/shell'), '-d', './old'], { cwd });
      assert.deepEqual([old.exitCode, old.stderr], [0, '']);
      assert.equal(linesOf(old), originalLines(`${registry.host}/demo/shell`, ids, './old'));
      assert.equal((await runProgram([modern.reference('demo/shell'), '-d', './new'], { cwd })).exitCode, 0);
      assert.equal(treeDiff(tree(scratch.join('new')), tree(scratch.join('old'))), '');
      assert.match(tree(scratch.join('old')), /etc\/motd/);
    });
  });
}

test('v1: -g makes the branches of the original, each with the files that version 2 has', async () => {
  await using modern = await FakeRegistry.start();
  modern.push('demo/shell', 'latest', shellImage());
  await withV1({ mode: 'split' }, async ({ registry, scratch, run, pull }) => {
    const stored = registry.push('demo/shell', 'latest', shellImage());
    const old = await pull('demo/shell', '-g');
    assert.equal(old.exitCode, 0, old.stderr);
    const ids = stored.map(({ id }) => id);
    assert.equal(linesOf(old), originalLines(`${registry.host}/demo/shell`, ids, scratch.join('out')));
    assert.equal((await run([modern.reference('demo/shell'), '-d', scratch.join('new'), '-g'])).exitCode, 0);
    const branches = (name: string) =>
      git(scratch.join(name), 'branch', '--format=%(refname:short)').trim().split('\n');
    assert.deepEqual(
      branches('out'),
      ids.map((id, n) => `layer${n}_${id}`),
    );
    assert.equal(git(scratch.join('out'), 'symbolic-ref', '--short', 'HEAD').trim(), branches('out').at(-1));
    const files = (name: string, branch: string) =>
      git(scratch.join(name), 'ls-tree', '-r', branch)
        .split('\n')
        .filter((line) => !/\t(?:json|layersize)$/.test(line));
    for (const [n, branch] of branches('out').entries()) {
      assert.deepEqual(files('out', branch), files('new', branches('new')[n]!));
      const show = (name: string) => git(scratch.join('out'), 'show', `${branch}:${name}`);
      assert.equal(show('layersize'), String(stored[n]!.blob.length));
      assert.equal((JSON.parse(show('json')) as { readonly id: string }).id, ids[n]);
      assert.match(
        git(scratch.join('out'), 'log', '-1', '--format=%s', branch),
        new RegExp(`adding layer ${n}`),
      );
    }
  });
});

test('v1: json as the original wrote it', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    const json = {
      container: undefined,
      container_config: { Cmd: ['/bin/sh', '-c', '#(nop) layer'], Volumes: {}, Env: [] },
      Size: 188_100_000,
      tiny: 0.000_01,
      small: 999_999,
      author: '<a@b.c> & Ünï\u2028',
      comment: 'a\tb\nc',
      config: null,
    };
    registry.push('team/app', 'latest', {
      layers: [image.layers[0]!],
      ids: ['27cf784147099545'],
      json: [json],
    });
    assert.equal((await pull('team/app')).exitCode, 0);
    const expected = String.raw`{
  "Size": 1.881e+08,
  "architecture": "amd64",
  "author": "\u003ca@b.c\u003e \u0026 Ünï\u2028",
  "comment": "a\u0009b\nc",
  "config": null,
  "container_config": {
    "Cmd": [
      "/bin/sh",
      "-c",
      "#(nop) layer"
    ],
    "Env": [],
    "Volumes": {}
  },
  "created": "2015-01-17T10:00:00.123456789Z",
  "docker_version": "1.4.1",
  "id": "27cf784147099545",
  "os": "linux",
  "small": 999999,
  "tiny": 1e-05
}`;
    assert.equal(readFileSync(scratch.join('out/json'), 'utf8'), expected);
  });
});

test('v1: a name at Docker Hub is written as the original wrote it, and a password is warned of', async () => {
  await withV1({ users: { bob: 'hunter2' } }, async ({ registry, scratch }) => {
    const ids = registry.push('library/ubuntu', 'latest', image).map(({ id }) => id);
    const environment = hubIs(registry.host, scratch);
    const result = await runProgram(['ubuntu', '-u', 'bob:hunter2'], { environment, cwd: scratch.path });
    assert.equal(result.exitCode, 0, result.stderr);
    const warning = "WARNING: don't forget to remove your docker hub credentials from your history !!\n";
    assert.equal(linesOf(result), originalLines('library/ubuntu', ids, './rootfs') + warning);
    assert.doesNotMatch(result.stdout + result.stderr, /hunter2/);
    assert.ok(registry.requests.some(({ headers }) => headers.authorization?.startsWith('Basic ')));
  });
});

for (const program of ['bzip2', 'xz', undefined] as const) {
  test(`v1: layers ${program ? `packed by ${program}` : 'that are not packed'}`, async (t) => {
    const packed: Uint8Array[] = [];
    for (const layer of image.layers) {
      const { stdout, error } = program
        ? spawnSync(program, ['-c'], { input: layer.tar })
        : { stdout: layer.tar, error: undefined };
      if (error) return t.skip(`needs ${program}`);
      packed.push(stdout);
    }
    return withV1({}, async ({ registry, scratch, run, pull }) => {
      registry.push('team/app', 'latest', { layers: packed });
      registry.push('team/gzip', 'latest', image);
      const result = await pull('team/app');
      assert.deepEqual([result.exitCode, result.stderr], [0, '']);
      assert.equal((await run([registry.reference('team/gzip'), '-d', scratch.join('gzip')])).exitCode, 0);
      assert.equal(treeDiff(tree(scratch.join('gzip')), tree(scratch.join('out'))), '');
      assert.match(tree(scratch.join('out')), /usr\/bin\/tool/);
    });
  });
}

for (const [what, bytes] of [
  ['two blocks of zeros', endMark],
  ['no bytes at all', Buffer.alloc(0)],
] as const) {
  test(`v1: a layer of ${what} is empty`, async () => {
    await withV1({}, async ({ registry, scratch, pull }) => {
      registry.push('team/app', 'latest', { layers: [image.layers[0]!.tar, bytes] });
      const result = await pull('team/app', '-g');
      assert.deepEqual([result.exitCode, result.stderr], [0, '']);
      assert.deepEqual(readdirSync(scratch.join('out')).toSorted(), ['.git', 'etc', 'json', 'layersize']);
      assert.equal(readFileSync(scratch.join('out/layersize'), 'utf8'), String(bytes.length));
    });
  });
}

test('v1: layers without a checksum are said to be unverified, once', async () => {
  await withV1({ checksums: 'none' }, async ({ registry, pull }) => {
    registry.push('team/app', 'latest', image);
    const { exitCode, stderr } = await pull('team/app');
    assert.equal(exitCode, 0);
    assert.equal(stderr, 'notice: 2 of 2 layers cannot be verified: the registry has no checksum of them\n');
  });
});

test('v1: layers are not kept for another run, which has no digest to find them by', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', image);
    const cache = scratch.join('cache');
    assert.equal((await pull('team/app', '--cache-dir', cache)).exitCode, 0);
    const kept = existsSync(cache) ? readdirSync(cache, { recursive: true, encoding: 'utf8' }) : [];
    assert.deepEqual(
      kept.filter((name) => /[0-9a-f]{64}/.test(name)),
      [],
    );
  });
});

test('v1: a tar, tags, inspect, and --registry-version', async () => {
  await withV1({}, async ({ registry, scratch, run, pull }) => {
    registry.push('team/app', '1.0', image);
    registry.push('team/app', 'latest', image);
    const reference = registry.reference('team/app');
    const file = scratch.join('out.tar');
    const packed = await run([reference, '-o', file]);
    assert.equal(packed.exitCode, 0, packed.stderr);
    assert.match(execFileSync('tar', ['-tf', file], { encoding: 'utf8' }), /usr\/bin\/tool/);
    assert.equal((await run(['tags', `${registry.host}/team/app`])).stdout, '1.0\nlatest\n');
    const inspected = await run(['inspect', reference]);
    assert.equal(inspected.exitCode, 0, inspected.stderr);
    const forced = await pull('team/app', '--registry-version', '2');
    assert.equal(forced.exitCode, 5);
    assert.match(forced.stderr, /does not speak version 2 of the registry protocol/);
    assert.equal((await pull('team/app', '--registry-version', '1')).exitCode, 0);
  });
});
