import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { tarAs } from '../support/archive.ts';
import { printTree, treeDiff, type TreeOptions } from '../support/tree.ts';
import { backends, build, buildInMemory, isRoot, removeTree } from './harness.ts';
import { Model, type Meta, type Operation } from './model.ts';
import { printMemory } from './print-memory.ts';

const open = [0o755, 0o700, 0o4755, 0o2755, 0o1777, 0o2770, 0o7777];

/** Few names, so that entries conflict. */
const name = fc.constantFrom('a', 'b', 'c', 'a.b', '..x');
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join('/'));
const target = fc.oneof(
  path,
  path.map((text) => `/${text}`),
  fc.constantFrom('..', '/', '../../..', '.', 'a/../b', '../a', '/../c/.', 'nowhere'),
);

const meta = (rich: boolean): fc.Arbitrary<Meta> =>
  fc.record(
    {
      // Files that are closed to their owner can be read only by root.
      mode: fc.constantFrom(...(isRoot ? [...open, 0o644, 0o600, 0o555, 0] : open)),
      uid: isRoot ? fc.constantFrom(0, 0, 5, 4_000_000_000) : fc.constant(process.geteuid!()),
      gid: isRoot ? fc.constantFrom(0, 0, 7) : fc.constant(process.getegid!()),
      mtime: rich
        ? fc.tuple(
            fc.integer({ min: -1_000_000, max: 2_000_000_000 }),
            fc.integer({ min: 0, max: 999_999_999 }),
          )
        : fc.tuple(fc.integer({ min: -1_000_000, max: 2_000_000_000 }), fc.constant(0)),
      xattrs:
        rich && isRoot
          ? fc.constantFrom({}, {}, {}, { 'trusted.a': '1' }, { 'trusted.b': '2', 'trusted.a': '3' })
          : fc.constant({}),
    },
    { noNullPrototype: true },
  );

const operation = (rich: boolean): fc.Arbitrary<Operation> => {
  const files = fc.record({
    kind: fc.constant('file' as const),
    path,
    meta: meta(rich),
    content: fc.constantFrom('', 'x', 'yy'),
  });
  const directories = fc.record({
    kind: fc.constantFrom(...(['directory', 'directory', rich ? 'fifo' : 'directory'] as const)),
    path,
    meta: meta(rich),
  });
  const symlinks = fc.record({ kind: fc.constant('symlink' as const), path, meta: meta(rich), target });
  const hardlinks = fc.record({
    kind: fc.constant('hardlink' as const),
    path,
    meta: meta(false),
    target: path,
  });
  const hidings = fc.record({ kind: fc.constantFrom('whiteout' as const, 'opaque' as const), path });
  return fc.oneof(
    { arbitrary: files, weight: 4 },
    { arbitrary: directories, weight: 3 },
    symlinks,
    { arbitrary: hardlinks, weight: 2 },
    { arbitrary: hidings, weight: 2 },
  );
};

const layers = (rich: boolean): fc.Arbitrary<Operation[][]> =>
  fc.array(fc.array(operation(rich), { maxLength: 25 }), { minLength: 1, maxLength: 4 });

for (const backend of backends) {
  test(`random layers make the tree that the model has, ${backend}`, () => {
    const base = mkdtempSync(join(tmpdir(), 'dlrootfs-test-'));
    const rich = backend === 'libc' || backend === 'memory';
    try {
      fc.assert(
        fc.property(
          layers(rich),
          rich ? fc.constant('pax' as const) : fc.constantFrom('gnu' as const, 'pax' as const),
          fc.constantFrom('stage' as const, 'overlay' as const),
          (operations, dialect, mode) => {
            const model = new Model();
            const archives = operations.map((layer) => tarAs(dialect, ...model.apply(layer)));
            const options: TreeOptions = {
              text: true,
              hide: [...(isRoot ? [] : ['owner' as const]), ...(rich ? [] : ['xattrs' as const])],
            };
            let tree;
            if (backend === 'memory') {
              tree = printMemory(buildInMemory(archives, { mode }).filesystem, options);
            } else {
              const root = join(base, 'root');
              removeTree(root);
              mkdirSync(root);
              const descriptors = readdirSync('/proc/self/fd').length;
              build(root, archives, { backend, mode });
              assert.equal(readdirSync('/proc/self/fd').length, descriptors, 'no descriptor stays open');
              tree = printTree(root, options);
            }
            assert.equal(treeDiff(model.print({ owners: isRoot, xattrs: rich }), tree), '');
          },
        ),
        { numRuns: 100 },
      );
    } finally {
      removeTree(base);
    }
  });
}
