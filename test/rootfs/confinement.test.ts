import assert from 'node:assert/strict';
import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { applyLayer, startRun } from '../../src/rootfs/apply.ts';
import { finishRun } from '../../src/rootfs/directory-metadata.ts';
import { writeOwnFile } from '../../src/rootfs/place.ts';
import type { Entry } from '../../src/tar/entry.ts';
import { TarReader } from '../../src/tar/reader.ts';
import {
  block,
  character,
  dir,
  fifo,
  file,
  hardlink,
  opaque,
  symlink,
  tar,
  whiteout,
  type Item,
} from '../support/archive.ts';
import { printTree } from '../support/tree.ts';
import {
  diskBackends,
  build,
  isRoot,
  openFilesystem,
  source,
  temporaryDirectory,
  type DiskBackend,
} from './harness.ts';

/** Paths of canaries, which an attacker who knows the machine would name. */
interface Targets {
  /** An absolute path in the temporary folder. */
  readonly far: string;
  /** A path relative to DIR, of a file beside it. */
  readonly near: string;
}

interface Attack {
  readonly name: string;
  readonly layers: (targets: Targets) => readonly (readonly Item[])[];
  /** The root afterwards; `error`: the layer must fail. */
  readonly root?: readonly string[];
  readonly error?: RegExp;
  readonly needsRoot?: boolean;
}

const loud = { mode: 0o4777, uid: isRoot ? 5 : 0, mtime: 1 };
const xattrs = { 'trusted.evil': '1', 'user.evil': '1' };

/** First component of the path of a temporary directory. */
const firstOfTmpdir = realpathSync(tmpdir()).split('/')[1]!;

