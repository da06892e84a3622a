/** Parsers of bytes from a registry: they throw no errors but their own, and accept no changed bytes. */
import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError, UsageError } from '../../src/errors.ts';
import { parseArtifact } from '../../src/oci/artifact.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseBundle, signedManifests } from '../../src/trust/bundle.ts';
import { parseIdentity } from '../../src/trust/identity.ts';
import { isSignedBy, parsePublicKey } from '../../src/trust/keys.ts';
import { reasonFor, Refusal } from '../../src/trust/refusal.ts';
import { keyringOf } from '../../src/trust/gpg.ts';
import { parsePolicy } from '../../src/trust/policy.ts';
import { parseStrictJson } from '../../src/trust/strict-json.ts';
import { parseSimpleSigning } from '../../src/trust/simple-signing.ts';
import {
  keyBundle,
  SIGNATURE_ANNOTATION,
  signedBy,
  signingKey,
  simpleSigning,
  statement,
} from '../support/signatures.ts';
import { runs } from '../support/runs.ts';

const numRuns = runs(200, 5000);
const digest = digestOf(Buffer.from('an image'));
const pair = signingKey();
const key = { name: 'cosign.pub', key: createPublicKey(pair.pem) };

/** Bytes of several kinds: JSON, JSON of the expected members, and noise. */
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc.json().map((text) => Buffer.from(text)),
  fc
    .record(
      {
        critical: fc.jsonValue(),
        layers: fc.jsonValue(),
        subject: fc.jsonValue(),
        mediaType: fc.jsonValue(),
        config: fc.jsonValue(),
        _type: fc.constantFrom('https://in-toto.io/Statement/v1', 1),
        predicateType: fc.constantFrom('https://sigstore.dev/cosign/sign/v1', null),
        verificationMaterial: fc.jsonValue(),
        dsseEnvelope: fc.jsonValue(),
      },
      { requiredKeys: [] },
    )
    .map((value) => Buffer.from(JSON.stringify(value))),
);

/** Returns a text with one byte replaced. */
const changed = (text: string) =>
  fc
    .record({ at: fc.nat(text.length - 1), byte: fc.integer({ min: 0x20, max: 0x7e }) })
    .map(({ at, byte }) => text.slice(0, at) + String.fromCharCode(byte) + text.slice(at + 1))
    .filter((made) => made !== text);

/** A parser may only throw the errors that explain themselves. */
function parses(
  parse: (input: Uint8Array) => unknown,
  kinds: readonly (abstract new (message: string) => unknown)[],
) {
  return fc.property(bytes, (input) => {
    try {
      parse(input);
    } catch (error) {
      assert.ok(
        kinds.some((kind) => error instanceof kind),
        String(error),
      );
      assert.ok(reasonFor(error).length > 0);
    }
  });
}

describe('bytes of any kind', () => {
  const own = [Refusal, DlrootfsError];
  test('as manifest of signatures', () => {
    fc.assert(
      parses((input) => parseArtifact(input, 'it'), own),
      { numRuns },
    );
  });
  test('as payload', () => {
    fc.assert(
      parses((input) => parseSimpleSigning(input, 'cosign container image signature'), own),
      { numRuns },
    );
  });
  test('as statement', () => {
    fc.assert(parses(signedManifests, own), { numRuns });
  });
  test('as bundle, whose library has errors of other kinds', () => {
    fc.assert(parses(parseBundle, [...own, Error]), { numRuns });
  });
  test('as key', () => {
    fc.assert(
      parses((input) => parsePublicKey(Buffer.from(input).toString(), 'it'), [UsageError]),
      { numRuns },
    );
  });
  test('as regular expression', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (text, subject) => {
        try {
          const identity = parseIdentity({
            certificateIdentityRegexp: text,
            certificateOidcIssuer: 'https://example.com',
          });
          identity?.subject.matches(subject);
        } catch (error) {
          assert.ok(error instanceof UsageError);
        }
      }),
      { numRuns },
    );
  });
});

/** Returns 4 MiB of a line. */
const lines = (line: string): string => line.repeat(Math.floor((4 * 1024 * 1024) / line.length));

