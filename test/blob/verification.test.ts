import assert from 'node:assert/strict';
import { open, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { BlobFile } from '../../src/blob/layer-blob.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { SyscallError } from '../../src/sys/os-error.ts';
import { noise, Workshop } from './support/workshop.ts';

const failureOf = async (fault: string) => new Error(`it ${fault}`);

test('a file is right, or its fault is returned; an abort ends the check', async () => {
  await using shop = await Workshop.open();
  const bytes = noise(5 * 2 ** 20);
  const name = path.join(shop.directory, 'blob');
  await writeFile(name, bytes);
  await using handle = await open(name);
  const file = {
    size: bytes.length,
    read: async (into: Uint8Array, at: number) => (await handle.read(into, 0, into.length, at)).bytesRead,
    close: () => handle.close(),
  };
  const blob = new BlobFile(file, { digest: digestOf(bytes) }, failureOf);
  const never = new AbortController().signal;
  await blob.verify(never);
  const other = new BlobFile(file, { digest: digestOf(Buffer.from('other')) }, failureOf);
  await assert.rejects(other.verify(never), /^Error: it has digest \S+ but must have \S+$/);
  const reader = other.reader();
  const into = Buffer.alloc(2 ** 20);
  for (let n = 0; n < 5; n += 1) assert.equal(await reader.read(into), into.length);
  await assert.rejects(reader.read(into), /^Error: it has digest/);
  const unreadable = { ...file, read: () => Promise.reject(new SyscallError(constants.errno.EIO, 'read')) };
  const failing = new BlobFile(unreadable, { digest: digestOf(bytes) }, failureOf);
  await assert.rejects(failing.verify(never), { message: 'it cannot be read: i/o error (EIO)' });
  const abort = new AbortController();
  const looking = blob.verify(abort.signal);
  const reason = new Error('enough');
  abort.abort(reason);
  await assert.rejects(looking, reason);
});
