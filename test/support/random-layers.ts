import fc from 'fast-check';
import {
  character,
  dir,
  fifo,
  file,
  hardlink,
  opaque,
  sparse,
  symlink,
  whiteout,
  type Item,
  type Metadata,
} from './archive.ts';

const names = fc.constantFrom(
  'a',
  'b',
  'c',
  'a/b',
  'a/c',
  'b/a',
  'a/b/c',
  'c/a',
  'a-b',
  'a/b-c',
  './a',
  'c/../b',
  '\xe9',
  '',
  '.wh.a/b',
  '.wh..wh.plnk/1',
  '.wh..wh.plnk/1',
);
const targets = fc.oneof(
  names,
  fc.constantFrom('/a', '../b', '../../a/b', '/', '..', 'a/../c', '/missing/x', '.'),
);
const metadata: fc.Arbitrary<Metadata> = fc.record({
  mode: fc.constantFrom(0o755, 0o644, 0o4755, 0o1777, 0o500, 0),
  uid: fc.constantFrom(0, 1, 1000, 0xffff_fffe),
  gid: fc.constantFrom(0, 5, 0xffff_fffe),
  mtime: fc.tuple(fc.integer({ min: -1000, max: 2 ** 31 }), fc.nat(999_999_999)),
});
const xattrs: fc.Arbitrary<Metadata> = fc.record(
  { xattrs: fc.dictionary(fc.constantFrom('user.a', 'user.b'), fc.string({ minLength: 1, maxLength: 5 })) },
  { requiredKeys: [] },
);
const content = fc.oneof(
  fc.string({ maxLength: 5 }),
  fc.nat(3000).map((length) => 'x'.repeat(length)),
);

/** Returns the item with the text that a failing property prints. */
function said(item: Item, ...words: readonly (string | number | undefined)[]): Item {
  const told = words.map((word) => (word === undefined ? '' : JSON.stringify(word))).join(' ');
  return Object.assign({ ...item }, { [fc.toStringMethod]: () => told });
}

const item: fc.Arbitrary<Item> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(names, content, metadata, xattrs)
      .map(([name, text, own, more]) => said(file(name, text, { ...own, ...more }), 'file', name)),
  },
  { weight: 3, arbitrary: fc.tuple(names, metadata).map(([name, own]) => said(dir(name, own), 'dir', name)) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(names, targets, metadata)
      .map(([name, target, own]) => said(symlink(name, target, own), 'symlink', name, target)),
  },
  {
    weight: 3,
    arbitrary: fc
      .tuple(names, names, metadata, xattrs)
      .map(([name, target, own, more]) =>
        said(hardlink(name, target, { ...own, ...more }), 'link', name, target),
      ),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(names, metadata).map(([name, own]) => said(fifo(name, own), 'fifo', name)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(names, metadata)
      .map(([name, own]) => said(character(name, 1, 3, own), 'device', name)),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(names, fc.nat(5000), metadata).map(([name, hole, own]) => {
      const parts = [
        [0, 'start'],
        [hole + 10, 'end'],
      ] as const;
      return said(sparse(name, hole + 600, parts, '1.0', own), 'sparse', name);
    }),
  },
  { weight: 3, arbitrary: names.map((name) => said(whiteout(name), 'whiteout', name)) },
  {
    weight: 2,
    arbitrary: fc.oneof(names, fc.constant('')).map((name) => said(opaque(name), 'opaque', name)),
  },
  { weight: 1, arbitrary: metadata.map((own) => said(dir('./', own), 'root')) },
);
/** Layers of an image with all kinds of conflicts: names that collide, climb, or hide each other. */
export const randomLayers: fc.Arbitrary<Item[][]> = fc.array(fc.array(item, { maxLength: 8 }), {
  minLength: 1,
  maxLength: 4,
});
