import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Image, LocalLayer, Session } from '../../src/oci/image.ts';
import { tar, file, type Item } from '../support/archive.ts';
import { sha256, type FakeManifest } from '../support/fake-image.ts';

export interface IndexEntry {
  readonly manifest: { readonly mediaType: string; readonly bytes: Uint8Array; readonly digest: string };
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: object;
  readonly artifactType?: string;
}

/** The annotation in index.json that names an image. */
export function tagged(manifest: FakeManifest, tag: string): IndexEntry {
  return { manifest, annotations: { 'org.opencontainers.image.ref.name': tag } };
}

/** The files of an OCI layout: contents by path. */
export function layoutFiles(
  entries: readonly IndexEntry[],
  manifests: readonly FakeManifest[] = [],
): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>([['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')]]);
  const put = (bytes: Uint8Array): void => void files.set(`blobs/sha256/${sha256(bytes).slice(7)}`, bytes);
  for (const { manifest } of entries) {
    if (manifest.digest === sha256(manifest.bytes)) put(manifest.bytes);
    else files.set(`blobs/sha256/${manifest.digest.slice(7)}`, manifest.bytes);
    if ('blobs' in manifest) for (const blob of (manifest as FakeManifest).blobs.values()) put(blob);
  }
  for (const manifest of manifests) {
    put(manifest.bytes);
    for (const blob of manifest.blobs.values()) put(blob);
  }
  const index = {
    schemaVersion: 2,
    manifests: entries.map(({ manifest, ...rest }) => ({
      mediaType: manifest.mediaType,
      digest: manifest.digest,
      size: manifest.bytes.length,
      ...rest,
    })),
  };
  files.set('index.json', Buffer.from(JSON.stringify(index)));
  return files;
}

export function writeFiles(directory: string, files: ReadonlyMap<string, Uint8Array>): void {
  for (const [name, bytes] of files) {
    mkdirSync(path.join(directory, path.dirname(name)), { recursive: true });
    writeFileSync(path.join(directory, name), bytes);
  }
}

export function archiveOf(files: ReadonlyMap<string, Uint8Array>, ...more: readonly Item[]): Buffer {
  return tar(...[...files].map(([name, bytes]) => file(name, bytes)), ...more);
}

/** Returns a complete blob of a layer. */
export async function blobOf(layer: LocalLayer): Promise<Buffer> {
  const blob = await layer.openLocal();
  const bytes = Buffer.alloc(blob.size);
  for (let at = 0; at < blob.size;) {
    const count = await blob.read(bytes.subarray(at, at + 1000), at);
    assert.ok(count > 0);
    at += count;
  }
  assert.equal(await blob.read(Buffer.alloc(10), blob.size), 0);
  await blob.close();
  return bytes;
}

export async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of iterable) items.push(item);
  return items;
}

/** Returns the image for linux/amd64. The session is closed, so its layers can no longer be read. */
export async function imageOf(
  session: Session<LocalLayer>,
  architecture = 'amd64',
): Promise<Image<LocalLayer>> {
  try {
    return await session.image({ os: 'linux', architecture });
  } finally {
    await session.close();
  }
}

/** Returns the image for linux/amd64 and its blobs, base layer first. */
export async function readImage(
  session: Session<LocalLayer>,
): Promise<{ image: Image<LocalLayer>; blobs: Buffer[] }> {
  try {
    const image = await session.image({ os: 'linux', architecture: 'amd64' });
    const blobs: Buffer[] = [];
    for (const layer of image.layers) blobs.push(await blobOf(layer));
    return { image, blobs };
  } finally {
    await session.close();
  }
}
