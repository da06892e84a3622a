import { createHash } from 'node:crypto';
import { fakeManifest, type FakeImage } from './fake-image.ts';

/** An image in version 1: each layer is an image of its own. */
export interface FakeV1Image extends FakeImage {
  /** Ids, base layer first; default: made from the content. */
  readonly ids?: readonly string[];
  /** Replaces keys of the generated JSON documents, base layer first. */
  readonly json?: readonly (Readonly<Record<string, unknown>> | undefined)[];
}

/** A layer as the server stores it. */
export interface StoredV1Image {
  readonly id: string;
  /** Ids of this image and those below it, base last. */
  readonly ancestry: readonly string[];
  /** The body of `images/ID/json`. */
  readonly json: Uint8Array;
  readonly blob: Uint8Array;
  /** Digest of the JSON, a newline, and the blob. */
  readonly checksum: string;
}

export function payloadChecksum(json: Uint8Array, blob: Uint8Array): string {
  return `sha256:${createHash('sha256').update(json).update('\n').update(blob).digest('hex')}`;
}

/**
 * Makes the files of an image in version 1, base layer first; the same input gives the same ids. The blobs
 * are those of version 2.
 */
export function fakeV1Images(image: FakeV1Image): readonly StoredV1Image[] {
  const manifest = fakeManifest(image);
  const stored: StoredV1Image[] = [];
  for (const [n, { digest }] of manifest.layers.entries()) {
    const blob = manifest.blobs.get(digest)!;
    const below = stored.at(-1);
    const content = {
      ...(below && { parent: below.id }),
      created: '2015-01-17T10:00:00.123456789Z',
      container: createHash('sha256').update(`container ${n}`).digest('hex'),
      container_config: {
        Hostname: 'a1b2c3d4e5f6',
        Cmd: ['/bin/sh', '-c', `#(nop) layer ${n}`],
        Image: below?.id ?? '',
      },
      docker_version: '1.4.1',
      ...(image.platform ?? { os: 'linux', architecture: 'amd64' }),
      Size: 188_100_000 + n,
      ...(n === manifest.layers.length - 1 && { config: { Cmd: ['/bin/sh'] }, ...image.config }),
      ...image.json?.[n],
    };
    const made = createHash('sha256').update(digest).update(JSON.stringify(content)).digest('hex');
    const id = image.ids?.[n] ?? made;
    const document = { id, ...content };
    const json = Buffer.from(JSON.stringify(document));
    const ancestry = [id, ...(below?.ancestry ?? [])];
    stored.push({ id, ancestry, json, blob, checksum: payloadChecksum(json, blob) });
  }
  return stored;
}
