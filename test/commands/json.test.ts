import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { dir, file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch, runProgram } from '../support/program.ts';

const schemas = new Ajv2020({ strict: false });
const schema = (name: string) =>
  JSON.parse(
    readFileSync(new URL(`../../docs/schema/${name}.schema.json`, import.meta.url), 'utf8'),
  ) as object;
schemas.addSchema(schema('summary'), 'summary.schema.json');
schemas.addSchema(schema('inspection'), 'inspection.schema.json');
schemas.addSchema(schema('progress'), 'progress.schema.json');
schemas.addSchema(schema('cache'), 'cache.schema.json');
schemas.addSchema(schema('tags'), 'tags.schema.json');
schemas.addSchema(schema('verification'), 'verification.schema.json');
schemas.addSchema(schema('differences'), 'differences.schema.json');

/** Parses a text that must be one JSON object valid by the schema. */
function checked(name: string, text: string): Record<string, unknown> {
  const value = JSON.parse(text) as Record<string, unknown>;
  const valid = schemas.validate(`${name}.schema.json`, value);
  assert.ok(valid, `${schemas.errorsText(schemas.errors)} in ${text}`);
  return value;
}

const layers = [
  { tar: tar(dir('etc'), file('etc/motd', 'hello\n', { uid: 7 })) },
  { tar: tar(file('etc/issue', 'x'.repeat(1000))) },
];

test('json: --json prints one object on one line, and stderr stays silent', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const { digest } = registry.push('lib/img', '1', { layers });
  const reference = registry.reference('lib/img', '1');
  const run = () =>
    runProgram([reference, '-d', 'out', '--json', '--cache-dir', scratch.join('cache')], {
      cwd: scratch.path,
    });
  const result = await run();
  assert.deepEqual([result.exitCode, result.stdout.split('\n').length], [0, 2], result.stderr);
  const summary = checked('summary', result.stdout);
  assert.deepEqual(
    [summary['reference'], summary['digest'], summary['destination']],
    [reference, digest, 'out'],
  );
  const [first] = summary['layers'] as { entries: number; size: number }[];
  assert.equal(first!.entries, 2);
  const { cache, network } = summary['bytes'] as { cache: number; network: number };
  assert.deepEqual([cache, network > 0], [0, true]);
  const again = checked(
    'summary',
    (
      await runProgram([reference, '-d', 'again', '--json', '--cache-dir', scratch.join('cache')], {
        cwd: scratch.path,
      })
    ).stdout,
  );
  assert.deepEqual(again['bytes'], { cache: network, network: 0 });
});

test('json: --json with -o prints the summary of the archive', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const { digest } = registry.push('lib/img', '1', { layers });
  const argv = [registry.reference('lib/img', '1'), '--no-cache', '--json', '-o'];
  const { exitCode, stdout, stderr } = await runProgram([...argv, 'x.tar'], { cwd: scratch.path });
  assert.deepEqual([exitCode, stdout.split('\n').length], [0, 2], stderr);
  const summary = checked('summary', stdout);
  assert.deepEqual([summary['digest'], summary['destination']], [digest, 'x.tar']);
  assert.deepEqual(
    (summary['layers'] as { entries: number }[]).map(({ entries }) => entries),
    [2, 1],
  );
  assert.ok((summary['bytes'] as { network: number }).network > 0);
  assert.ok(existsSync(scratch.join('x.tar')));
  const both = await runProgram([...argv, '-'], { cwd: scratch.path });
  assert.match(both.stderr, /^error: cannot use --json with -o -: the archive is on standard output\nhint: /);
  assert.equal(both.exitCode, 2);
});