test('beginnings of keys, and no end: refused in linear time', () => {
  for (const label of ['PUBLIC KEY', 'RSA PRIVATE KEY', '']) {
    const text = lines(`-----BEGIN ${label}-----\n`);
    assert.throws(() => parsePublicKey(text, 'it'), /it has no key in PEM/);
  }
  const armor = '-----BEGIN PGP PUBLIC KEY BLOCK-----\n';
  for (const text of [lines(armor), armor + lines(' \n'), armor + lines('a: b\n'), armor + lines('\n-')])
    assert.equal(keyringOf([Buffer.from(text)]).length, 0);
});

test('a payload of another type does not count, whoever has signed it', () => {
  const cosign = 'cosign container image signature';
  const atomic = 'atomic container signature';
  const payload = simpleSigning(digest);
  assert.deepEqual(parseSimpleSigning(Buffer.from(payload), cosign), {
    digest,
    reference: 'example.com/app',
  });
  for (const [text, type] of [
    [payload, atomic],
    [payload.replace(cosign, atomic), cosign],
    [payload.replace(`"${cosign}"`, 'null'), cosign],
  ] as const)
    assert.throws(() => parseSimpleSigning(Buffer.from(text), type), /its payload is of type .*, not "/);
});

describe('after a change of one byte', () => {
  test('a payload does not count', () => {
    const payload = simpleSigning(digest);
    const signature = Buffer.from(signedBy(pair, payload)[SIGNATURE_ANNOTATION]!, 'base64');
    assert.ok(isSignedBy(key, Buffer.from(payload), signature));
    fc.assert(
      fc.property(changed(payload), (made) => !isSignedBy(key, Buffer.from(made), signature)),
      { numRuns },
    );
  });

  test('a bundle counts only for the same statement', () => {
    const text = statement(digest);
    const whole = keyBundle(pair, text);
    fc.assert(
      fc.property(changed(whole), (made) => {
        let parsed;
        try {
          parsed = parseBundle(Buffer.from(made));
        } catch {
          return;
        }
        if (isSignedBy(key, parsed.signedBytes, parsed.signature))
          assert.equal(Buffer.from(parsed.statement).toString(), text);
      }),
      { numRuns },
    );
  });
});

describe('policies', () => {
  const name = fc.constantFrom(
    'default',
    'transports',
    'docker',
    'oci',
    '/a',
    'type',
    'keyPath',
    'a"b',
    '__proto__',
  );
  const { value } = fc.letrec<{ readonly value: string }>((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom(
        '"reject"',
        '"insecureAcceptAnything"',
        '"sigstoreSigned"',
        'null',
        '1',
        '"{"',
        '"\\""',
      ),
      fc.array(tie('value'), { maxLength: 3 }).map((all) => `[${all.join(' ,')}]`),
      fc
        .array(fc.tuple(name, tie('value')), { maxLength: 4 })
        .map((all) => `{${all.map(([member, each]) => `${JSON.stringify(member)} : ${each}`).join(',')}}`),
    ),
  }));

  test('a member that an object has twice, and nothing else, is refused', () => {
    fc.assert(
      fc.property(value, (text) => {
        // Counts the members of a value. Without double members, all of them are kept.
        const count = (one: unknown): number =>
          one !== null && typeof one === 'object'
            ? Object.values(one).reduce<number>((sum, each) => sum + 1 + count(each), 0)
            : 0;
        const written = text.replaceAll(/"(?:[^"\\]|\\.)*"(?= :)/g, () => '"x"').match(/"x" :/g)?.length ?? 0;
        const members = (one: unknown): number =>
          one !== null && typeof one === 'object'
            ? (Array.isArray(one) ? 0 : Object.keys(one).length) +
              Object.values(one).reduce<number>((sum, each) => sum + members(each), 0)
            : 0;
        const parsed: unknown = JSON.parse(text);
        const isDouble = members(parsed) < written;
        if (isDouble) assert.throws(() => parseStrictJson(Buffer.from(text), 'it'), /twice in one object/);
        else assert.equal(count(parseStrictJson(Buffer.from(text), 'it')), count(parsed));
      }),
      { numRuns },
    );
  });

  test('noise is an error with a reason', () => {
    const noise = fc.oneof(
      bytes,
      value.map((text) => Buffer.from(`{"default":${text},"transports":{"docker":${text}}}`)),
    );
    fc.assert(
      fc.property(noise, (input) => {
        try {
          parsePolicy(input);
        } catch (error) {
          assert.ok(error instanceof Error && !(error instanceof TypeError), String(error));
          assert.match(error.message, / /);
        }
        keyringOf([input]);
      }),
      { numRuns },
    );
  });
});
