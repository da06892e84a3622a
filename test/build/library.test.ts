import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { transform } from 'esbuild';
import { leastNodes, runsOn } from '../../src/version.ts';
import { dir, file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch } from '../support/program.ts';

const root = new URL('../../', import.meta.url).pathname;
const built = existsSync(`${root}dist/npm/index.js`) ? false : 'needs make build';

/**
 * A project outside the checkout with the packages that npm would install: the packed one, and those that it
 * needs.
 */
function consumer(): Scratch {
  const scratch = new Scratch();
  mkdirSync(scratch.join('node_modules/dlrootfs'), { recursive: true });
  const pack = ['pack', '--ignore-scripts', '--loglevel=error', '--pack-destination', scratch.path];
  const name = execFileSync('npm', pack, { cwd: `${root}dist/package`, encoding: 'utf8' }).trim();
  const unpack = [
    '-xzf',
    scratch.join(name),
    '--strip-components=1',
    '-C',
    scratch.join('node_modules/dlrootfs'),
  ];
  execFileSync('tar', unpack);
  for (const other of readdirSync(`${root}node_modules`))
    if (!other.startsWith('.'))
      symlinkSync(`${root}node_modules/${other}`, scratch.join('node_modules', other));
  writeFileSync(scratch.join('package.json'), '{ "type": "module", "private": true }');
  return scratch;
}

function typecheck(scratch: Scratch, source: string): string {
  writeFileSync(scratch.join('example.ts'), source);
  const flags = ['--strict', '--noEmit', '--target', 'es2024', '--module', 'nodenext', '--types', 'node'];
  const result = spawnSync(`${root}node_modules/.bin/tsc`, [...flags, 'example.ts'], {
    cwd: scratch.path,
    encoding: 'utf8',
  });
  return `${result.stdout}${result.stderr}`;
}

const [example = '', comparison = '', ...others] = Array.from(
  readFileSync(`${root}docs/library.md`, 'utf8').matchAll(/^```ts\n([^]*?)^```$/gm),
  ([, code]) => code!,
);

/** Runs the example; the registry replaces `docker.io`. */
function exampleRunner(
  scratch: Scratch,
  registry: FakeRegistry,
): () => Promise<{ readonly exitCode: number | null; readonly output: string }> {
  const moved = `[[registry]]\nprefix = "docker.io"\nlocation = "${registry.host}"\ninsecure = true\n`;
  writeFileSync(scratch.join('registries.conf'), moved);
  return async () => {
    const child = spawn(process.execPath, ['example.ts'], {
      cwd: scratch.path,
      env: {
        PATH: process.env['PATH'],
        HOME: scratch.path,
        CONTAINERS_REGISTRIES_CONF: scratch.join('registries.conf'),
      },
    });
    let output = '';
    child.stdout.on('data', (text: Buffer) => (output += text.toString()));
    child.stderr.on('data', (text: Buffer) => (output += text.toString()));
    const exitCode = await new Promise<number | null>((resolve) => child.once('close', resolve));
    return { exitCode, output };
  };
}

