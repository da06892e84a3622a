import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NotFoundError } from '../../src/errors.ts';
import { chooseManifest, type DocumentSource } from '../../src/oci/image-index.ts';
import { configOf } from '../../src/oci/config.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseManifest } from '../../src/oci/manifest.ts';
import { MediaType } from '../../src/oci/media-types.ts';
import { parsePlatform } from '../../src/oci/platform.ts';

/** The documents of a registry by digest; `put` stores one and returns its descriptor. */
class Documents implements DocumentSource {
  readonly bodies = new Map<string, Buffer>();
  fetches = 0;

  put(mediaType: string, body: unknown): { mediaType: string; digest: string; size: number } {
    const bytes = Buffer.from(JSON.stringify(body));
    this.bodies.set(digestOf(bytes), bytes);
    return { mediaType, digest: digestOf(bytes), size: bytes.length };
  }

  image(platform: string, extra: object = {}): object {
    const [os, architecture, variant] = platform.split('/');
    const config = this.put(MediaType.ociConfig, { os, architecture, variant });
    return this.put(MediaType.ociManifest, {
      schemaVersion: 2,
      config,
      layers: [],
      annotations: { platform, ...extra },
    });
  }

  named(platform: string, extra: object = {}): object {
    const [os, architecture, variant] = platform.split('/');
    return { ...this.image(platform, extra), platform: { os, architecture, variant } };
  }

  index(...manifests: readonly object[]): object {
    return this.put(MediaType.ociIndex, { schemaVersion: 2, manifests });
  }

  manifest: DocumentSource['manifest'] = (descriptor) => {
    this.fetches += 1;
    return Promise.resolve().then(() =>
      parseManifest(this.bodies.get(descriptor.digest)!, descriptor.mediaType),
    );
  };

  config: DocumentSource['config'] = (manifest) =>
    Promise.resolve(
      configOf(JSON.parse(this.bodies.get(manifest.config.digest)!.toString()) as Record<string, unknown>),
    );

  async choose(wanted: string, ...manifests: readonly object[]): Promise<string> {
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));
    const index = parseManifest(bytes, MediaType.ociIndex);
    assert.equal(index.kind, 'index');
    const { digest } = await chooseManifest(index, parsePlatform(wanted), this, 'a/b:1');
    const chosen = JSON.parse(this.bodies.get(digest)!.toString()) as { annotations: Record<string, string> };
    return chosen.annotations['name'] ?? chosen.annotations['platform']!;
  }
}

type Row = readonly [string, string, (documents: Documents) => readonly object[], string];

