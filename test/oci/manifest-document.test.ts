import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError, IntegrityError } from '../../src/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseManifest } from '../../src/oci/manifest.ts';
import { MANIFEST_ACCEPT, MediaType, isLayerType } from '../../src/oci/media-types.ts';

const digest = `sha256:${'a'.repeat(64)}`;
const config = { mediaType: MediaType.ociConfig, digest, size: 7 };
const layer = { mediaType: MediaType.ociLayerGzip, digest, size: 9 };
const image = { schemaVersion: 2, config, layers: [layer, layer] };
const index = { schemaVersion: 2, manifests: [{ mediaType: MediaType.ociManifest, digest, size: 3 }] };

const bytesOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** Columns: name, body, Content-Type, kind, media type. */
const accepted: readonly (readonly [string, unknown, string | undefined, string, string])[] = [
  ['an OCI manifest', image, MediaType.ociManifest, 'manifest', MediaType.ociManifest],
  ['a Docker manifest', image, MediaType.dockerManifest, 'manifest', MediaType.dockerManifest],
  ['an OCI index', index, MediaType.ociIndex, 'index', MediaType.ociIndex],
  ['a Docker list', index, MediaType.dockerList, 'index', MediaType.dockerList],
  [
    'a type in odd letters with a parameter',
    image,
    'Application/Vnd.OCI.image.manifest.V1+JSON; charset=utf-8',
    'manifest',
    MediaType.ociManifest,
  ],
  [
    'a type in the body where the header says nothing',
    { ...image, mediaType: MediaType.dockerManifest },
    'text/plain',
    'manifest',
    MediaType.dockerManifest,
  ],
  ['a manifest by its shape alone', image, undefined, 'manifest', MediaType.ociManifest],
  ['an index by its shape alone', index, 'application/json', 'index', MediaType.ociIndex],
  [
    'the header where the body names the other of the two makers',
    { ...image, mediaType: MediaType.ociManifest },
    MediaType.dockerManifest,
    'manifest',
    MediaType.dockerManifest,
  ],
  [
    'an index with no entries',
    { schemaVersion: 2, manifests: null },
    MediaType.ociIndex,
    'index',
    MediaType.ociIndex,
  ],
  [
    'a manifest without layers',
    { schemaVersion: 2, config, layers: [] },
    MediaType.ociManifest,
    'manifest',
    MediaType.ociManifest,
  ],
  [
    'a manifest without schemaVersion',
    { config, layers: [layer] },
    MediaType.ociManifest,
    'manifest',
    MediaType.ociManifest,
  ],
  [
    'a null beside the shape',
    { ...image, manifests: null },
    MediaType.ociManifest,
    'manifest',
    MediaType.ociManifest,
  ],
  [
    'a config of a type that registries made up',
    { ...image, config: { ...config, mediaType: 'application/octet-stream' } },
    MediaType.dockerManifest,
    'manifest',
    MediaType.dockerManifest,
  ],
];

for (const [name, body, contentType, kind, mediaType] of accepted) {
  test(`${name} is read as ${kind}`, () => {
    const document = parseManifest(bytesOf(body), contentType);
    assert.equal(document.kind, kind);
    assert.equal(document.mediaType, mediaType);
    parseManifest(bytesOf(body), contentType, 'it', digestOf(bytesOf(body)));
    assert.throws(() => parseManifest(bytesOf(body), contentType, 'it', digestOf(Buffer.from('x'))), {
      code: 'DIGEST_MISMATCH',
    });
  });
}

test('descriptors carry what the image needs', () => {
  const body = {
    schemaVersion: 2,
    config,
    layers: [{ ...layer, urls: ['https://e.com/x', 7], annotations: { a: 'b', c: 1, ['__proto__']: 'p' } }],
  };
  const document = parseManifest(bytesOf(body), undefined);
  assert.equal(document.kind, 'manifest');
  assert.equal(document.layers[0]!.size, 9);
  assert.deepEqual(document.layers[0]!.urls, ['https://e.com/x']);
  assert.equal(document.layers[0]!.annotations?.['a'], 'b');
  assert.equal(Object.getPrototypeOf(document.layers[0]!.annotations), Object.prototype);
});