const attacks: readonly Attack[] = [
  {
    name: 'a name that climbs out',
    layers: ({ near }) => [[file(`${near}/secret`, 'evil', loud), file('a/../../../x', '')]],
    root: ['canary', 'x'],
  },
  {
    name: 'an absolute name',
    layers: ({ far }) => [[file(`${far}/secret`, 'evil', loud), file('//x', '')]],
    root: [firstOfTmpdir, 'x'].toSorted(),
  },
  {
    name: 'a directory name that climbs out, with another mode',
    layers: ({ near }) => [[dir(near, loud), dir('..', loud), dir('../..', loud)]],
  },
  {
    name: 'a file through an absolute symlink',
    layers: ({ far }) => [[symlink('l', far), file('l/secret', 'evil', loud)]],
    root: ['l', firstOfTmpdir].toSorted(),
  },
  {
    name: 'a file through a climbing symlink',
    layers: ({ near }) => [[symlink('l', near), file('l/secret', 'evil', loud)]],
    root: ['canary', 'l'],
  },
  {
    name: 'a file through a climbing symlink in a directory',
    layers: ({ near }) => [[symlink('a/b/l', `../../${near}`), file('a/b/l/secret', 'evil')]],
    root: ['a', 'canary'],
  },
  {
    name: 'a file through a chain of symlinks',
    layers: ({ far, near }) => [
      [
        symlink('a', '..'),
        symlink('b', 'a/../..'),
        symlink('c', `b/${near}`),
        symlink('d', 'c'),
        file('d/secret', 'evil'),
      ],
      [symlink('e', far), symlink('f', '/e/../e'), file('f/secret', 'evil')],
    ],
  },
  {
    name: 'a symlink to the root of roots',
    layers: ({ far }) => [[symlink('l', '/'), file(`l${far}/secret`, 'evil'), file('l/l/l/x', '')]],
  },
  {
    name: 'a directory becomes a symlink after its descriptor was cached',
    layers: ({ far }) => [
      [dir('d'), file('d/secret', '1'), symlink('d', far), file('d/secret', 'evil', loud)],
    ],
  },
  {
    name: 'a directory above becomes a symlink after descriptors were cached',
    layers: ({ far, near }) => [
      [
        dir('a/b/c'),
        file('a/b/c/x', ''),
        symlink('a/b', far),
        file('a/b/c/x', 'evil'),
        file('a/b/secret', 'evil'),
      ],
      [file('g/h/i', ''), symlink('g', near), whiteout('g/secret'), file('g/h/i', 'evil')],
    ],
  },
  {
    name: 'a symlink to a directory inside is swapped for one to the outside',
    layers: ({ far }) => [
      [
        dir('in'),
        symlink('l', 'in'),
        file('l/secret', '1'),
        symlink('l', far),
        file('l/secret', 'evil'),
        hardlink('h', 'l/secret'),
      ],
    ],
  },
  {
    name: 'a file over a symlink to a file outside',
    layers: ({ far }) => [[symlink('x', `${far}/secret`), file('x', 'evil', loud)]],
    root: ['x'],
  },
  {
    name: 'a file over a symlink of a lower layer',
    layers: ({ near }) => [[symlink('x', `${near}/secret`)], [file('x', 'evil', loud)]],
    root: ['x'],
  },
  {
    name: 'a directory over a symlink to a directory outside',
    layers: ({ far }) => [[symlink('x', far)], [dir('x', { ...loud, xattrs }), file('x/secret', 'evil')]],
    root: ['x'],
  },
  {
    name: 'metadata of a symlink to the outside',
    layers: ({ far }) => [
      [symlink('x', `${far}/secret`, { ...loud, xattrs }), symlink('y', far, { ...loud, xattrs })],
    ],
    root: ['x', 'y'],
  },
  {
    name: 'a hard link to an absolute path outside',
    layers: ({ far }) => [[hardlink('h', `${far}/secret`), file('h', 'evil')]],
    error: /ENOENT/,
  },
  {
    name: 'a hard link to a climbing path outside',
    layers: ({ near }) => [[hardlink('h', `${near}/secret`)]],
    error: /ENOENT/,
  },
  {
    name: 'a hard link through a symlink to the outside',
    layers: ({ far }) => [[symlink('l', far), hardlink('h', 'l/secret')]],
    error: /ENOENT/,
  },
  {
    name: 'a hard link to a symlink to the outside, then metadata',
    layers: ({ far }) => [[symlink('l', `${far}/secret`), hardlink('h', 'l', { ...loud, xattrs })]],
    root: ['h', 'l'],
  },
  {
    name: 'a hard link to a symlink to the outside, then a file in its place',
    layers: ({ far }) => [[symlink('l', `${far}/secret`), hardlink('h', 'l'), file('h', 'evil', loud)]],
    root: ['h', 'l'],
  },
  {
    name: 'a hard link at a name that climbs out',
    layers: ({ near }) => [[file('x', 'evil'), hardlink(`${near}/secret`, 'x')]],
    root: ['canary', 'x'],
  },
  {
    name: 'a whiteout that climbs out',
    layers: ({ near }) => [
      [dir('a')],
      [whiteout(`${near}/secret`), whiteout(near), whiteout('a/../../canary')],
    ],
  },
  { name: 'a whiteout of ..', layers: () => [[dir('a')], [file('a/.wh...', '')]], error: /whiteout/ },
  { name: 'a whiteout of .', layers: () => [[dir('a')], [file('.wh..', '')]], error: /whiteout/ },
  {
    name: 'a whiteout through a symlink to the outside',
    layers: ({ far }) => [[symlink('l', far)], [whiteout('l/secret'), whiteout('l/folder')]],
  },
  {
    name: 'an opaque marker through a symlink to the outside',
    layers: ({ far, near }) => [
      [symlink('l', far), symlink('m', near)],
      [opaque('l'), opaque('m'), opaque('..'), opaque(near)],
    ],
  },
  {
    name: 'an opaque marker above symlinks to the outside',
    layers: ({ far, near }) => [
      [symlink('d/l', far), symlink('d/e/m', `../../${near}`), file('d/x', '')],
      [opaque('d')],
    ],
    root: ['d'],
  },
  {
    name: 'a whiteout of a tree of symlinks to the outside',
    layers: ({ far, near }) => [[symlink('d/l', far), symlink('d/e/m', `../../${near}`)], [whiteout('d')]],
    root: [],
  },
  {
    name: 'a file over a tree of symlinks to the outside',
    layers: ({ far, near }) => [[symlink('d/l', far), symlink('d/e/m', `../../${near}`)], [file('d', '')]],
    root: ['d'],
  },
  {
    name: 'the root as a symlink',
    layers: ({ far }) => [
      [symlink('.', far), symlink('/', far), symlink('a/..', far), file('secret', 'inside')],
    ],
    root: ['secret'],
  },
  {
    name: "links of /proc to a process's root and folder",
    layers: ({ far }) => [
      [
        symlink('r', '/proc/self/root'),
        symlink('c', '/proc/self/cwd'),
        file(`r${far}/secret`, 'evil'),
        file('c/x', ''),
        symlink('f', '/dev/fd/3'),
        file('f/x', ''),
      ],
    ],
    root: ['c', 'dev', 'f', 'proc', 'r'],
  },
  { name: 'a FIFO as a directory', layers: () => [[fifo('p'), file('p/x', '')]] },
  { name: 'a device as a directory', layers: () => [[character('c', 1, 3), file('c/x', '')]] },
  {
    name: 'a device through a symlink to the outside',
    layers: ({ far }) => [
      [symlink('l', far), block('l/sda', 8, 0), character('l/secret', 1, 3), fifo('l/folder')],
    ],
  },
  {
    name: 'a directory through a dangling symlink to the outside',
    layers: ({ far, near }) => [
      [symlink('l', `${far}/new`), dir('l/x'), symlink('m', `${near}/new`), file('m/x', '')],
    ],
  },
  {
    name: 'a deep tree that climbs out again',
    layers: ({ near }) => [
      [
        file(`${'d/'.repeat(50)}x`, ''),
        file(`${'d/'.repeat(50)}${'../'.repeat(80)}${near.slice(3)}/secret`, 'evil'),
      ],
    ],
  },
  {
    name: 'a symlink with many ..',
    layers: ({ near }) => [[symlink('l', `${'../'.repeat(1000)}${near.slice(3)}`), file('l/secret', 'evil')]],
  },
  {
    name: 'names that JavaScript knows',
    layers: () => [
      [
        file('__proto__/polluted', 'x'),
        file('constructor', 'x'),
        dir('toString'),
        whiteout('hasOwnProperty'),
      ],
    ],
    root: ['__proto__', 'constructor', 'toString'],
  },
  {
    name: 'names that look like ours',
    layers: () => [[dir('.dlrootfs-probe-000000000000'), file('.removed-x', '')], [opaque('')]],
    root: [],
  },
  {
    name: 'a symlink in the place of json',
    layers: ({ far }) => [[symlink('json', `${far}/secret`), symlink('layersize', '../canary/secret')]],
    root: ['json', 'layersize'],
  },
  {
    name: 'attributes of a directory that is a symlink by then',
    layers: ({ far }) => [
      [
        dir('d', { ...loud, xattrs }),
        symlink('d', far),
        dir('e', { mode: 0o2777, mtime: 7 }),
        symlink('e', far),
      ],
    ],
    root: ['d', 'e'],
  },
];