const chosen: readonly Row[] = [
  [
    'the platform itself',
    'linux/arm64',
    (d) => [d.named('linux/amd64'), d.named('linux/arm64')],
    'linux/arm64',
  ],
  [
    'the best of what runs',
    'linux/arm/v7',
    (d) => [d.named('linux/arm/v5'), d.named('linux/arm/v6'), d.named('linux/arm64')],
    'linux/arm/v6',
  ],
  [
    '386 on amd64 where nothing else is',
    'linux/amd64',
    (d) => [d.named('linux/386'), d.named('linux/amd64/v3')],
    'linux/386',
  ],
  [
    'the first of equals',
    'linux/amd64',
    (d) => [d.named('linux/amd64', { name: '1' }), d.named('linux/amd64', { name: '2' })],
    '1',
  ],
  [
    'an image before its attestation',
    'linux/amd64',
    (d) => [
      { ...d.image('linux/amd64', { name: 'no' }), platform: { os: 'unknown', architecture: 'unknown' } },
      d.named('linux/amd64'),
    ],
    'linux/amd64',
  ],
  [
    'no entry that is marked as attestation',
    'linux/amd64',
    (d) => [
      {
        ...d.named('linux/amd64', { name: 'no' }),
        annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
      },
      d.named('linux/amd64'),
    ],
    'linux/amd64',
  ],
  [
    'a named platform before one without',
    'linux/amd64',
    (d) => [d.image('linux/amd64', { name: 'no' }), d.named('linux/amd64')],
    'linux/amd64',
  ],
  [
    'an entry without platform by its config',
    'linux/arm64',
    (d) => [d.image('linux/amd64'), d.image('linux/arm64')],
    'linux/arm64',
  ],
  [
    'the best of the entries without platform',
    'linux/amd64',
    (d) => [d.image('linux/386'), d.image('linux/amd64')],
    'linux/amd64',
  ],
  [
    'an empty platform as none',
    'linux/amd64',
    (d) => [{ ...d.image('linux/amd64'), platform: { os: '', architecture: '' } }],
    'linux/amd64',
  ],
  [
    'an image in a nested index',
    'linux/arm64',
    (d) => [d.index(d.named('linux/amd64')), d.index(d.named('linux/arm64'))],
    'linux/arm64',
  ],
  [
    'an image in a nested index that names a platform',
    'linux/arm64',
    (d) => [{ ...d.index(d.named('linux/arm64')), platform: { os: 'linux', architecture: 'arm64' } }],
    'linux/arm64',
  ],
  [
    'the next entry where a nested index does not hold what it says',
    'linux/arm64',
    (d) => [
      { ...d.index(d.named('linux/amd64')), platform: { os: 'linux', architecture: 'arm64' } },
      d.named('linux/arm64'),
    ],
    'linux/arm64',
  ],
  [
    'past artifacts',
    'linux/amd64',
    (d) => [
      d.put('application/vnd.example+json', {}),
      d.put(MediaType.ociManifest, {
        schemaVersion: 2,
        config: { ...d.put('application/vnd.cncf.helm.config.v1+json', {}) },
        layers: [],
      }),
      d.image('linux/amd64'),
    ],
    'linux/amd64',
  ],
];

for (const [name, wanted, build, expected] of chosen) {
  test(`chosen is ${name}`, async () => {
    const documents = new Documents();
    assert.equal(await documents.choose(wanted, ...build(documents)), expected);
  });
}

test('if no platform matches, the error lists the available ones', async () => {
  const documents = new Documents();
  const nested = documents.index(documents.named('linux/s390x'));
  const rows = [
    documents.named('linux/amd64'),
    documents.named('linux/arm/v7'),
    documents.named('linux/amd64', { n: '2' }),
    nested,
    documents.image('linux/mips'),
  ];
  const attestation = { ...documents.image('x/y'), platform: { os: 'unknown', architecture: 'unknown' } };
  await assert.rejects(documents.choose('linux/riscv64', ...rows, attestation), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.equal(error.message, 'a/b:1 has no image for linux/riscv64');
    assert.equal(
      error.hint,
      'choose one with --platform: linux/amd64, linux/arm/v7, linux/s390x, linux/mips',
    );
    return true;
  });
  await assert.rejects(documents.choose('linux/amd64'), {
    hint: 'choose another image: this one names no platforms',
  });
});

test('only manifests that may match are fetched', async () => {
  const documents = new Documents();
  await documents.choose(
    'linux/amd64',
    documents.named('linux/arm64'),
    documents.named('linux/amd64'),
    documents.image('linux/amd64'),
  );
  assert.equal(documents.fetches, 1);
});

test('nesting and fetching are limited', async () => {
  const documents = new Documents();
  let index = documents.index(documents.named('linux/amd64'));
  for (let depth = 0; depth < 10; depth += 1) index = documents.index(index);
  await assert.rejects(documents.choose('linux/amd64', index), { name: 'IntegrityError', message: /nested/ });
  const many = Array.from({ length: 100 }, (_, number) =>
    documents.image('linux/arm64', { n: String(number) }),
  );
  await assert.rejects(documents.choose('linux/amd64', ...many), {
    name: 'IntegrityError',
    message: /more than 64/,
  });
});

test('a malformed image of the wanted platform is an error, not passed over', async () => {
  const documents = new Documents();
  const bad = documents.put(MediaType.ociManifest, { schemaVersion: 2, config: 5 });
  await assert.rejects(
    documents.choose(
      'linux/amd64',
      { ...bad, platform: { os: 'linux', architecture: 'amd64' } },
      documents.named('linux/amd64'),
    ),
    { name: 'IntegrityError' },
  );
});