/** Columns: name, body, Content-Type, message. */
const refused: readonly (readonly [string, unknown, string | undefined, RegExp])[] = [
  ['a body that is index and manifest', { ...image, ...index }, undefined, /ambiguous/],
  ['an index that has layers', { ...index, layers: [] }, MediaType.ociIndex, /ambiguous/],
  ['a manifest served as an index', image, MediaType.ociIndex, /ambiguous: .* index and as manifest/],
  ['an index served as a manifest', index, MediaType.dockerManifest, /ambiguous/],
  [
    'a body that names another kind than the header',
    { ...image, mediaType: MediaType.ociIndex },
    MediaType.ociManifest,
    /ambiguous/,
  ],
  ['a manifest with layers of schema 1', { ...image, fsLayers: [] }, MediaType.ociManifest, /ambiguous/],
  ['schemaVersion 1 in a manifest', { ...image, schemaVersion: 1 }, MediaType.ociManifest, /ambiguous/],
  ['schemaVersion 3', { ...image, schemaVersion: 3 }, MediaType.ociManifest, /schemaVersion 3/],
  [
    'an error document',
    { errors: [{ code: 'X' }] },
    'application/json',
    /neither an image manifest nor an index/,
  ],
  [
    'an artifact manifest',
    { mediaType: 'application/vnd.oci.artifact.manifest.v1+json', blobs: [] },
    undefined,
    /its type is application\/vnd\.oci\.artifact/,
  ],
  [
    'a Helm chart',
    { ...image, config: { ...config, mediaType: 'application/vnd.cncf.helm.config.v1+json' } },
    MediaType.ociManifest,
    /not a container image but an artifact of type application\/vnd\.cncf\.helm/,
  ],
  [
    'an artifact with an empty config',
    { ...image, artifactType: 'a/b', config: { ...config, mediaType: 'application/vnd.oci.empty.v1+json' } },
    MediaType.ociManifest,
    /artifact of type a\/b/,
  ],
  [
    'an attestation',
    { ...image, layers: [{ ...layer, mediaType: 'application/vnd.in-toto+json' }] },
    MediaType.ociManifest,
    /layers\[0\] .* not a tar archive but has type application\/vnd\.in-toto/,
  ],
  [
    'an encrypted layer',
    { ...image, layers: [{ ...layer, mediaType: `${MediaType.ociLayerGzip}+encrypted` }] },
    MediaType.ociManifest,
    /not a tar archive/,
  ],
  ['a negative size', { ...image, layers: [{ ...layer, size: -1 }] }, undefined, /size of layers\[0\]/],
  ['a size with a fraction', { ...image, config: { ...config, size: 1.5 } }, undefined, /size of the config/],
  [
    'a size too large for a number',
    { ...image, config: { ...config, size: 1e300 } },
    undefined,
    /size of the config/,
  ],
  ['a size as text', { ...image, config: { ...config, size: '7' } }, undefined, /size of the config/],
  ['no size', { ...image, config: { mediaType: config.mediaType, digest } }, undefined, /size of the config/],
  [
    'a malformed digest',
    { ...image, layers: [{ ...layer, digest: 'sha256:../x' }] },
    undefined,
    /digest of layers\[0\].*malformed/,
  ],
  [
    'a digest of an unknown algorithm',
    { ...image, layers: [{ ...layer, digest: `md5:${'a'.repeat(32)}` }] },
    undefined,
    /"md5" is unknown/,
  ],
  [
    'no config',
    { schemaVersion: 2, layers: [layer] },
    MediaType.ociManifest,
    /the config of the manifest is missing/,
  ],
  [
    'a config that is a list',
    { ...image, config: [] },
    MediaType.ociManifest,
    /config of the manifest is missing or not an object/,
  ],
  ['layers that are an object', { ...image, layers: {} }, MediaType.ociManifest, /"layers" .* not an array/],
  [
    'a layer that is null',
    { ...image, layers: [null] },
    MediaType.ociManifest,
    /layers\[0\].* not an object/,
  ],
  [
    'manifests that are text',
    { schemaVersion: 2, manifests: 'x' },
    MediaType.ociIndex,
    /"manifests" .* not an array/,
  ],
  ['5000 layers', { ...image, layers: Array.from({ length: 5000 }, () => layer) }, undefined, /5000 layers/],
  [
    'a media type that is a number',
    { ...image, layers: [{ ...layer, mediaType: 5 }] },
    undefined,
    /media type of layers\[0\]/,
  ],
  ['a list', [], undefined, /not a JSON object/],
  ['null', null, undefined, /not a JSON object/],
];

for (const [name, body, contentType, message] of refused) {
  test(`${name} is refused`, () => {
    assert.throws(() => parseManifest(bytesOf(body), contentType), { name: 'IntegrityError', message });
  });
}

