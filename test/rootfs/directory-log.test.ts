import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DirectoryLog } from '../../src/rootfs/directory-notes.ts';

test('a DirectoryLog gives back what was added, in order', () => {
  const record = fc.record(
    {
      path: fc.stringMatching(/^[ab/\u00ff]{0,40}$/),
      mode: fc.option(fc.integer({ min: 0, max: 0o7777 }), { nil: undefined }),
      mtimeSeconds: fc.maxSafeInteger(),
      mtimeNanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.array(record, { maxLength: 200 }), (records) => {
      const log = new DirectoryLog();
      for (const { path, mode, ...mtime } of records) log.add(path, mode, mtime);
      assert.deepEqual([...log], records);
    }),
    { numRuns: 50 },
  );
});

test('a DirectoryLog takes paths longer than its chunks, and many of them', () => {
  const log = new DirectoryLog();
  const paths = Array.from({ length: 50 }, (_, index) => `${index}${'x'.repeat(16_000)}`);
  for (const path of paths) log.add(path, undefined, { mtimeSeconds: 0, mtimeNanoseconds: 0 });
  assert.deepEqual(
    [...log].map(({ path }) => path),
    paths,
  );
});
