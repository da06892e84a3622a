import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { text as textOf } from 'node:stream/consumers';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { bundleForExecutable } from '../../scripts/build/bundle.ts';
import { makeDebianPackage } from '../../scripts/build/debian-package.ts';
import { version } from '../../src/version.ts';
import { Setting } from '../faults/setting.ts';
import { missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';
import { until } from '../support/until.ts';

const root = new URL('../../', import.meta.url).pathname;
const built =
  existsSync(`${root}dist/npm/cli.js`) && existsSync(`${root}dist/dlrootfs`) ? false : 'needs make build';

test('bin/dlrootfs.js runs the bundle where there is one', { skip: built }, () => {
  assert.equal(
    execFileSync(process.execPath, [`${root}bin/dlrootfs.js`, 'version'], { encoding: 'utf8' }),
    `${version}\n`,
  );
});

test('SIGUSR1 opens no debugger in the npm package', { skip: built }, async () => {
  const faults = [{ path: /\/v2\/$/, before: 'silent', times: 9 }] as const;
  await using setting = await Setting.open(undefined, { faults });
  const argv = [`${root}bin/dlrootfs.js`, setting.reference, '--no-cache', '-d', setting.scratch.join('out')];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  const said = textOf(child.stderr);
  await until('a request', () => setting.registry.log(/\/v2\/$/).length > 0);
  child.kill('SIGUSR1');
  await sleep(300);
  child.kill('SIGTERM');
  assert.equal(await said, 'error: interrupted by SIGTERM\n');
});

test('npm packs the bundle, its types, documents and samples, and no sources', { skip: built }, () => {
  const packed = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: `${root}dist/package`,
    encoding: 'utf8',
  });
  const [{ files }] = JSON.parse(packed) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  for (const path of [
    'bin/dlrootfs.js',
    'dist/npm/cli.js',
    'dist/npm/index.js',
    'dist/npm/thread.js',
    'docs/recipes.md',
    'docs/schema/summary.schema.json',
    'sample_configs/config.json',
    'LICENSE',
  ]) {
    assert.ok(paths.includes(path), path);
  }
  assert.deepEqual(
    paths.filter((path) => /^(src|test|scripts|tools|bench)\//.test(path)),
    [],
  );
});

test(
  'the npm package runs no script on a user machine and names where it comes from',
  { skip: built },
  () => {
    const text = readFileSync(`${root}dist/package/package.json`, 'utf8');
    const manifest = JSON.parse(text) as Record<string, unknown>;
    for (const name of ['scripts', 'devDependencies', 'private']) assert.ok(!(name in manifest), name);
    for (const name of ['repository', 'bugs', 'homepage', 'license', 'engines'])
      assert.ok(name in manifest, name);
  },
);

test('the version is the same everywhere', () => {
  for (const file of ['package.json', 'package-lock.json']) {
    assert.equal(
      (JSON.parse(readFileSync(`${root}${file}`, 'utf8')) as { version: string }).version,
      version,
      file,
    );
  }
});

test(
  'make install puts binary, manual, completions, documents and samples under PREFIX; make uninstall removes them',
  { skip: built || missing('make') },
  () => {
    using scratch = new Scratch();
    const make = (target: string) => {
      const command = ['scripts/install.sh', ...(target === 'uninstall' ? ['--remove'] : [])];
      const { status, stderr } = spawnSync('bash', [...command, scratch.join('usr')], {
        cwd: root,
        encoding: 'utf8',
      });
      assert.equal(status, 0, stderr);
    };
    make('install');
    const installed = readdirSync(scratch.path, { recursive: true, encoding: 'utf8' });
    const expected = [
      'usr/bin/dlrootfs',
      'usr/share/doc/dlrootfs/copyright',
      'usr/share/doc/dlrootfs/README.md',
      'usr/share/doc/dlrootfs/docs/recipes.md',
      'usr/share/doc/dlrootfs/docs/schema/progress.schema.json',
      'usr/share/doc/dlrootfs/examples/prepare-ci.sh',
      'usr/share/bash-completion/completions/dlrootfs',
      'usr/share/fish/vendor_completions.d/dlrootfs.fish',
      'usr/share/man/man1/dlrootfs.1',
      'usr/share/zsh/site-functions/_dlrootfs',
    ];
    for (const path of expected) assert.ok(installed.includes(path), path);
    assert.equal(
      execFileSync(scratch.join('usr/bin/dlrootfs'), ['version'], { encoding: 'utf8' }),
      `${version}\n`,
    );
    writeFileSync(scratch.join('usr/share/doc/dlrootfs/mine'), 'a file of the user');
    make('uninstall');
    const left = readdirSync(scratch.path, { recursive: true, withFileTypes: true });
    assert.deepEqual(
      left.filter((entry) => entry.isFile()).map((entry) => entry.name),
      ['mine'],
    );
  },
);

