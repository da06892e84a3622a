import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, openAsBlob, rmSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip, createZstdCompress } from 'node:zlib';

/** A repository of the benchmark's registry. */
export interface Repository {
  readonly port: number;
  readonly name: string;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const oci = 'application/vnd.oci.image';

/** True if the repository has this tag. */
export async function hasTag(repository: Repository, tag: string): Promise<boolean> {
  const answer = await fetch(`${base(repository)}/manifests/${tag}`, {
    method: 'HEAD',
    headers: { accept: `${oci}.manifest.v1+json` },
  });
  return answer.ok;
}

/** Compresses each layer's tar with gzip, and pushes the blobs, a config and an OCI manifest under `tag`. */
export async function uploadImage(
  repository: Repository,
  tag: string,
  layers: Iterable<Iterable<Uint8Array>>,
  workFolder: string,
): Promise<void> {
  const descriptors: Descriptor[] = [];
  const diffIDs: string[] = [];
  for (const tar of layers) {
    const file = `${workFolder}/layer.tar.gz`;
    const { digest, diffID, size } = await compress(tar, file);
    await uploadBlob(repository, await openAsBlob(file), digest);
    rmSync(file);
    descriptors.push({ mediaType: `${oci}.layer.v1.tar+gzip`, digest, size });
    diffIDs.push(diffID);
  }
  const config = json({
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: diffIDs },
    history: diffIDs.map(() => ({ created: '2024-02-29T12:00:00Z', created_by: 'bench' })),
  });
  const configDescriptor = {
    mediaType: `${oci}.config.v1+json`,
    digest: sha256(config),
    size: config.length,
  };
  await uploadBlob(repository, config, configDescriptor.digest);
  await putManifest(repository, tag, configDescriptor, descriptors);
}

/** Copies the image with the tag gzip to the tag zstd, with its layers in zstd. */
export async function recompress(repository: Repository, workFolder: string): Promise<void> {
  const { body: manifest } = await get(`${base(repository)}/manifests/gzip`);
  const { config, layers } = (await new Response(manifest).json()) as {
    config: Descriptor;
    layers: readonly Descriptor[];
  };
  const descriptors: Descriptor[] = [];
  const file = `${workFolder}/layer.tar.zst`;
  for (const layer of layers) {
    const { body } = await get(`${base(repository)}/blobs/${layer.digest}`);
    await pipeline(Readable.fromWeb(body!), createGunzip(), createZstdCompress(), createWriteStream(file));
    const blob = await openAsBlob(file);
    const hash = createHash('sha256');
    for await (const bytes of createReadStream(file)) hash.update(bytes as Buffer);
    const digest = `sha256:${hash.digest('hex')}`;
    await uploadBlob(repository, blob, digest);
    descriptors.push({ mediaType: `${oci}.layer.v1.tar+zstd`, digest, size: blob.size });
  }
  rmSync(file);
  await putManifest(repository, 'zstd', config, descriptors);
}

async function get(url: string): Promise<Response> {
  return await request(url, { headers: { accept: `${oci}.manifest.v1+json` } });
}

async function putManifest(
  repository: Repository,
  tag: string,
  config: Descriptor,
  layers: readonly Descriptor[],
): Promise<void> {
  const mediaType = `${oci}.manifest.v1+json`;
  await request(`${base(repository)}/manifests/${tag}`, {
    method: 'PUT',
    headers: { 'content-type': mediaType },
    body: json({ schemaVersion: 2, mediaType, config, layers }),
  });
}

async function compress(tar: Iterable<Uint8Array>, file: string) {
  const plain = createHash('sha256');
  const compressed = createHash('sha256');
  let size = 0;
  await pipeline(
    Readable.from(tar),
    async function* (source: AsyncIterable<Uint8Array>) {
      for await (const bytes of source) {
        plain.update(bytes);
        yield bytes;
      }
    },
    createGzip({ chunkSize: 1 << 18 }),
    async function* (source: AsyncIterable<Uint8Array>) {
      for await (const bytes of source) {
        compressed.update(bytes);
        size += bytes.length;
        yield bytes;
      }
    },
    createWriteStream(file),
  );
  return { size, diffID: `sha256:${plain.digest('hex')}`, digest: `sha256:${compressed.digest('hex')}` };
}

async function uploadBlob(
  repository: Repository,
  body: Blob | Buffer<ArrayBuffer>,
  digest: string,
): Promise<void> {
  const { headers } = await request(`${base(repository)}/blobs/uploads/`, { method: 'POST' });
  const target = new URL(headers.get('location')!, base(repository));
  target.searchParams.set('digest', digest);
  await request(target, { method: 'PUT', headers: { 'content-type': 'application/octet-stream' }, body });
}

async function request(url: string | URL, init: RequestInit): Promise<Response> {
  const answer = await fetch(url, init);
  if (!answer.ok) throw new Error(`${init.method} ${String(url)}: ${answer.status} ${await answer.text()}`);
  return answer;
}

function base(repository: Repository): string {
  return `http://127.0.0.1:${repository.port}/v2/${repository.name}`;
}

function json(value: unknown): Buffer<ArrayBuffer> {
  return Buffer.from(JSON.stringify(value));
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