test('json: inspect and --dry-run print what a pull would fetch, and write nothing', async () => {
  await using registry = await FakeRegistry.start({
    manifestHeaders: { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '20;w=21600' },
  });
  using scratch = new Scratch();
  registry.pushIndex('lib/img', '1', [
    { layers },
    { layers, platform: { os: 'linux', architecture: 's390x' } },
  ]);
  const reference = registry.reference('lib/img', '1');
  const common = ['--json', '--platform', 'linux/amd64', '--cache-dir', scratch.join('cache')];
  for (const argv of [
    ['inspect', reference],
    [reference, '-d', 'out', '--dry-run'],
  ]) {
    const { stdout, stderr, exitCode } = await runProgram([...argv, ...common], { cwd: scratch.path });
    assert.equal(exitCode, 0, stderr);
    const found = checked('inspection', stdout);
    assert.equal((found['layers'] as unknown[]).length, 2);
    assert.deepEqual(
      (found['platforms'] as { architecture: string }[]).map((each) => each.architecture),
      ['amd64', 's390x'],
    );
  }
  const preview = [reference, '-d', 'out', '--dry-run', '--replace', ...common];
  const previewed = await runProgram(preview, { cwd: scratch.path });
  assert.equal(previewed.exitCode, 9, previewed.stderr);
  const { changed, reason } = checked('inspection', previewed.stdout);
  assert.deepEqual([changed, reason], [true, 'missing']);
  const text = await runProgram(['inspect', reference, '--no-cache', '--platform', 'linux/amd64'], {
    cwd: scratch.path,
  });
  assert.match(text.stdout, /^Rate limit: {2}20 of 100 requests left in 6 hours$/m);
  assert.match(text.stdout, /^Platforms: {3}linux\/amd64, linux\/s390x$/m);
  assert.equal(
    registry.log(/\/blobs\//).filter((line) => line.startsWith('GET')).length,
    2,
    'the config, twice, and no layer',
  );
});

test('json: with --progress json every line on stderr is an object, errors too', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers });
  const good = await runProgram(
    [registry.reference('lib/img', '1'), '-d', 'out', '--progress', 'json', '-v'],
    { cwd: scratch.path },
  );
  const types = new Set(
    good.stderr
      .trim()
      .split('\n')
      .map((line) => checked('progress', line)['type']),
  );
  for (const type of [
    'session',
    'image',
    'layer-start',
    'layer-fetched',
    'layer-apply',
    'layer-applied',
    'done',
    'debug',
  ]) {
    assert.ok(types.has(type), type);
  }
  assert.match(good.stdout, /^Image ID: /m);
  for (const argv of [
    ['lib/img', '--progress=json', '--nope'],
    [registry.reference('lib/img', 'nope'), '--progress', 'json'],
  ]) {
    const bad = await runProgram(argv, { cwd: scratch.path });
    const lines = bad.stderr
      .trim()
      .split('\n')
      .map((line) => checked('progress', line));
    assert.equal(lines.at(-1)!['exitCode'], bad.exitCode);
  }
});

test('json: -q prints only DIR as typed', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers });
  const result = await runProgram([registry.reference('lib/img', '1'), '-d', './out/', '-q'], {
    cwd: scratch.path,
  });
  assert.deepEqual(result, { exitCode: 0, stdout: './out/\n', stderr: '' });
});

test('tags: one a line, all pages', async () => {
  await using registry = await FakeRegistry.start({ pageSize: 2 });
  for (const tag of ['1', '2', '3', 'a', 'b']) registry.push('lib/img', tag, { layers });
  const result = await runProgram(['tags', `${registry.host}/lib/img`]);
  assert.deepEqual(result, { exitCode: 0, stdout: '1\n2\n3\na\nb\n', stderr: '' });
  const asJson = await runProgram(['tags', `${registry.host}/lib/img`, '--json']);
  assert.deepEqual(Object.values(checked('tags', asJson.stdout)), ['1', '2', '3', 'a', 'b']);
});

