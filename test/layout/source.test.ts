import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { formatSource, parseSource } from '../../src/layout/local-source.ts';

const sources: readonly (readonly [string, string, string, string | undefined])[] = [
  ['oci:dir', 'oci', 'dir', undefined],
  ['oci:/x:y', 'oci', '/x', 'y'],
  ['oci:1.0', 'oci', '1.0', undefined],
  ['oci:./a/b:v1.2', 'oci', './a/b', 'v1.2'],
  ['oci:dir:@1', 'oci', 'dir', '@1'],
  ['oci:dir:a/b:c', 'oci', 'dir', 'a/b:c'],
  ['oci-archive:x.tar', 'oci-archive', 'x.tar', undefined],
  ['oci-archive:x.tar:t', 'oci-archive', 'x.tar', 't'],
  ['docker-archive:x.tar', 'docker-archive', 'x.tar', undefined],
  ['docker-archive:x.tar:alpine', 'docker-archive', 'x.tar', 'alpine'],
  ['docker-archive:/a b.tar:h.io:5000/a/b:c', 'docker-archive', '/a b.tar', 'h.io:5000/a/b:c'],
  ['docker-archive:x.tar:@0', 'docker-archive', 'x.tar', '@0'],
  ['-', 'stdin', '', undefined],
  ['-:v1', 'stdin', '', 'v1'],
];

for (const [text, transport, path, image] of sources) {
  test(`${text} is a source`, () => {
    const source = parseSource(text)!;
    assert.deepEqual([source.transport, source.path, source.image], [transport, path, image]);
    assert.equal(formatSource(source), text);
  });
}

for (const text of [
  'alpine',
  'oci',
  'oci/x:1',
  'library/oci:1.0',
  'h.io/oci:1',
  'docker-archive',
  'ocix:1',
  'OCI:x',
  '--',
  '-x',
  '',
]) {
  test(`${JSON.stringify(text)} is no source but a reference, good or bad`, () =>
    assert.equal(parseSource(text), undefined));
}

for (const text of ['oci:', 'oci::tag', 'oci-archive:', 'docker-archive::x', 'oci:dir:', '-:', 'oci:a\0b']) {
  test(`${JSON.stringify(text)} is a usage error`, () => assert.throws(() => parseSource(text), UsageError));
}

test('any text is a source, a reference or a usage error', () => {
  const text = fc.tuple(
    fc.constantFrom('', 'oci:', 'oci-archive:', 'docker-archive:', '-'),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(text, ([transport, rest]) => {
      try {
        const source = parseSource(transport + rest);
        if (source !== undefined) assert.equal(formatSource(source), transport + rest);
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
      }
    }),
  );
});
