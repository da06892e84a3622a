import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PathSet } from '../../src/rootfs/path-set.ts';

test('a PathSet answers as a Set of strings does', () => {
  const names = fc.array(fc.stringMatching(/^[ab/\u00ff]{0,6}$/), { maxLength: 300 });
  fc.assert(
    fc.property(names, names, (added, asked) => {
      const set = new PathSet();
      const model = new Set<string>();
      for (const name of added) {
        assert.equal(set.add(name), !model.has(name));
        model.add(name);
      }
      assert.equal(set.size, model.size);
      for (const name of [...added, ...asked]) assert.equal(set.has(name), model.has(name));
      set.clear();
      assert.equal(set.size, 0);
      for (const name of added) assert.equal(set.has(name), false);
    }),
    { numRuns: 50 },
  );
});

test('a PathSet tells 200,000 similar paths apart', () => {
  const set = new PathSet();
  for (let index = 0; index < 200_000; index += 1) assert.ok(set.add(`usr/share/doc/${index}`));
  for (let index = 0; index < 200_000; index += 1) assert.ok(!set.has(`usr/share/doc/${index}x`));
  assert.equal(set.size, 200_000);
});
