import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError } from '../../src/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { describeSchema1 } from '../../src/oci/image.ts';
import { parseManifest } from '../../src/oci/manifest.ts';
import { MediaType } from '../../src/oci/media-types.ts';
import { parseSchema1 } from '../../src/oci/schema1.ts';

/** The response of Debian's docker-registry 2.8.3 for an image of two layers and two empty steps. */
const served = await readFile(new URL('fixtures/schema1-signed.prettyjws', import.meta.url));
const servedDigest = 'sha256:1848204722bddeae945e3ba4a7d9d0fcc5045f16e2384e75bcdc2a1518342cb3';

const empty = 'sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4';
const blob = (digit: string): string => `sha256:${digit.repeat(64)}`;
const id = (digit: string): string => digit.repeat(64);

type Step = readonly [blobSum: string, json: unknown];

/** The newest layer is first, as in the manifest. */
function document(...steps: readonly Step[]): Record<string, unknown> {
  return {
    schemaVersion: 1,
    name: 'a/b',
    tag: 't',
    architecture: 'amd64',
    fsLayers: steps.map(([blobSum]) => ({ blobSum })),
    history: steps.map(([, json]) => ({
      v1Compatibility: typeof json === 'string' ? json : JSON.stringify(json),
    })),
  };
}

const bytesOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

const base: Step = [blob('1'), { id: id('a'), os: 'linux', architecture: 'amd64' }];
const middle: Step = [
  blob('2'),
  { id: id('b'), parent: id('a'), container_config: { Cmd: ['/bin/sh', '-c', 'x'] } },
];
const top: Step = [
  empty,
  { id: id('c'), parent: id('b'), os: 'linux', architecture: 'arm', config: { Cmd: ['sh'] } },
];

test('the digest of a signed manifest is that of its signed part', () => {
  const manifest = parseManifest(served, MediaType.schema1Signed);
  parseManifest(served, MediaType.schema1Signed, 'it', digestOf(manifest.payload));
  assert.equal(digestOf(manifest.payload), servedDigest);
  assert.notEqual(digestOf(served), servedDigest);
});

test('the layers come base first, without the empty ones, with the ids of registry v1', () => {
  const image = describeSchema1(parseSchema1(served, '', 'it'));
  assert.equal(image.id, 'ca7ab2eed82ad6867763fa66c62c0f97c058e77a27839d898c7d10e1ac5a4ffe');
  assert.deepEqual(
    image.layers.map((layer) => [layer.id.slice(0, 6), layer.digest.slice(0, 13), layer.createdBy]),
    [
      ['87b397', 'sha256:855402', 'ADD base'],
      ['7839bc', 'sha256:f14987', 'COPY other'],
    ],
  );
  assert.equal(image.layers[0]!.info['id'], image.layers[0]!.id);
  assert.equal(image.layers[1]!.info['id'], image.id);
  assert.deepEqual(image.config.config.Cmd, ['/bin/sh']);
  assert.equal(image.platform.architecture, 'amd64');
});

test('an unsigned manifest is its own payload', () => {
  const body = bytesOf(document(top, middle, base));
  const manifest = parseManifest(body, MediaType.schema1);
  assert.deepEqual(manifest.payload, body);
  assert.equal(manifest.kind, 'schema1');
  assert.deepEqual(
    manifest.entries.map((entry) => [entry.id[0], entry.empty]),
    [
      ['a', false],
      ['b', false],
      ['c', true],
    ],
  );
  assert.equal(describeSchema1(manifest).layers[1]!.createdBy, '/bin/sh -c x');
});

test('of an id that stands twice in a row the older entry counts', () => {
  const again: Step = [blob('3'), { id: id('b'), parent: id('a') }];
  const { entries } = parseSchema1(bytesOf(document(top, again, middle, base)), '', 'it');
  assert.deepEqual(
    entries.map((entry) => entry.blob[7]),
    ['1', '2', 'a'],
  );
});

const refused: readonly (readonly [string, unknown, RegExp])[] = [
  ['no layers', document(), /no layers/],
  ['more layers than history', { ...document(base, base), history: [] }, /2 layers but a history of 0/],
  ['no history', { ...document(base), history: undefined }, /"history" of .* is not an array/],
  ['another schemaVersion', { ...document(base), schemaVersion: 2 }, /schemaVersion other than 1/],
  ['a base with a parent', document(middle), /names the parent b*a+, expected none/],
  ['a gap in the chain', document(top, base), /names the parent b+, expected a+/],
  ['a missing parent', document([blob('2'), { id: id('b') }], base), /names no parent, expected a+/],
  [
    'an id in two places',
    document([blob('3'), { id: id('a'), parent: id('b') }], middle, base),
    /a+ more than once/,
  ],
  ['an id that is no id', document([blob('1'), { id: '../x' }]), /no id of 64 hex digits/],
  ['no id', document([blob('1'), {}]), /no id/],
  ['a history that is no JSON', document([blob('1'), '{']), /v1Compatibility of it is not valid JSON/],
  ['a history nested deep', document([blob('1'), '['.repeat(1000)]), /nested/],
  [
    'a history of many values in all',
    document(
      [blob('2'), { id: id('b'), parent: id('a'), x: Array.from({ length: 150_000 }, () => 0) }],
      [blob('1'), { id: id('a'), x: Array.from({ length: 150_000 }, () => 0) }],
    ),
    /has more than 200000 values/,
  ],
  ['a blob without digest', document(['x', { id: id('a') }]), /blobSum of it "x" is malformed/],
];

