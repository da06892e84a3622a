import { get, type IncomingMessage } from 'node:http';
import { NetworkError } from '../../../src/errors.ts';
import type { Digest, DiffID } from '../../../src/oci/digest.ts';
import type { BlobRange, BlobResponse, RemoteLayer } from '../../../src/oci/image.ts';
import type { FakeRegistry, PushedImage } from '../../support/fake-registry.ts';

/** Returns the layers of an image in a fake registry; each blob is requested by a plain GET. */
export function layersOf(registry: FakeRegistry, repository: string, image: PushedImage): RemoteLayer[] {
  return image.layers.map((descriptor, index) => ({
    id: descriptor.digest.slice(7),
    mediaType: descriptor.mediaType,
    digest: descriptor.digest as Digest,
    checksum: { digest: descriptor.digest as Digest },
    size: descriptor.size,
    diffID: image.diffIDs[index] as DiffID,
    info: {},
    open: (range, signal) =>
      open(`${registry.url}/v2/${repository}/blobs/${descriptor.digest}`, range, signal),
  }));
}

/** Sends one GET as a registry session does. */
export async function open(url: string, range: BlobRange, signal: AbortSignal): Promise<BlobResponse> {
  const partial = range.start > 0 || range.end !== undefined;
  const headers: Record<string, string> = {};
  if (partial) headers['range'] = `bytes=${range.start}-${range.end === undefined ? '' : range.end - 1}`;
  if (partial && range.etag !== undefined) headers['if-range'] = range.etag;
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, { headers, signal }, resolve).on('error', reject);
  }).catch((error: unknown) => {
    throw signal.aborted ? error : new NetworkError('cannot connect', { cause: error });
  });
  if (response.statusCode !== 200 && response.statusCode !== 206) {
    response.resume();
    throw new NetworkError(`status ${response.statusCode}`);
  }
  const content = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers['content-range'] ?? '');
  const length = response.headers['content-length'];
  return {
    body: response,
    start: response.statusCode === 206 ? Number(content?.[1]) : 0,
    size:
      response.statusCode === 206 ? Number(content?.[2]) : length === undefined ? undefined : Number(length),
    etag: response.headers.etag,
    ranges: response.headers['accept-ranges'] === 'bytes',
  };
}
