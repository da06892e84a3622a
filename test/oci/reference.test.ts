import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { Reference } from '../../src/oci/reference.ts';
import { HANG } from '../support/hang.ts';

const hex = 'a'.repeat(64);
const digest = `sha256:${hex}`;
const label63 = 'a'.repeat(63);

/** Columns: text, registry, repository, tag, digest, printed form. */
const good: readonly (readonly [string, string, string, string | undefined, string | undefined, string])[] = [
  ['alpine', 'docker.io', 'library/alpine', 'latest', undefined, 'library/alpine:latest'],
  ['alpine:3.20', 'docker.io', 'library/alpine', '3.20', undefined, 'library/alpine:3.20'],
  ['library/alpine', 'docker.io', 'library/alpine', 'latest', undefined, 'library/alpine:latest'],
  ['docker.io/alpine', 'docker.io', 'library/alpine', 'latest', undefined, 'library/alpine:latest'],
  ['docker.io/library/alpine', 'docker.io', 'library/alpine', 'latest', undefined, 'library/alpine:latest'],
  ['index.docker.io/alpine', 'docker.io', 'library/alpine', 'latest', undefined, 'library/alpine:latest'],
  ['registry-1.docker.io/a/b:c', 'docker.io', 'a/b', 'c', undefined, 'a/b:c'],
  ['progrium/busybox', 'docker.io', 'progrium/busybox', 'latest', undefined, 'progrium/busybox:latest'],
  ['a/b/c', 'docker.io', 'a/b/c', 'latest', undefined, 'a/b/c:latest'],
  [
    'my-org/my__app.x_y---z',
    'docker.io',
    'my-org/my__app.x_y---z',
    'latest',
    undefined,
    'my-org/my__app.x_y---z:latest',
  ],
  ['myhost:5000', 'docker.io', 'library/myhost', '5000', undefined, 'library/myhost:5000'],
  ['docker.io/localhost/x', 'docker.io', 'localhost/x', 'latest', undefined, 'docker.io/localhost/x:latest'],
  ['docker.io/a.b/c', 'docker.io', 'a.b/c', 'latest', undefined, 'docker.io/a.b/c:latest'],
  ['localhost/x', 'localhost', 'x', 'latest', undefined, 'localhost/x:latest'],
  ['localhost:5000/ns/x:t', 'localhost:5000', 'ns/x', 't', undefined, 'localhost:5000/ns/x:t'],
  ['127.0.0.1:5000/x', '127.0.0.1:5000', 'x', 'latest', undefined, '127.0.0.1:5000/x:latest'],
  ['ghcr.io/a/b', 'ghcr.io', 'a/b', 'latest', undefined, 'ghcr.io/a/b:latest'],
  ['[::1]:5000/x', '[::1]:5000', 'x', 'latest', undefined, '[::1]:5000/x:latest'],
  ['[2001:db8::1]/x:y', '[2001:db8::1]', 'x', 'y', undefined, '[2001:db8::1]/x:y'],
  ['Uppercase/x', 'Uppercase', 'x', 'latest', undefined, 'Uppercase/x:latest'],
  ['xn--n3h.com/myimage', 'xn--n3h.com', 'myimage', 'latest', undefined, 'xn--n3h.com/myimage:latest'],
  [`alpine@${digest}`, 'docker.io', 'library/alpine', undefined, digest, `library/alpine@${digest}`],
  [`alpine:3@${digest}`, 'docker.io', 'library/alpine', '3', digest, `library/alpine@${digest}`],
  [`h.io:1/a/b:t@${digest}`, 'h.io:1', 'a/b', 't', digest, `h.io:1/a/b@${digest}`],
  [
    `x@sha512:${hex}${hex}`,
    'docker.io',
    'library/x',
    undefined,
    `sha512:${hex}${hex}`,
    `library/x@sha512:${hex}${hex}`,
  ],
  [`library/${hex}`, 'docker.io', `library/${hex}`, 'latest', undefined, `library/${hex}:latest`],
  [
    `x:${'t'.repeat(128)}`,
    'docker.io',
    'library/x',
    't'.repeat(128),
    undefined,
    `library/x:${'t'.repeat(128)}`,
  ],
  ['x:_T.a-1', 'docker.io', 'library/x', '_T.a-1', undefined, 'library/x:_T.a-1'],
  [`${label63}.io/x`, `${label63}.io`, 'x', 'latest', undefined, `${label63}.io/x:latest`],
];

for (const [text, registry, repository, tag, wanted, printed] of good) {
  test(`${text.slice(0, 60)} is understood`, () => {
    const reference = Reference.parse(text);
    assert.deepEqual(
      [reference.registry, reference.repository, reference.tag, reference.digest],
      [registry, repository, tag, wanted],
    );
    assert.equal(Reference.format(reference), printed);
  });
}

test('the name has no tag, and no domain on Docker Hub', () => {
  assert.equal(Reference.name(Reference.parse('ubuntu:14.04')), 'library/ubuntu');
  assert.equal(Reference.name(Reference.parse('localhost:5000/a/b:1')), 'localhost:5000/a/b');
});

