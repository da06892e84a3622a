import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configOf } from '../../src/oci/config.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { describeImage } from '../../src/oci/image.ts';
import type { Manifest } from '../../src/oci/manifest.ts';
import { MediaType } from '../../src/oci/media-types.ts';

const digests = ['one', 'two', 'three'].map((text) => digestOf(Buffer.from(text)));
const manifest: Manifest = {
  kind: 'manifest',
  mediaType: MediaType.ociManifest,
  config: { mediaType: MediaType.ociConfig, digest: digestOf(Buffer.from('config')), size: 6 },
  layers: digests.map((digest, index) => ({ mediaType: MediaType.ociLayerGzip, digest, size: index })),
};
const hexes = digests.map((digest) => digest.slice(7));

test('each layer has its diffID and the JSON of registry v1, and the top one the config', () => {
  const image = describeImage(
    manifest,
    configOf({
      os: 'linux',
      architecture: 'arm64',
      variant: 'v8',
      created: '2024-03-03T00:00:00Z',
      author: 'someone',
      config: { Cmd: ['sh'], Odd: 1 },
      rootfs: { diff_ids: digests.toReversed() },
      history: [
        { created: '2024-01-01T00:00:00Z', created_by: 'ADD', author: 'x', comment: 'y' },
        { created_by: 'ENV', empty_layer: true },
        { created: '2024-02-02T00:00:00Z', created_by: 'RUN' },
        { created_by: 'COPY' },
      ],
    }),
  );
  assert.equal(image.id, manifest.config.digest.slice(7));
  assert.deepEqual(image.platform, { os: 'linux', architecture: 'arm64' });
  assert.deepEqual(
    image.layers.map((layer) => layer.diffID),
    digests.toReversed(),
  );
  assert.deepEqual(
    image.layers.map((layer) => layer.createdBy),
    ['ADD', 'RUN', 'COPY'],
  );
  assert.deepEqual(
    image.layers.map((layer) => layer.info),
    [
      {
        id: hexes[0],
        created: '2024-01-01T00:00:00Z',
        container_config: { Cmd: ['ADD'] },
        author: 'x',
        comment: 'y',
        architecture: 'arm64',
        os: 'linux',
      },
      {
        id: hexes[1],
        parent: hexes[0],
        created: '2024-02-02T00:00:00Z',
        container_config: { Cmd: ['RUN'] },
        architecture: 'arm64',
        os: 'linux',
      },
      {
        id: hexes[2],
        parent: hexes[1],
        created: '2024-03-03T00:00:00Z',
        container_config: { Cmd: ['COPY'] },
        author: 'someone',
        architecture: 'arm64',
        os: 'linux',
        config: { Cmd: ['sh'], Odd: 1 },
      },
    ],
  );
});

test('without a history the layers still have ids and platform', () => {
  const image = describeImage(
    manifest,
    configOf({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: digests } }),
  );
  assert.deepEqual(image.layers[1]!.info, {
    id: hexes[1],
    parent: hexes[0],
    architecture: 'amd64',
    os: 'linux',
  });
  assert.equal(image.layers[1]!.createdBy, undefined);
});

test('a config with another number of layers is not this image’s', () => {
  assert.throws(() => describeImage(manifest, configOf({ rootfs: { diff_ids: [digests[0]] } }), 'a/b:1'), {
    name: 'IntegrityError',
    message: /manifest of a\/b:1 lists 3 layers, but its config has 1 diff_ids/,
  });
  assert.throws(() => describeImage(manifest, configOf({})), { name: 'IntegrityError' });
});
