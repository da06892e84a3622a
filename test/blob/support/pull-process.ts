import { createHash } from 'node:crypto';
import { layerQueue } from '../../../src/blob/queue.ts';
import { Store } from '../../../src/blob/store.ts';
import type { Digest } from '../../../src/oci/digest.ts';
import type { Layer } from '../../../src/oci/image.ts';
import { RequestQueue } from '../../../src/sys/request-queue.ts';
import { open } from './http-layer.ts';

/**
 * Pulls one plain blob into a store and prints its digest, in a process that a test starts and kills.
 * Arguments: cache, URL, digest, size.
 */
const [cache, url, digest, size] = process.argv.slice(2);
const layer: Layer = {
  id: digest!.slice(7),
  mediaType: '',
  digest: digest as Digest,
  checksum: { digest: digest as Digest },
  size: Number(size),
  info: {},
  open: (range, signal) => open(url!, range, signal),
};
const report = (event: { readonly type: string; readonly message?: string }) => {
  if (event.type === 'notice') process.stderr.write(`${event.message}\n`);
};
const spoolDirectory = `${cache}-spool`;
const store = await Store.open({ directory: cache, spoolDirectory, maxBytes: 2 ** 30, report });
const queue = layerQueue([layer], {
  store,
  requests: new RequestQueue(3),
  retryPolicy: { retries: 2, delay: 10 },
  signal: new AbortController().signal,
  report,
});
for await (const pulled of queue) {
  const hash = createHash('sha256');
  for await (const chunk of pulled.tar()) hash.update(chunk);
  process.stdout.write(`sha256:${hash.digest('hex')}\n`);
}
await store.close();