/** Columns: text, pattern of the message, pattern of the hint. */
const bad: readonly (readonly [string, RegExp, RegExp?])[] = [
  ['', /it is empty/, /alpine/],
  [hex, /64 hex digits are an image id/, /NAME@sha256:/],
  ['https://quay.io/a/b', /starts with "https:\/\/"/, /without: quay\.io\/a\/b/],
  ['Alpine', /"Alpine" must be lowercase/, /as alpine/],
  ['foo/Bar:T', /"foo\/Bar" must be lowercase/, /as foo\/bar/],
  ['a'.repeat(256), /has 256 characters, 255/],
  [`h.io/${'a/'.repeat(128)}a`, /has 257 characters, 255/],
  ['a..b', /bad part "a\.\.b"/],
  ['a___b', /bad part "a___b"/],
  ['-a', /bad part "-a"/],
  ['a-', /bad part "a-"/],
  ['a b', /bad part "a b"/],
  ['a//b', /part of the repository name is empty/],
  ['/a', /part of the repository name is empty/],
  ['a/', /part of the repository name is empty/],
  ['localhost/', /repository name is empty/],
  ['h.io:5000/', /repository name is empty/],
  ['[::1]:5000', /repository name is empty/, /\[::1\]:5000\/NAME/],
  ['.', /bad part/],
  ['h..io/x', /bad registry "h\.\.io"/],
  ['-h.io/x', /bad registry/],
  ['h.io:/x', /bad registry/],
  ['h.io:port/x', /bad registry/],
  ['h.io:65536/x', /ports end at 65535/],
  ['[::1/x', /bad registry/],
  ['1.2.3.4.5/x', /bad registry "1\.2\.3\.4\.5": no URL/],
  ['127.0.0.27.0.0.1:5000/x', /bad registry/],
  ['999.1.1.1/x', /bad registry/],
  ['[fe80::1%eth0]/x', /bad registry/],
  ['alpine:', /nothing follows the ":"/, /latest/],
  ['alpine:-x', /bad tag "-x"/],
  ['alpine:a b', /bad tag/],
  ['x:5000:1', /bad tag "5000:1"/],
  [`alpine:${'t'.repeat(129)}`, /129 characters, 128/],
  ['alpine@', /nothing follows the "@"/],
  ['alpine@sha256:abc', /bad digest "sha256:abc".*exactly 64/],
  [`alpine@sha256:${hex.toUpperCase()}`, /lower case/],
  [`alpine@md5:${'a'.repeat(32)}`, /algorithm "md5" is unknown/],
  [`alpine@${digest}@${digest}`, /bad digest/],
  ['al\u001bpine', /\\x1b/],
  ['alpine\n', /\\x0a/],
  ['é', /bad part/],
];

for (const [text, message, hint] of bad) {
  test(`${JSON.stringify(text.slice(0, 60))} is refused with the reason`, () => {
    assert.throws(
      () => Reference.parse(text),
      (error) => {
        assert.ok(error instanceof UsageError);
        assert.equal(error.code, 'INVALID_REFERENCE');
        assert.match(error.message, message);
        if (hint !== undefined) assert.match(error.hint ?? '', hint);
        return true;
      },
    );
  });
}

for (const text of [
  'user:secret@registry.io/x',
  'https://user:secret@registry.io/x',
  'user:sec@ret@registry.io/x:1',
  'user:secret@registry.io:5000',
]) {
  test(`a password before a registry is not repeated: ${text.replaceAll(/sec@?ret/g, '…')}`, () => {
    assert.throws(
      () => Reference.parse(text),
      (error) => error instanceof UsageError && !`${error.message} ${error.hint}`.includes('sec'),
    );
  });
}

test('any text is a reference whose parts obey the grammar, or a UsageError', () => {
  const pieces = fc.array(
    fc.oneof(
      fc.constantFrom('/', ':', '@', '.', '-', '_', '[', ']', 'a', 'A', '0', 'localhost', digest, 'h.io:5'),
      fc.string(),
    ),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(
      fc.oneof(
        pieces.map((parts) => parts.join('')),
        fc.string({ unit: 'binary' }),
      ),
      (text) => {
        try {
          const reference = Reference.parse(text);
          assert.match(reference.repository, /^[a-z0-9._-]+(\/[a-z0-9._-]+)*$/);
          assert.match(reference.registry, /^[A-Za-z0-9.:[\]-]+$/);
          assert.ok(reference.tag !== undefined || reference.digest !== undefined);
          assert.deepEqual(
            Reference.parse(Reference.format(reference)),
            reference.digest === undefined ? reference : without(reference),
          );
        } catch (error) {
          if (!(error instanceof UsageError)) throw error;
        }
      },
    ),
    { numRuns: 2000 },
  );
});

/** Returns the reference as it is after printing: with a digest, the tag is dropped. */
function without({ registry, repository, digest: kept }: Reference): Reference {
  return { registry, repository, digest: kept };
}

test('very long input is answered at once', () => {
  const started = performance.now();
  for (const text of [
    'a-'.repeat(100_000),
    `${'a.'.repeat(100_000)}/x`,
    `x:${'1'.repeat(1e6)}`,
    'a/'.repeat(200_000),
  ]) {
    assert.throws(() => Reference.parse(text), UsageError);
  }
  assert.ok(performance.now() - started < HANG);
});
