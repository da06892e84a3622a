import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError, IntegrityError } from '../../src/errors.ts';
import { DiffID, Digest, algorithmOf, digestOf, hexOf, verifyDigest } from '../../src/oci/digest.ts';

const emptyHash = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

test('a digest is computed, taken apart and verified', () => {
  const digest = digestOf(new Uint8Array());
  assert.equal(digest, emptyHash);
  assert.equal(hexOf(digest), emptyHash.slice(7));
  assert.equal(algorithmOf(digest), 'sha256');
  const long = digestOf(Buffer.from('x'), 'sha512');
  assert.equal(algorithmOf(long), 'sha512');
  assert.equal(hexOf(long).length, 128);
  verifyDigest(Buffer.from('x'), long, 'x');
  verifyDigest(new Uint8Array(), digest, 'nothing');
});

test('a mismatch names what it is of, what was found and what was wanted', () => {
  assert.throws(
    () => verifyDigest(Buffer.from('x'), Digest.parse(emptyHash), 'the config of a/b:1'),
    (error) =>
      error instanceof IntegrityError &&
      error.code === 'DIGEST_MISMATCH' &&
      error.message.includes('the config of a/b:1') &&
      error.message.includes(emptyHash) &&
      error.message.includes('sha256:2d711642'),
  );
});

const hex = 'a'.repeat(64);
const wrong: readonly (readonly [string, unknown, RegExp])[] = [
  ['nothing', undefined, /missing/],
  ['a number', 7, /missing or not a string/],
  ['an empty string', '', /algorithm:hex/],
  ['no algorithm', `:${hex}`, /algorithm:hex/],
  ['no colon', hex, /algorithm:hex/],
  ['an algorithm nobody knows', `md5:${hex}`, /algorithm "md5" is unknown; sha256 and sha512/],
  ['an algorithm that every object has', `constructor:${hex}`, /unknown/],
  ['upper case', `sha256:${hex.toUpperCase()}`, /lower case/],
  ['too few digits', 'sha256:abc', /exactly 64/],
  ['too many digits', `sha256:${hex}a`, /exactly 64/],
  ['sha512 with the length of sha256', `sha512:${hex}`, /exactly 128/],
  ['a path', `sha256:../../${'a'.repeat(58)}`, /exactly 64/],
  ['a path behind a digit', `sha256:a/../${'a'.repeat(59)}`, /exactly 64/],
  ['a line break at the end', `sha256:${hex}\n`, /exactly 64/],
  ['control characters', `sha256:\u001b[31m`, /\\x1b/],
];

for (const [name, text, pattern] of wrong) {
  test(`${name} is no digest and no diffID`, () => {
    assert.throws(() => Digest.parse(text, 'it'), { name: 'IntegrityError', message: pattern });
    assert.throws(() => DiffID.parse(text, 'it'), { name: 'IntegrityError', message: pattern });
  });
}

test('any text is a digest or an IntegrityError', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ unit: 'binary' }), fc.stringMatching(/^sha(256|512):[0-9a-fA-F]*$/)),
      (text) => {
        try {
          assert.match(Digest.parse(text), /^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$/);
        } catch (error) {
          if (!(error instanceof DlrootfsError)) throw error;
        }
      },
    ),
  );
});