const broken: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ['nothing', new Uint8Array(), /not valid JSON/],
  ['HTML', Buffer.from('<html>'), /not valid JSON/],
  ['half a document', bytesOf(image).subarray(0, 40), /not valid JSON/],
  ['deep nesting', Buffer.from('['.repeat(200_000) + ']'.repeat(200_000)), /nested more than 100/],
  [
    'deep nesting inside a manifest',
    Buffer.from(`{"schemaVersion":2,"x":${'{"a":'.repeat(101)}1${'}'.repeat(101)}}`),
    /nested/,
  ],
  [
    'a million values',
    Buffer.from(`{"schemaVersion":2,"x":[${'0,'.repeat(1_000_000)}0]}`),
    /has more than 200000 values/,
  ],
  [
    'as many empty objects',
    Buffer.from(`{"schemaVersion":2,"x":[${'{},'.repeat(150_000)}{}]}`),
    /has more than 200000 values/,
  ],
  ['five megabytes', Buffer.alloc(5e6, ' '), /has 5000000 bytes/],
  ['control characters', Buffer.from('\u001b[31m'), /\\u001b|not valid JSON: [ -~]*$/],
];

for (const [name, bytes, message] of broken) {
  test(`${name} instead of a manifest is refused`, () => {
    assert.throws(
      () => parseManifest(bytes, MediaType.ociManifest),
      (error) => {
        assert.ok(error instanceof IntegrityError);
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

test('brackets in a text do not count as nesting', () => {
  const body = { ...image, annotations: { a: '[{'.repeat(500), b: '"\\"[[' } };
  assert.equal(parseManifest(bytesOf(body), undefined).kind, 'manifest');
});

test('keys that JavaScript knows are only keys', () => {
  const body = Buffer.from(
    `{"__proto__":{"manifests":[]},"constructor":1,"schemaVersion":2,"config":${JSON.stringify(config)},"layers":[]}`,
  );
  assert.equal(parseManifest(body, undefined).kind, 'manifest');
});

test('layer types: any tar, whatever its compression; nothing else', () => {
  const suffixes = ['', '+gzip', '+zstd'];
  for (const type of [
    ...suffixes.map((suffix) => `application/vnd.oci.image.layer.v1.tar${suffix}`),
    ...suffixes.map((suffix) => `application/vnd.oci.image.layer.nondistributable.v1.tar${suffix}`),
    ...['', '.gzip', '.zstd'].map((suffix) => `application/vnd.docker.image.rootfs.diff.tar${suffix}`),
    ...['', '.gzip'].map((suffix) => `application/vnd.docker.image.rootfs.foreign.diff.tar${suffix}`),
  ]) {
    assert.ok(isLayerType(type), type);
  }
  for (const type of [
    '',
    'application/octet-stream',
    'application/x-tar',
    'application/tar+gzip',
    'application/x-tgz',
  ]) {
    assert.ok(isLayerType(type), type);
  }
  for (const type of [
    'application/vnd.in-toto+json',
    'application/vnd.sylabs.sif.layer.v1.sif',
    'text/star',
    'x/tart',
  ]) {
    assert.ok(!isLayerType(type), type);
  }
  assert.equal(MANIFEST_ACCEPT.length, 6);
});

test('any document is a manifest or an IntegrityError', () => {
  const member = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }),
    fc.constantFrom(digest, config, layer, [layer], 1, 2, -1),
  );
  const document = fc.dictionary(
    fc.constantFrom(
      'schemaVersion',
      'mediaType',
      'config',
      'layers',
      'manifests',
      'fsLayers',
      'history',
      'signatures',
      '__proto__',
    ),
    member,
  );
  const type = fc.option(fc.constantFrom(...MANIFEST_ACCEPT, 'text/html'), { nil: undefined });
  const body = fc.oneof(
    document.map(bytesOf),
    fc.uint8Array({ maxLength: 200 }),
    fc.jsonValue().map(bytesOf),
  );
  fc.assert(
    fc.property(body, type, (bytes, contentType) => {
      try {
        parseManifest(bytes, contentType);
      } catch (error) {
        if (!(error instanceof DlrootfsError)) throw error;
        // eslint-disable-next-line no-control-regex
        assert.doesNotMatch(error.message, /[\u0000-\u001f\u007f-\u009f]/);
      }
    }),
    { numRuns: 2000 },
  );
});
