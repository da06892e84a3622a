import assert from 'node:assert/strict';
import { open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { CachedFile } from '../../src/blob/layer-blob.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { sha256 } from '../support/fake-image.ts';
import { noise, Workshop } from './support/workshop.ts';

test('a file is right, or it is said what is the matter; an abort ends looking', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(5 * 2 ** 20);
  const name = path.join(shop.directory, 'blob');
  await writeFile(name, bytes);
  await using handle = await open(name);
  const file = new CachedFile(handle, sha256(bytes) as Digest);
  const never = new AbortController().signal;
  assert.equal(await file.fault(never), undefined);
  assert.match((await new CachedFile(handle, sha256('other') as Digest).fault(never))!, /has digest/);
  const abort = new AbortController();
  const looking = file.fault(abort.signal);
  const reason = new Error('enough');
  abort.abort(reason);
  await assert.rejects(looking, reason);
});