test('cache: size and prune count the same, in JSON and in their lines', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers });
  const cache = ['--cache-dir', scratch.join('cache')];
  await runProgram([registry.reference('lib/img', '1'), '-d', 'out', ...cache], { cwd: scratch.path });
  const size = checked('cache', (await runProgram(['cache', ...cache, '--json'])).stdout);
  assert.ok(Number(size['blobs']) >= 4 && Number(size['bytes']) > 0);
  const pruned = checked('cache', (await runProgram(['cache', 'prune', ...cache, '--json'])).stdout);
  assert.deepEqual(pruned, size);
  const after = JSON.parse((await runProgram(['cache', 'size', ...cache, '--json'])).stdout) as {
    blobs: number;
    bytes: number;
  };
  assert.deepEqual([after.blobs, after.bytes], [0, 0]);
  await runProgram([registry.reference('lib/img', '1'), '-d', 'new', ...cache], { cwd: scratch.path });
  const directory = scratch.join('cache');
  const { stdout } = await runProgram(['cache', ...cache]);
  assert.match(stdout, /^\S+: 4 blobs, 0 partial, \d[\d.]* KiB\n$/);
  const { stdout: removed } = await runProgram(['cache', 'prune', ...cache]);
  assert.equal(removed, stdout.replace(`${directory}: `, `${directory}: removed `));
  assert.equal((await runProgram(['cache', ...cache])).stdout, `${directory}: 0 blobs, 0 partial, 0 B\n`);
});

test('a layout on this machine is not copied into the store', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const { bytes, blobs, digest, mediaType } = registry.push('lib/img', '1', { layers });
  const at = (...parts: readonly string[]) => scratch.join('layout', ...parts);
  mkdirSync(at('blobs/sha256'), { recursive: true });
  writeFileSync(at('oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  for (const [name, content] of [...blobs, [digest, bytes] as const])
    writeFileSync(at('blobs/sha256', name.slice(7)), content);
  const manifests = [{ mediaType, digest, size: bytes.length }];
  writeFileSync(at('index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
  const argv = [
    `oci:${at()}`,
    '-d',
    'out',
    '--json',
    '--platform',
    'linux/amd64',
    '--cache-dir',
    scratch.join('cache'),
  ];
  const { stdout, stderr, exitCode } = await runProgram(argv, { cwd: scratch.path });
  assert.equal(exitCode, 0, stderr);
  assert.equal((checked('summary', stdout)['layers'] as unknown[]).length, 2);
  assert.equal(readFileSync(scratch.join('out/etc/motd'), 'utf8'), 'hello\n');
  assert.ok(!existsSync(scratch.join('cache')));
});

test('json: verify and diff print each difference, with names of any bytes', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const own = [dir('etc'), file('etc/a', 'x')];
  const first = registry.push('lib/img', '1', { layers: [{ tar: tar(...own, file('gone', 'x')) }] });
  registry.push('lib/img', '2', { layers: [{ tar: tar(...own, file(Buffer.from([0xe9, 10]), 'x')) }] });
  const run = async (...argv: readonly string[]) => {
    const all = [...argv, '--json', '--progress', 'none', '--cache-dir', scratch.join('cache')];
    const { exitCode, stdout, stderr } = await runProgram(all, { cwd: scratch.path });
    assert.equal(stderr, '');
    return { exitCode, stdout };
  };
  const [one, two] = [registry.reference('lib/img', '1'), registry.reference('lib/img', '2')];
  const differing = await run('diff', one, two);
  const { images, differences } = checked('differences', differing.stdout);
  assert.deepEqual(
    [differing.exitCode, (images as { reference: string }[]).map(({ reference }) => reference)],
    [9, [one, two]],
  );
  assert.deepEqual(differences, [
    { path: '/gone', kind: 'removed', type: 'file', changes: [] },
    { path: '/\udce9\n', kind: 'added', type: 'file', changes: [] },
  ]);
  await run(one, '-d', 'out');
  chmodSync(scratch.join('out/etc/a'), 0o600);
  const found = await run('verify', one, '-d', 'out', '--contents');
  const { id, digest, ...verification } = checked('verification', found.stdout);
  assert.deepEqual([found.exitCode, digest, id], [9, first.digest, first.configDigest.slice(7)]);
  const mode = { what: 'mode', expected: '0644', found: '0600' };
  assert.deepEqual(verification, {
    reference: one,
    destination: 'out',
    contents: true,
    differences: [{ path: '/etc/a', kind: 'changed', type: 'file', changes: [mode] }],
    unread: [],
    mounted: [],
  });
});