test('the licences of all parts of the binary are installed with it', { skip: built }, async () => {
  const text = readFileSync(`${root}dist/copyright`, 'utf8');
  const { inputs } = await bundleForExecutable();
  const packages = inputs.flatMap((path) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []);
  for (const name of new Set([...packages, 'koffi'])) {
    const [, entry = ''] = text.split(new RegExp(`^-+\n\n${name} \\d.*\n`, 'm'));
    assert.match(entry.split(/^-{80}$/m)[0]!, /licen[cs]e|copyright/i, name);
  }
  for (const words of ['Robin Monjo', 'Node.js contributors', 'OpenSSL', 'libuv', '- V8, located at'])
    assert.ok(text.includes(words), words);
});

test(
  'a Debian package has everything in its place, with checksums',
  { skip: built || missing('dpkg-deb') },
  async () => {
    using scratch = new Scratch();
    mkdirSync(scratch.join('work'));
    // Compressing the real binary takes half a minute.
    writeFileSync(scratch.join('work/dlrootfs'), '#!/bin/sh\necho stand-in\n', { mode: 0o755 });
    await makeDebianPackage(scratch.join('work'), 'all', scratch.join('x.deb'));
    execFileSync('dpkg-deb', ['--raw-extract', scratch.join('x.deb'), scratch.join('tree')]);
    for (const path of [
      'usr/bin/dlrootfs',
      'usr/share/man/man1/dlrootfs.1.gz',
      'usr/share/doc/dlrootfs/copyright',
      'usr/share/doc/dlrootfs/changelog.gz',
      'usr/share/doc/dlrootfs/docs/library.md',
      'usr/share/doc/dlrootfs/examples/lxc-config',
      'usr/share/bash-completion/completions/dlrootfs',
      'usr/share/fish/vendor_completions.d/dlrootfs.fish',
      'usr/share/zsh/vendor-completions/_dlrootfs',
    ])
      assert.ok(existsSync(scratch.join('tree', path)), path);
    const check = ['--check', '--quiet', '--strict', 'DEBIAN/md5sums'];
    execFileSync('md5sum', check, { cwd: scratch.join('tree') });
    const control = readFileSync(scratch.join('tree/DEBIAN/control'), 'utf8');
    assert.match(control, /^Maintainer: dlrootfs maintainers <(?!mail@)[^>]+>$/m);
    // Programs that dlrootfs runs.
    assert.match(control, /^Suggests: (?=.*\bgpgv\b)(?=.*\be2fsprogs\b)(?=.*\bgit\b)/m);
  },
);

test('every target of the Makefile is in make help', () => {
  const makefile = readFileSync(`${root}Makefile`, 'utf8');
  const targets = /^\.PHONY: (.*)$/m.exec(makefile)?.[1]?.split(' ') ?? [];
  const help = execFileSync('make', ['--no-print-directory', 'help'], { cwd: root, encoding: 'utf8' });
  const internal = new Set(['debian-packages']);
  for (const target of targets)
    if (!internal.has(target)) assert.match(help, new RegExp(`^ +make ${target} `, 'm'));
});
