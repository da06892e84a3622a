import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { dir, file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch } from '../support/program.ts';

const root = new URL('../../', import.meta.url).pathname;
const built = existsSync(`${root}dist/npm/index.js`) ? false : 'needs make build';

/** A project outside that has what npm would install: the packed package, and the packages it needs. */
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

const [, example = ''] = /^```ts\n([^]*?)^```$/m.exec(readFileSync(`${root}docs/library.md`, 'utf8')) ?? [];

test('the example of the library runs as it stands in its document', { skip: built }, async () => {
  using scratch = consumer();
  assert.equal(typecheck(scratch, example), '');
  await using registry = await FakeRegistry.start();
  const { digest } = registry.push('library/alpine', 'latest', {
    layers: [{ tar: tar(dir('etc'), file('etc/motd', 'hello\n')) }, { tar: tar(file('etc/issue', 'x')) }],
  });
  const moved = `[[registry]]\nprefix = "docker.io"\nlocation = "${registry.host}"\ninsecure = true\n`;
  writeFileSync(scratch.join('registries.conf'), moved);
  const run = async () => {
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
  const { exitCode, output } = await run();
  assert.equal(exitCode, 0, output);
  const lines = output.trim().split('\n');
  assert.deepEqual(lines.slice(0, 2), ['layer 0: 2 entries', 'layer 1: 1 entries']);
  assert.match(lines[2]!, new RegExp(`^library/alpine:latest is ${digest}: 2 layers, \\d+ bytes fetched$`));
  assert.equal(readFileSync(scratch.join('alpine-rootfs/etc/motd'), 'utf8'), 'hello\n');
  registry.fault({ path: /\/manifests\//, times: 99, status: 404 });
  const failed = await run();
  assert.equal(failed.exitCode, 3);
  assert.match(failed.output, /^NOT_FOUND: .*\(.+\)$/m);
});

test('its types say what is wrong with a call', { skip: built }, () => {
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