for (const [name, body, message] of refused) {
  test(`${name} is refused`, () => {
    assert.throws(() => parseSchema1(bytesOf(body), '', 'it'), { name: 'IntegrityError', message });
  });
}

type Format = Readonly<Record<string, unknown>>;
const same = (format: Format): Format => format;

/**
 * Signs as docker/libtrust does: the signatures are inserted before the closing brace.
 *
 * @param changes one for each signature: it changes the description of the signed part
 */
function signed(content: string, ...changes: readonly ((format: Format) => Format)[]): Buffer {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const length = content.lastIndexOf('}');
  const format = {
    formatLength: length,
    formatTail: Buffer.from(content.slice(length)).toString('base64url'),
  };
  const jwk = publicKey.export({ format: 'jwk' });
  const signatures = (changes.length === 0 ? [same] : changes).map((change) => {
    const header = Buffer.from(JSON.stringify(change(format))).toString('base64url');
    const text = Buffer.from(`${header}.${Buffer.from(content).toString('base64url')}`);
    const signature = sign('sha256', text, { key: privateKey, dsaEncoding: 'ieee-p1363' });
    return { header: { alg: 'ES256', jwk }, signature: signature.toString('base64url'), protected: header };
  });
  return Buffer.from(`${content.slice(0, length)},"signatures":${JSON.stringify(signatures)}}`);
}

const content = JSON.stringify(document(middle, base));

test('a good signature is accepted, and several that agree', () => {
  assert.equal(parseSchema1(signed(content, same, same), '', 'it').entries.length, 2);
  const manifest = parseSchema1(signed(content), '', 'it');
  assert.equal(Buffer.from(manifest.payload).toString(), content);
  assert.equal(manifest.entries.length, 2);
});

test('a manifest that is served as a signed one must be signed', () => {
  assert.throws(() => parseManifest(Buffer.from(content), MediaType.schema1Signed), {
    name: 'IntegrityError',
    message: /"signatures" of the manifest is not a list/,
  });
});

test('what stands outside the signed part does not count', () => {
  const body = signed(content).toString();
  const other = JSON.stringify(document(top, middle, base)).slice(1, -1);
  const smuggled = Buffer.from(body.replace(',"signatures"', `,${other},"signatures"`));
  assert.equal(parseSchema1(smuggled, '', 'it').entries.length, 2);
});

const badSignatures: readonly (readonly [string, Buffer, RegExp])[] = [
  ['a changed byte', Buffer.from(signed(content).toString().replace('amd64', 'amd46')), /not valid/],
  [
    'a signature that covers too much',
    signed(content, (format) => ({ ...format, formatLength: 1e6 })),
    /covers more/,
  ],
  [
    'a negative length',
    signed(content, (format) => ({ ...format, formatLength: -1 })),
    /formatLength .* is -1/,
  ],
  [
    'a tail that is no base64url',
    signed(content, (format) => ({ ...format, formatTail: '!' })),
    /formatTail/,
  ],
  [
    'a signature with another tail than the first',
    signed(content, same, (format) => ({ ...format, formatTail: Buffer.from('}\n').toString('base64url') })),
    /of different documents/,
  ],
  ['an empty list', bytesOf({ ...document(base), signatures: [] }), /not a list of signatures/],
  ['no list', bytesOf({ ...document(base), signatures: null }), /not a list of signatures/],
  ['a signature without header', bytesOf({ ...document(base), signatures: [{}] }), /no protected header/],
];

for (const [name, body, message] of badSignatures) {
  test(`${name} is refused as a signature`, () => {
    assert.throws(() => parseSchema1(body, '', 'it'), { name: 'IntegrityError', message });
  });
}

test('any change to a signed manifest gives the same layers or an IntegrityError', () => {
  fc.assert(
    fc.property(fc.nat(served.length - 1), fc.nat(255), (place, byte) => {
      const changed = Buffer.from(served);
      changed[place] = byte;
      try {
        assert.equal(digestOf(parseSchema1(changed, MediaType.schema1Signed, 'it').payload), servedDigest);
      } catch (error) {
        if (!(error instanceof DlrootfsError)) throw error;
      }
    }),
    { numRuns: 300 },
  );
});