test('the example of the library runs unchanged', { skip: built }, async () => {
  using scratch = consumer();
  assert.equal(typecheck(scratch, example), '');
  await using registry = await FakeRegistry.start();
  const { digest } = registry.push('library/alpine', 'latest', {
    layers: [{ tar: tar(dir('etc'), file('etc/motd', 'hello\n')) }, { tar: tar(file('etc/issue', 'x')) }],
  });
  const run = exampleRunner(scratch, registry);
  const { exitCode, output } = await run();
  assert.equal(exitCode, 0, output);
  const lines = output.trim().split('\n');
  assert.deepEqual(lines.slice(0, 2), ['layer 0: 2 entries', 'layer 1: 1 entries']);
  assert.match(lines[2]!, new RegExp(`^library/alpine:latest is ${digest}: 2 layers, \\d+ bytes fetched$`));
  assert.equal(readFileSync(scratch.join('alpine-rootfs/etc/motd'), 'utf8'), 'hello\n');
  registry.fault({ path: /\/manifests\//, times: 99, status: 404 });
  rmSync(scratch.join('alpine-rootfs'), { recursive: true });
  const failed = await run();
  assert.equal(failed.exitCode, 3);
  assert.match(failed.output, /^NOT_FOUND: .*\(.+\)$/m);
});

test('the example of verify and diff runs unchanged', { skip: built }, async () => {
  using scratch = consumer();
  assert.equal(typecheck(scratch, comparison), '');
  await using registry = await FakeRegistry.start();
  const base = tar(dir('etc'), file('etc/motd', 'hello\n'), file('usr/x', 'x'));
  registry.push('library/alpine', 'latest', { layers: [{ tar: base }] });
  registry.push('library/alpine', 'edge', {
    layers: [{ tar: base }, { tar: tar(file('etc/issue', 'x'), file('usr/x', 'y')) }],
  });
  execFileSync('sh', ['-c', 'mkdir -p alpine-rootfs/etc; echo hallo >alpine-rootfs/etc/motd'], {
    cwd: scratch.path,
  });
  const { exitCode, output } = await exampleRunner(scratch, registry)();
  assert.equal(exitCode, 0, output);
  const lines = output.trim().split('\n');
  assert.match(lines.join('\n'), /^changed \/etc\/motd mtime \S+ \S+,content undefined undefined$/m);
  assert.deepEqual(lines.slice(-4), [
    'missing /usr ',
    '2 differences, 0 unread',
    'added /etc/issue',
    'the first layer adds 2 paths',
  ]);
});

/** The output of the other examples, in the order of the document. */
const printed: readonly RegExp[] = [
  /^alpine\.tar\.gz has 2 layers\n[0-9a-f]{64}\n$/,
  /^[0-9a-f]{64} 2 \d+ bytes to download\n$/,
  /^edge\nlatest\n2 tags\n$/,
  /^hello\n$/,
  /^library\/alpine:latest: \d+ bytes downloaded\nlibrary\/alpine:latest \d+\n(\d) of \1 blobs removed\n$/,
];

test('the examples of the other functions run unchanged', { skip: built }, async () => {
  using scratch = consumer();
  await using registry = await FakeRegistry.start();
  const layers = [
    { tar: tar(dir('etc'), file('etc/motd', 'hello\n')) },
    { tar: tar(file('etc/issue', 'x')) },
  ];
  for (const tag of ['latest', 'edge']) registry.push('library/alpine', tag, { layers });
  const run = exampleRunner(scratch, registry);
  assert.equal(others.length, printed.length);
  for (const [index, code] of others.entries()) {
    assert.ok(code.trim().split('\n').length <= 15, code);
    assert.equal(typecheck(scratch, code), '', code);
    const { exitCode, output } = await run();
    assert.equal(exitCode, 0, `${code}${output}`);
    assert.match(output, printed[index]!, code);
  }
});

test('every function ends with its signal, and throws its reason', { skip: built }, async () => {
  using scratch = consumer();
  writeFileSync(
    scratch.join('example.ts'),
    `import { PassThrough } from 'node:stream';
import * as library from 'dlrootfs';
const reason = new Error('enough');
const options = { environment: process.env, cacheDirectory: 'cache', signal: AbortSignal.abort(reason) };
const calls = {
  pull: library.pull('alpine', options), verify: library.verify('alpine', { ...options, destination: '.' }), diff: library.diff('a', 'b', options),
  exportArchive: library.exportArchive('alpine', 'x.tar', options), inspect: library.inspect('alpine', options),
  listTags: library.listTags('alpine', options), cat: library.cat('alpine', 'x', new PassThrough(), options),
  'cache.add': library.cache.add('alpine', options),
  'cache.size': library.cache.size(options), 'cache.prune': library.cache.prune(options),
};
await Promise.all(Object.entries(calls).map(([name, call]) => call.then(() => console.log(name, 'no error'),
  (error) => error === reason || console.log(name, error))));
`,
  );
  await using registry = await FakeRegistry.start();
  const { exitCode, output } = await exampleRunner(scratch, registry)();
  assert.deepEqual([exitCode, output], [0, '']);
});

test('its types refuse a wrong call', { skip: built }, () => {
  using scratch = consumer();
  const source = `import { pull, UsageError, type PullEvent, type PullSummary, type Platform } from 'dlrootfs';
const platform: Platform = { os: 'linux', architecture: 'arm64' };
const events: PullEvent['type'][] = [];
export const right: Promise<PullSummary> = pull('x', { platform, report: ({ type }) => events.push(type) });
export const hint: string | undefined = new UsageError('x').hint;
// @ts-expect-error there is no such option
await pull('x', { destinaton: 'y' });
// @ts-expect-error an image is a text
await pull(1);
// @ts-expect-error there is no such event
export const wrong: PullEvent = { type: 'layer-gone' };
`;
  assert.equal(typecheck(scratch, source), '');
});

/** A module that makes Node report an older version; it is loaded before the program. */
function pretending(scratch: Scratch, version: string): string {
  const name = scratch.join('older.cjs');
  const versions = `{ ...process.versions, node: '${version}' }`;
  writeFileSync(name, `Object.defineProperty(process, 'versions', { value: ${versions} });\n`);
  return name;
}

for (const version of ['12.22.12', '20.20.2', '22.22.1', '23.11.0', '24.14.1']) {
  test(
    `Node ${version} is told first that it is too old, by the command and by the library`,
    { skip: built },
    () => {
      using scratch = consumer();
      const older = pretending(scratch, version);
      const run = (...words: readonly string[]) =>
        spawnSync(process.execPath, ['-r', older, ...words], { cwd: scratch.path, encoding: 'utf8' });
      const command = run('node_modules/dlrootfs/bin/dlrootfs.js', 'version');
      assert.deepEqual([command.status, command.stdout], [2, '']);
      const message = `dlrootfs needs Node 22.22.2+, 24.15.0+, 26.0.0+, and this is ${version}\n`;
      assert.ok(command.stderr.startsWith(`error: ${message}hint: `), command.stderr);
      writeFileSync(
        scratch.join('use.js'),
        "import('dlrootfs').catch(({ name, message }) => console.log(`${name}: ${message}`));",
      );
      assert.equal(run('use.js').stdout, `UsageError: ${message}`);
    },
  );
}

test('what an old Node reads before it is told so is in the syntax of Node 12', { skip: built }, async () => {
  const dist = new URL('../../dist/npm/', import.meta.url);
  const first: string[] = [new URL('../../bin/dlrootfs.js', import.meta.url).pathname];
  const reach = (name: string): void => {
    const path = new URL(name, dist).pathname;
    if (first.includes(path)) return;
    first.push(path);
    for (const [, from] of readFileSync(path, 'utf8').matchAll(
      /^(?:import|export|\}) ?(?:from )?.*"(\.\/[^"]+)";$/gm,
    ))
      reach(from!);
  };
  reach('./index.js');
  assert.ok(first.length >= 4, first.join(' '));
  const named = new Set(['constants', 'existsSync', 'readFileSync', 'versions']);
  for (const path of first) {
    const source = readFileSync(path, 'utf8');
    const [now, then] = await Promise.all(
      ['esnext', 'node12.22'].map((target) => transform(source, { target, format: 'esm' })),
    );
    assert.equal(then!.code, now!.code, path);
    for (const [, names = ''] of source.matchAll(/import \{([^}]*)\} from ["']node:/g)) {
      const unknown = names.split(',').map((name) => name.trim().split(' ')[0]!);
      assert.deepEqual(
        unknown.filter((name) => !named.has(name)),
        [],
        path,
      );
    }
  }
});

test('the oldest Nodes are those of package.json', () => {
  const { engines } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as {
    engines: { node: string };
  };
  const [first, second, last] = leastNodes;
  assert.equal(engines.node, `^${first} || ^${second} || >=${last}`);
  const running = ['22.22.2', '22.23.0', '24.15.0', '24.21.0', '26.0.0', '27.1.0'];
  assert.deepEqual(
    running.filter((version) => !runsOn(version)),
    [],
  );
});