/** Prints every property of a tree, except the times of access. */
function look(directory: string, without: readonly string[] = []): string {
  const more = namesBelow(directory, without).map((name) => {
    const stat = lstatSync(join(directory, name), { bigint: true });
    return `${name} ${stat.nlink} ${stat.ctimeNs}`;
  });
  const { mode, uid, gid, ctimeNs } = lstatSync(directory, { bigint: true });
  return [
    printTree(directory, { without }),
    ...more,
    `${mode} ${uid} ${gid} ${without.length > 0 ? '' : ctimeNs}`,
  ].join('\n');
}

/** Lists a directory recursively. `readdir` with `recursive` would follow symlinks. */
function namesBelow(directory: string, without: readonly string[] = []): string[] {
  const names = readdirSync(directory).filter((name) => !without.includes(name));
  return names.toSorted().flatMap((name) => {
    const inner = join(directory, name);
    const below = lstatSync(inner).isDirectory() ? namesBelow(inner) : [];
    return [name, ...below.map((rest) => `${name}/${rest}`)];
  });
}

function fill(directory: string): void {
  mkdirSync(join(directory, 'folder'), { recursive: true });
  writeFileSync(join(directory, 'secret'), 'secret', { mode: 0o640 });
  writeFileSync(join(directory, 'folder', 'inner'), 'inner', { mode: 0o600 });
  linkSync(join(directory, 'secret'), join(directory, 'second-name'));
  symlinkSync('secret', join(directory, 'link'));
  for (const name of ['secret', 'folder/inner', 'folder']) utimesSync(join(directory, name), 7, 7);
  utimesSync(directory, 7, 7);
}

