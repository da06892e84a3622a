import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { Header } from 'tar';
import { signManifest } from './training-signatures.ts';

const BLOCK_BYTES = 512;
const TIME = new Date(1_000_000_000_000);
const CREATED = '2015-01-17T10:00:00Z';

type EntryType = 'File' | 'Directory' | 'SymbolicLink' | 'Link';

/** Returns the blocks of one entry. */
function entry(
  type: EntryType,
  path: string,
  mode: number,
  content = Buffer.alloc(0),
  linkpath = '',
): Buffer {
  const header = Buffer.alloc(BLOCK_BYTES);
  const size = content.length;
  new Header({ type, path, mode, linkpath, size, uid: 0, gid: 0, mtime: TIME }).encode(header);
  return Buffer.concat([header, content, Buffer.alloc(-size & (BLOCK_BYTES - 1))]);
}

const file = (path: string, content: Uint8Array | string, mode = 0o644): Buffer =>
  entry('File', path, mode, Buffer.from(content));

/** Returns bytes that are the same in every build. */
function incompressible(seed: number, length: number): Uint8Array {
  return createHash('shake256', { outputLength: length }).update(String(seed)).digest();
}

/**
 * The layers of the image: each kind of entry that most images have, and enough data for the decoder's
 * thread.
 */
const layers: readonly (readonly Buffer[])[] = [
  [
    entry('Directory', 'etc/', 0o755),
    file('etc/motd', 'hi\n'),
    entry('SymbolicLink', 'bin', 0o777, undefined, 'usr/bin'),
    entry('Directory', 'usr/', 0o755),
    entry('Directory', 'usr/bin/', 0o755),
  ],
  [
    file('usr/bin/true', 'x'.repeat(100_000), 0o755),
    entry('Link', 'usr/bin/false', 0o644, undefined, 'usr/bin/true'),
  ],
  [file('etc/.wh.motd', ''), file('etc/issue', 'new\n')],
  Array.from({ length: 1500 }, (_, n) => file(`usr/f${n}`, incompressible(n, 4096))),
];

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Returns the manifest of the image (image-spec), and its blobs by digest. */
function image(): { readonly manifest: Buffer; readonly blobs: ReadonlyMap<string, Uint8Array> } {
  const blobs = new Map<string, Uint8Array>();
  const describe = (mediaType: string, bytes: Uint8Array) => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType: `application/vnd.oci.image.${mediaType}`, digest, size: bytes.length };
  };
  const tars = layers.map((entries) => Buffer.concat([...entries, Buffer.alloc(2 * BLOCK_BYTES)]));
  const config = {
    created: CREATED,
    os: 'linux',
    architecture: 'amd64',
    config: { Env: ['PATH=/usr/bin:/bin'], Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) },
    history: tars.map((_, n) => ({ created: CREATED, created_by: `/bin/sh -c layer ${n}` })),
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: describe('config.v1+json', Buffer.from(JSON.stringify(config))),
    layers: tars.map((tar) => describe('layer.v1.tar+gzip', gzipSync(tar))),
  };
  return { manifest: Buffer.from(JSON.stringify(manifest)), blobs };
}

/**
 * A registry on loopback with one signed image. It serves what a pull requests (distribution-spec):
 * manifests, referrers, blobs, ranges of blobs.
 */
export class TrainingRegistry implements AsyncDisposable {
  readonly #image = image();
  readonly #signatures = signManifest(digestOf(this.#image.manifest));
  readonly #server = createServer((request, response) => this.#answer(request, response));

  static async start(): Promise<TrainingRegistry> {
    const registry = new TrainingRegistry();
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  /** The reference of the image. */
  get reference(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}/library/small:latest`;
  }

  /** The public key in PEM that verifies the image's signature. */
  get key(): string {
    return this.#signatures.key;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer({ url = '', headers }: IncomingMessage, response: ServerResponse): void {
    const { blobs } = this.#image;
    const { manifests, referrers, blobs: signed } = this.#signatures;
    response.setHeader('docker-distribution-api-version', 'registry/2.0');
    const target = url.slice(url.lastIndexOf('/') + 1);
    const manifest = target === 'latest' ? this.#image.manifest : manifests.get(target);
    if (url.includes('/referrers/')) {
      response.setHeader('content-type', 'application/vnd.oci.image.index.v1+json');
      response.end(referrers);
      return;
    }
    if (url.includes('/manifests/') && manifest) {
      response.setHeader('content-type', 'application/vnd.oci.image.manifest.v1+json');
      response.setHeader('docker-content-digest', digestOf(manifest));
      response.setHeader('content-length', manifest.length);
      response.end(manifest);
      return;
    }
    const blob = blobs.get(target) ?? signed.get(target);
    if (!blob) {
      response.writeHead(url === '/v2/' ? 200 : 404).end();
      return;
    }
    response.setHeader('content-type', 'application/octet-stream');
    response.setHeader('accept-ranges', 'bytes');
    response.setHeader('etag', `"${target}"`);
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '');
    const start = Number(range?.[1] ?? 0);
    const end = range?.[2] ? Number(range[2]) + 1 : blob.length;
    const body = blob.subarray(start, end);
    if (range)
      response.setHeader('content-range', `bytes ${start}-${start + body.length - 1}/${blob.length}`);
    response.setHeader('content-length', body.length);
    response.writeHead(range ? 206 : 200).end(body);
  }
}
