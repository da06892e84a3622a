import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { IntegrityError } from '../../src/errors.ts';
import type { BytePath } from '../../src/tar/entry.ts';
import { classify, normalize } from '../../src/tar/layer-path.ts';

const bytes = (text: string): BytePath => text as BytePath;

describe('normalize', () => {
  const table: [path: string, normal: string][] = [
    ['', ''],
    ['.', ''],
    ['./', ''],
    ['/', ''],
    ['//', ''],
    ['..', ''],
    ['../..', ''],
    ['etc', 'etc'],
    ['etc/', 'etc'],
    ['./etc/motd', 'etc/motd'],
    ['/etc/motd', 'etc/motd'],
    ['etc//motd', 'etc/motd'],
    ['etc/./motd', 'etc/motd'],
    ['a/../b', 'b'],
    ['a/b/../../c', 'c'],
    ['../../etc/passwd', 'etc/passwd'],
    ['/../etc', 'etc'],
    ['a/..', ''],
    ['..foo', '..foo'],
    ['...', '...'],
    ['.a', '.a'],
    ['a/.', 'a'],
    ['a/..b/c', 'a/..b/c'],
    ['a\\..\\b', 'a\\..\\b'],
    ['caf\xe9/\xff', 'caf\xe9/\xff'],
    ['a b\n/c', 'a b\n/c'],
  ];
  for (const [path, normal] of table) {
    it(`${JSON.stringify(path)} is ${JSON.stringify(normal)}`, () =>
      assert.equal(normalize(bytes(path)), normal));
  }

  it('of anything is a fixed point without dot segments', () => {
    const segment = fc.constantFrom('', '.', '..', 'a', '.a', '..a', '...', 'b', '\xff');
    fc.assert(
      fc.property(fc.array(segment), (segments) => {
        const normal = normalize(bytes(segments.join('/')));
        assert.equal(normalize(normal), normal);
        if (normal !== '') {
          for (const part of normal.split('/')) assert.ok(!['', '.', '..'].includes(part));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('classify', () => {
  const table: [path: string, kind: string, result: string][] = [
    ['etc/motd', 'entry', 'etc/motd'],
    ['./', 'entry', ''],
    ['etc/.wh.foo', 'whiteout', 'etc/foo'],
    ['.wh.foo', 'whiteout', 'foo'],
    ['./.wh.foo/', 'whiteout', 'foo'],
    ['/a/../.wh.foo', 'whiteout', 'foo'],
    ['../.wh.foo', 'whiteout', 'foo'],
    ['.wh..foo', 'whiteout', '.foo'],
    ['.wh....', 'whiteout', '...'],
    ['.wh.\xe9', 'whiteout', '\xe9'],
    ['etc/.wh.a.wh.b', 'whiteout', 'etc/a.wh.b'],
    ['.wh..wh..opq', 'opaque', ''],
    ['etc/.wh..wh..opq', 'opaque', 'etc'],
    ['etc/ssl/.wh..wh..opq', 'opaque', 'etc/ssl'],
    ['.wh..wh.aufs', 'aufs', '.wh..wh.aufs'],
    ['.wh..wh.plnk', 'aufs', '.wh..wh.plnk'],
    ['.wh..wh.plnk/', 'aufs', '.wh..wh.plnk'],
    ['.wh..wh.plnk/123.456', 'aufs', '.wh..wh.plnk/123.456'],
    ['.wh..wh.orph/.wh.x', 'aufs', '.wh..wh.orph/.wh.x'],
    ['a/.wh..wh.plnk/b', 'aufs', 'a/.wh..wh.plnk/b'],
    ['.wh..wh..opq/b', 'aufs', '.wh..wh..opq/b'],
    ['.wh..wh..opqx', 'aufs', '.wh..wh..opqx'],
    ['a.wh.b', 'entry', 'a.wh.b'],
    ['a.wh./b', 'entry', 'a.wh./b'],
    ['.wh', 'entry', '.wh'],
    ['.WH.foo', 'entry', '.WH.foo'],
    ['.wh.foo/..', 'entry', ''],
    ['.wh.foo/../bar', 'entry', 'bar'],
    ['.wh.foo/bar', 'entry', '.wh.foo/bar'],
    ['a/.wh.foo/b/.wh.c', 'whiteout', 'a/.wh.foo/b/c'],
    ['.wh.foo/.wh..wh..opq', 'opaque', '.wh.foo'],
  ];
  for (const [path, kind, result] of table) {
    it(`${JSON.stringify(path)} is ${kind} ${JSON.stringify(result)}`, () =>
      assert.deepEqual(classify(bytes(path)), { kind, path: result }));
  }

  for (const path of ['.wh.', 'etc/.wh.', '.wh..', '.wh...', 'a/b/.wh...', '/.wh../', '.wh.foo/.wh...']) {
    it(`refuses ${path}`, () => assert.throws(() => classify(bytes(path)), IntegrityError));
  }
});