/** Makes DIR with canaries around it, and a check that they did not change. */
function scene(t: TestContext): { root: string; targets: Targets; check: () => void } {
  const base = temporaryDirectory(t);
  const far = realpathSync(mkdtempSync(join(tmpdir(), 'dlrootfs-canary-')));
  t.after(() => rmSync(far, { recursive: true, force: true }));
  const root = join(base, 'root');
  mkdirSync(root, 0o700);
  mkdirSync(join(base, 'canary'));
  for (const place of [far, join(base, 'canary')]) fill(place);
  const before = [look(far), look(base, ['root'])];
  return {
    root,
    targets: { far, near: '../canary' },
    check: () => assert.deepEqual([look(far), look(base, ['root'])], before),
  };
}

for (const backend of diskBackends) {
  for (const mode of ['stage', 'overlay'] as const) {
    describe(`breakouts, ${backend}, ${mode}`, () => {
      for (const attack of attacks) {
        test(attack.name, (t) => {
          const { root, targets, check } = scene(t);
          const layers = attack.layers(targets).map((items) => tar(...items));
          let failure: Error | undefined;
          try {
            build(root, layers, { backend, mode });
          } catch (error) {
            failure = error as Error;
          }
          check();
          if (attack.error) {
            assert.match(String(failure), attack.error);
            return;
          }
          if (failure !== undefined)
            assert.match(String(failure), /^(IntegrityError|DestinationError): layer \d: [ -~]*$/);
          if (attack.root) {
            assert.equal(failure, undefined);
            if (backend === 'libc' || !/FIFO|device/.test(attack.name))
              assert.deepEqual(readdirSync(root).toSorted(), attack.root);
          }
        });
      }
    });
  }

  test(`links that the user has in DIR do not lead out either, ${backend}`, (t) => {
    const { root, targets, check } = scene(t);
    symlinkSync(targets.far, join(root, 'far'));
    symlinkSync('../canary', join(root, 'near'));
    symlinkSync(join(targets.far, 'secret'), join(root, 'json'));
    const layers = [
      tar(file('far/secret', 'evil', loud), file('near/secret', 'evil', loud), file('x', '')),
      tar(whiteout('far/folder'), opaque('near'), whiteout('far'), hardlink('h', 'near/secret')),
    ];
    assert.throws(() => build(root, layers, { backend, mode: 'overlay' }), /h: cannot link to near\/secret/);
    check();
  });

  test(`our own file leaves a symlink or directory of the user alone and replaces a file, ${backend}`, (t) => {
    const { root, targets, check } = scene(t);
    symlinkSync(join(targets.far, 'secret'), join(root, 'json'));
    writeFileSync(join(root, 'layersize'), 'of an earlier pull');
    const filesystem = openFilesystem(root, backend);
    const run = startRun(filesystem, {
      name: root,
      mode: 'overlay',
    });
    assert.equal(writeOwnFile(run, 'json', Buffer.from('{}')), false);
    assert.equal(writeOwnFile(run, 'layersize', Buffer.from('7')), true);
    filesystem.close();
    check();
    const tree = printTree(root, { text: true, hide: ['time', 'owner', 'mode'] });
    assert.equal(tree, `l json -> ${targets.far}/secret\n- layersize "7"\n`);
  });

  test(`our own file is never written through a symlink, nor over what the image has, ${backend}`, (t) => {
    for (const mode of ['stage', 'overlay'] as const) {
      const { root, targets, check } = scene(t);
      const filesystem = openFilesystem(root, backend);
      const run = startRun(filesystem, { name: root, mode });
      const apply = (...items: Item[]): number =>
        applyLayer(run, new TarReader(source(tar(...items)), 'layer'), 'layer');
      const write = (): boolean => writeOwnFile(run, 'json', Buffer.from('{}'));
      assert.equal(write(), true);
      assert.equal(write(), true);
      apply(symlink('json', `${targets.far}/secret`));
      assert.equal(write(), false);
      apply(whiteout('json'));
      assert.equal(write(), true);
      apply(file('json', 'the image has it'));
      assert.equal(write(), false);
      apply(dir('json'));
      assert.equal(write(), false);
      finishRun(run, undefined);
      filesystem.close();
      check();
      assert.equal(printTree(root, { text: true, hide: ['time', 'owner', 'mode'] }), 'd json/\n');
    }
  });

  if (backend === 'node-paths') continue;
  test(`a directory that another process swaps for a symlink while it is filled, ${backend}`, (t) => {
    const { root, targets, check } = scene(t);
    const swaps: Readonly<Record<string, () => void>> = {
      'd/2': () => {
        renameSync(join(root, 'd'), join(root, 'moved'));
        symlinkSync(targets.far, join(root, 'd'));
      },
      'e/f/2': () => {
        rmSync(join(root, 'e'), { recursive: true });
        symlinkSync(targets.far, join(root, 'e'));
      },
    };
    const items = ['d/1', 'd/2', 'd/secret', 'e/f/1', 'e/f/2', 'e/secret'].map((name) =>
      file(name, 'x', loud),
    );
    interfere(root, backend, tar(dir('d'), ...items, whiteout('d/secret'), dir('d', loud)), swaps);
    check();
  });

  test(`the root is swapped for a symlink while it is filled, ${backend}`, (t) => {
    const { root, targets, check } = scene(t);
    const swaps = {
      '2': () => {
        renameSync(root, join(targets.far, '..', `${root.split('/').at(-2)}-moved`));
        symlinkSync(targets.far, root);
      },
    };
    t.after(() =>
      rmSync(join(targets.far, '..', `${root.split('/').at(-2)}-moved`), { recursive: true, force: true }),
    );
    interfere(
      root,
      backend,
      tar(file('1', ''), file('2', ''), file('secret', 'evil', loud), dir('folder', loud), dir('.', loud)),
      swaps,
    );
    rmSync(root);
    check();
  });
}

/** Applies a layer; each of `swaps` happens before the entry of its name. Failures are ignored. */
function interfere(
  root: string,
  backend: DiskBackend,
  layer: Uint8Array,
  swaps: Readonly<Record<string, () => void>>,
): void {
  const filesystem = openFilesystem(root, backend);
  const run = startRun(filesystem, { name: root, mode: 'stage' });
  run.written.nextLayer();
  const reader = new TarReader(source(layer), 'layer');
  const swapping = {
    next: (): Entry | undefined => {
      const entry = reader.next();
      if (entry) swaps[entry.path]?.();
      return entry;
    },
    data: (): Uint8Array | undefined => reader.data(),
  };
  try {
    applyLayer(run, swapping, 'layer');
    finishRun(run, { mode: 0o755, uid: undefined, gid: undefined });
  } catch (error) {
    assert.match(String(error), /^(IntegrityError|DestinationError): layer/);
  } finally {
    filesystem.close();
  }
}
