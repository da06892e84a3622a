import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { version } from '../src/version.ts';

const source = new URL('../src/', import.meta.url).pathname;

/** The ground floor, usable by every room, with the rooms that each of its own may use. */
const ground: Readonly<Record<string, readonly string[]>> = {
  'version.ts': [],
  'errors.ts': [],
  sys: ['errors.ts'],
  tar: ['errors.ts', 'sys'],
  oci: ['errors.ts', 'sys'],
};

/** The rooms that each room may use beside the ground floor. All rooms may use types of `report`. */
const rooms: Readonly<Record<string, readonly string[]>> = {
  registry: [],
  blob: [],
  layout: [],
  trust: [],
  rootfs: [],
  report: [],
  git: ['rootfs'],
  archive: ['rootfs'],
  comparison: ['rootfs'],
  disk: ['archive', 'rootfs'],
  runtime: ['disk', 'rootfs'],
};

/** Files at the top, from the bottom up: each may use every room, and the files before it. */
const top = [
  'requests.ts',
  'options.ts',
  'commands',
  'index.ts',
  'process-limits.ts',
  'quick-answer.ts',
  'command-line',
  'cli.ts',
  'binary',
];

function mayUse(one: string, other: string): boolean {
  if (one in ground) return ground[one]!.includes(other);
  if (other in ground) return true;
  if (one in rooms) return rooms[one]!.includes(other);
  return other in rooms || (top.includes(other) && top.indexOf(other) < top.indexOf(one));
}

/** The rooms that only decide: they may not use Node's modules that do I/O. */
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

test('every file is in a room of the design', () => {
  assert.deepEqual(
    [...new Set(files.map(room))].filter(
      (name) => ![...Object.keys(ground), ...Object.keys(rooms), ...top].includes(name),
    ),
    [],
  );
});

test('imports go down only', () => {
  const wrong = imports
    .filter(({ from }) => from.startsWith('.'))
    .map((entry) => ({ ...entry, to: room(at(entry.file, entry.from)) }))
    .filter(({ file, to }) => room(file) !== to && !mayUse(room(file), to))
    .filter(({ to, typeOnly }) => !(typeOnly && to === 'report'));
  assert.deepEqual(wrong, []);
});

test('no imports go in a circle, of types and on demand neither', () => {
  const graph = new Map(files.map((file) => [file, new Set<string>()]));
  for (const { file, from } of imports) if (from.startsWith('.')) graph.get(file)!.add(at(file, from));
  for (let size = 0; size !== graph.size;) {
    size = graph.size;
    // A file that imports no remaining file is in no circle.
    for (const [file, used] of graph) if (![...used].some((other) => graph.has(other))) graph.delete(file);
  }
  // A file that no remaining file imports is in no circle either.
  const inCircles = [...graph.keys()].filter((file) => [...graph.values()].some((used) => used.has(file)));
  assert.deepEqual(inCircles, []);
});

