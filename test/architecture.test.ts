import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { version } from '../src/version.ts';

const source = new URL('../src/', import.meta.url).pathname;

/** Which rooms a room may import; files at the top count by their name. Types alone may also come from `report`. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  'errors.ts': [],
  'version.ts': [],
  sys: ['errors.ts'],
  oci: ['errors.ts'],
  tar: ['errors.ts'],
  registry: ['errors.ts', 'sys', 'oci', 'version.ts'],
  blob: ['errors.ts', 'sys', 'oci'],
  layout: ['errors.ts', 'sys', 'oci', 'tar'],
  rootfs: ['errors.ts', 'sys', 'tar'],
  git: ['errors.ts', 'sys', 'tar', 'rootfs'],
  archive: ['errors.ts', 'sys', 'tar', 'rootfs'],
  runtime: ['errors.ts', 'sys', 'oci'],
  report: ['errors.ts', 'sys', 'oci'],
  'options.ts': ['errors.ts', 'oci', 'registry', 'report', 'runtime'],
  'packer.ts': ['errors.ts', 'rootfs'],
  /** What runs in its thread. */
  'packer-thread.ts': ['packer.ts', 'git', 'rootfs'],
  'held-image.ts': ['errors.ts', 'sys', 'oci'],
  'rootfs-build.ts': [
    'held-image.ts',
    'sys',
    'packer.ts',
    'errors.ts',
    'options.ts',
    'summary.ts',
    'report',
    'oci',
    'blob',
    'rootfs',
    'git',
  ],
  'source.ts': ['errors.ts', 'oci', 'options.ts', 'layout', 'registry'],
  'summary.ts': ['oci', 'rootfs'],
  'pull.ts': [
    'furnish.ts',
    'options.ts',
    'with-session.ts',
    'summary.ts',
    'rootfs-build.ts',
    'resumption.ts',
    'oci',
    'blob',
    'git',
  ],
  'furnish.ts': ['errors.ts', 'oci', 'options.ts', 'runtime'],
  'resumption.ts': ['errors.ts', 'rootfs'],
  'native-calls.ts': ['blob', 'rootfs'],
  'with-session.ts': ['options.ts', 'source.ts', 'native-calls.ts', 'oci', 'blob', 'rootfs'],
  'export.ts': ['errors.ts', 'options.ts', 'with-session.ts', 'blob', 'archive'],
  'inspect.ts': ['options.ts', 'with-session.ts', 'summary.ts', 'oci', 'blob'],
  'index.ts': ['errors.ts', 'options.ts', 'pull.ts', 'summary.ts', 'report', 'oci', 'version.ts'],
  'command-line': [
    'errors.ts',
    'sys',
    'options.ts',
    'source.ts',
    'summary.ts',
    'pull.ts',
    'export.ts',
    'inspect.ts',
    'native-calls.ts',
    'version.ts',
    'report',
    'oci',
    'registry',
    'blob',
    'layout',
    'rootfs',
    'git',
    'runtime',
  ],
  'answer-version.ts': ['version.ts'],
  'cli.ts': ['errors.ts', 'sys', 'command-line', 'answer-version.ts'],
  /** What takes the place of single files in the single executable. */
  binary: ['cli.ts', 'answer-version.ts'],
};

/** Node's modules that do I/O: not for the rooms that only decide. */
const pure = new Set(['oci', 'tar', 'errors.ts', 'version.ts']);
const harmless = new Set(['node:crypto', 'node:buffer', 'node:path', 'node:util', 'node:os']);

const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) =>
  name.endsWith('.ts'),
);
const room = (file: string) => file.split('/')[0]!;

interface Import {
  readonly file: string;
  readonly from: string;
  readonly typeOnly: boolean;
}

const imports: Import[] = files.flatMap((file) =>
  [
    ...readFileSync(path.join(source, file), 'utf8').matchAll(
      /^(import|export)( type)?\b[^;]*?\bfrom '([^']+)'|\bimport\('([^']+)'\)/gm,
    ),
  ].map((match) => ({ file, from: match[3] ?? match[4]!, typeOnly: match[2] !== undefined })),
);

test('every file stands in a room that the design names', () => {
  assert.deepEqual(
    [...new Set(files.map(room))].filter((name) => !(name in allowed)),
    [],
  );
});

test('imports go down only', () => {
  const wrong = imports
    .filter(({ from }) => from.startsWith('.'))
    .map((entry) => ({ ...entry, to: room(path.normalize(path.join(path.dirname(entry.file), entry.from))) }))
    .filter(({ file, to }) => room(file) !== to && !(allowed[room(file)] ?? []).includes(to))
    .filter(({ file, to, typeOnly }) => !(typeOnly && (to === 'report' || room(file) === 'resumption.ts')));
  assert.deepEqual(wrong, []);
});

test('the rooms that only decide do no I/O', () => {
  const wrong = imports.filter(
    ({ file, from }) => pure.has(room(file)) && !from.startsWith('.') && !harmless.has(from),
  );
  assert.deepEqual(wrong, []);
});

test('only registry/ opens sockets', () => {
  const sockets = new Set(['node:net', 'node:http', 'node:https', 'node:tls', 'undici']);
  assert.deepEqual(
    imports.filter(({ file, from }) => sockets.has(from) && room(file) !== 'registry'),
    [],
  );
});

test('only cli.ts touches the process, but for the thread that writes', () => {
  const users = files.filter((file) => /(?<![\w.'"-])process\.\w/.test(withoutComments(file)));
  assert.deepEqual(
    users.filter((file) => file !== 'cli.ts'),
    [],
  );
});

test('no file is longer than 400 lines', () => {
  const long = files.filter((file) => readFileSync(path.join(source, file), 'utf8').split('\n').length > 401);
  assert.deepEqual(long, []);
});

test('the program prints the version of package.json', () => {
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  assert.equal(version, manifest.version);
});

function withoutComments(file: string): string {
  return readFileSync(path.join(source, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
}
