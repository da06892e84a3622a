import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { Glob } from '../../src/rootfs/glob.ts';
import { missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';
import { HANG } from '../support/hang.ts';

const cases: readonly (readonly [pattern: string, matching: readonly string[], others: readonly string[]])[] =
  [
    ['*.pyc', ['a.pyc', 'x/y/.pyc'], ['a.py', 'a.pyc/x']],
    ['usr/share/doc', ['usr/share/doc'], ['share/doc', 'x/usr/share/doc', 'usr/share/doc/x']],
    ['/etc', ['etc'], ['x/etc']],
    ['etc/', ['etc/', 'x/etc/'], ['etc']],
    ['usr/share/man/**', ['usr/share/man/x', 'usr/share/man/x/y'], ['usr/share/man/']],
    ['usr/**/x', ['usr/x', 'usr/a/b/x'], ['x', 'usr/xx']],
    ['**', ['a', 'a/b'], []],
    ['[a-c]?[!x]', ['bzy', 'x/cée'], ['dzy', 'bzx', 'by']],
    [String.raw`\*`, ['*'], ['a']],
    [String.raw`\!a`, ['!a'], ['a']],
    ['[', ['['], ['a']],
    ['[]]', [']'], ['[']],
    ['\u{1f600}?', ['\u{1f600}\u{1f601}'], ['\u{1f600}', '\u{1f600}ab']],
  ];

for (const [pattern, matching, others] of cases) {
  test(`glob: ${pattern}`, () => {
    const glob = new Glob(pattern);
    const matches = (path: string): boolean => glob.matches(path.replace(/\/$/, ''), path.endsWith('/'));
    assert.deepEqual(matching.filter(matches), matching);
    assert.deepEqual(others.filter(matches), []);
  });
}

for (const pattern of ['', '/', './/', 'a/../b', '!etc'])
  test(`glob: "${pattern}" matches nothing, and says so`, () => {
    assert.throws(() => new Glob(pattern), UsageError);
  });

test('glob: no pattern takes long', () => {
  const glob = new Glob(`${'**/*a*'.repeat(1)}${'/**/*a*b*c*'.repeat(20)}`);
  const begin = performance.now();
  assert.equal(glob.matches(Array.from({ length: 4000 }, () => 'abab').join('/'), false), false);
  assert.ok(performance.now() - begin < HANG);
});

const git = (...words: readonly string[]) => ['--git-dir', '../git', '--work-tree', '.', ...words];

test('glob: as git says, for what git is told to ignore', { skip: missing('git') }, () => {
  using scratch = new Scratch();
  const names = fc.constantFrom('a', 'b', 'ab', 'ba', 'a-b', 'abc');
  const paths = fc.array(names, { minLength: 1, maxLength: 4 }).map((list) => list.join('/'));
  const level = fc.constantFrom('a', 'b', '*', '?', '**', 'a*', '*b', '[ab]', '[!a]b', 'a?', 'ab*c');
  const patterns = fc
    .tuple(fc.boolean(), fc.array(level, { minLength: 1, maxLength: 4 }), fc.boolean())
    .map(([rooted, levels, directory]) => `${rooted ? '/' : ''}${levels.join('/')}${directory ? '/' : ''}`);
  mkdirSync(scratch.join('work'));
  assert.equal(spawnSync('git', git('init', '-q'), { cwd: scratch.join('work') }).status, 0);
  fc.assert(
    fc.property(patterns, fc.array(paths, { minLength: 1, maxLength: 30 }), (pattern, list) => {
      writeFileSync(scratch.join('git/info/exclude'), `${pattern}\n`);
      const { stdout } = spawnSync('git', git('check-ignore', '--no-index', '-z', '--stdin'), {
        cwd: scratch.join('work'),
        input: list.map((path) => `${path}\0`).join(''),
        encoding: 'utf8',
      });
      const ignored = new Set(stdout.split('\0'));
      const glob = new Glob(pattern);
      const isIgnored = (path: string): boolean =>
        path.split('/').some((_, n, all) => glob.matches(all.slice(0, n + 1).join('/'), n + 1 < all.length));
      for (const path of list) assert.equal(isIgnored(path), ignored.has(path), `${pattern} ${path}`);
    }),
    { numRuns: 60 },
  );
});