test('the rooms that only decide do no I/O, also not through sys/', () => {
  const reaching = imports.filter(({ from }) => !from.startsWith('.') && !harmless.has(from));
  const impure = new Set(reaching.map(({ file }) => file));
  const wrong = imports.filter(
    ({ file, from, typeOnly }) =>
      pure.has(room(file)) && !typeOnly && (impure.has(file) || impure.has(at(file, from))),
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

test('only cli.ts and the writing thread use the process', () => {
  const users = files.filter((file) => /(?<![\w.'"-])process\.\w/.test(withoutComments(file)));
  assert.deepEqual(
    users.filter((file) => file !== 'cli.ts'),
    [],
  );
});

test('the four places of retries are those of docs/faults.md', () => {
  assert.deepEqual(naming(/\bnew RetryBudget\(/), ['blob/download.ts', 'registry/http/transport.ts']);
  assert.deepEqual(naming(/\bbackoff\(/), ['sys/retry.ts']);
  assert.deepEqual(naming(/\bisTransient\(/), [
    'blob/transfer.ts',
    'errors.ts',
    'registry/endpoint.ts',
    'registry/registry-host.ts',
    'registry/v2.ts',
    'sys/retry.ts',
  ]);
  assert.deepEqual(naming(/\bfrom 'p-limit'/), ['sys/request-queue.ts']);
});

test('no file is longer than 400 lines', () => {
  const long = files.filter((file) => readFileSync(path.join(source, file), 'utf8').split('\n').length > 401);
  assert.deepEqual(long, []);
});

test('the release is built from nothing of test/', () => {
  const scripts = new URL('../scripts/', import.meta.url).pathname;
  const building = readdirSync(scripts, { recursive: true, encoding: 'utf8' }).filter((name) =>
    /^(?:build\/.*|build|release)\.ts$/.test(name),
  );
  assert.ok(building.length > 10);
  assert.deepEqual(
    building.filter((name) => /\bfrom '[^']*\/test\//.test(readFileSync(path.join(scripts, name), 'utf8'))),
    [],
  );
});

test('the program prints the version of package.json', () => {
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  assert.equal(version, manifest.version);
});

const layerPage = readFileSync(new URL('../docs/layer.md', import.meta.url), 'utf8');

/** The first file of each thread. */
const scripts = {
  main: 'cli.ts',
  decoder: 'commands/decoder-thread.ts',
  rootfs: 'rootfs/thread.ts',
} as const;

interface Row {
  readonly thread: keyof typeof scripts;
  readonly files: readonly string[];
}

/** Returns the rows of a table of files in docs/layer.md. */
function rowsBelow(title: string): Row[] {
  const [, section = ''] = layerPage.split(`## ${title}\n`);
  const rows = section.split('\n## ')[0]!.matchAll(/^\| .+ \| (main|decoder|rootfs) \| (`.+`) \|$/gm);
  return [...rows].map(([, thread, cell]) => ({
    thread: thread as Row['thread'],
    files: [...cell!.matchAll(/`([\w/-]+\.ts)`/g)].map(([, name]) => name!),
  }));
}

const tables = [rowsBelow('Until the request is sent'), rowsBelow('From the socket to the disk')] as const;

/** The files of a table, in order. */
const filesOf = (rows: readonly Row[]) => [...new Set(rows.flatMap((row) => row.files))];

test('docs/layer.md counts the files of its lists, and each exists', () => {
  const [before, after] = [filesOf(tables[0]), filesOf(tables[1])];
  assert.deepEqual(
    [...before, ...after].filter((name) => !files.includes(name)),
    [],
  );
  const both = after.filter((name) => before.includes(name)).length;
  assert.ok(layerPage.includes(`These are ${before.length} files.\n`));
  assert.ok(layerPage.includes(`These are ${after.length} files; ${both} of them are in both lists.\n`));
});

test('the files of a list in docs/layer.md are linked by imports, or an object is named', () => {
  const links = new Set(
    imports.flatMap(({ file, from }) => [`${file} ${at(file, from)}`, `${at(file, from)} ${file}`]),
  );
  for (const order of tables.map(filesOf)) {
    const isLinked = (file: string, n: number) =>
      order.slice(0, n).some((earlier) => links.has(`${earlier} ${file}`));
    const [, ...alone] = order.filter((file, n) => !isLinked(file, n));
    for (const file of alone)
      assert.match(layerPage, new RegExp(`reached by an object instead: .*\`${file}\` by `));
  }
});

test('each thread in docs/layer.md loads its files', () => {
  for (const { thread, files: own } of tables.flat()) {
    const loaded = loadedBy(scripts[thread]);
    assert.deepEqual(
      own.filter((name) => !loaded.has(name)),
      [],
      thread,
    );
  }
});

/** The path of an imported file below src. */
function at(file: string, from: string): string {
  return path.normalize(path.join(path.dirname(file), from));
}

/** The files that a script loads, at once or on demand. */
function loadedBy(script: string): Set<string> {
  const loaded = new Set([script]);
  for (const file of loaded)
    for (const { from } of imports.filter((entry) => entry.file === file && !entry.typeOnly))
      if (from.startsWith('.')) loaded.add(at(file, from));
  return loaded;
}

/** The files in which the words stand, but in comments. */
function naming(words: RegExp): string[] {
  return files.filter((file) => words.test(withoutComments(file))).toSorted();
}

function withoutComments(file: string): string {
  return readFileSync(path.join(source, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
}
