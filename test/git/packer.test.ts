import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { GitError } from '../../src/errors.ts';
import { FileRecords } from '../../src/git/file-records.ts';
import { Packer } from '../../src/git/packer.ts';
import { ID_BYTES } from '../../src/git/trees.ts';
import { ContentWriter } from '../../src/rootfs/contents.ts';
import { Scratch } from '../support/program.ts';

test('ids of blobs come back, and the packs are there when it has finished', async () => {
  using scratch = new Scratch();
  mkdirSync(scratch.join('.git/objects/pack'), { recursive: true });
  const records = new FileRecords();
  const packer = new Packer(scratch.path, records);
  const writer = new ContentWriter(packer.ring);
  writer.write(Buffer.from('abc'));
  writer.end();
  await packer.finished;
  await packer.named(1);
  const id = Buffer.alloc(ID_BYTES);
  records.copyId(0, id, 0);
  assert.equal(id.toString('hex'), createHash('sha1').update('blob 3\0abc').digest('hex'));
  await assert.rejects(packer.named(2), { code: 'GIT_CHANGES' });
  const cause = new Error('of another thread');
  assert.equal(await packer.explainFailure(cause), cause);
  await packer.discard();
});

const said = (error: unknown): boolean => error instanceof GitError && /ENOENT/.test(error.message);

test('the writer stops with the error of the packer', async () => {
  using scratch = new Scratch();
  const packer = new Packer(path.join(scratch.path, 'nowhere'), new FileRecords());
  const writer = new ContentWriter(packer.ring);
  assert.throws(
    () => {
      for (;;) writer.write(Buffer.alloc(100_000));
    },
    { code: 'CONTENTS_REFUSED' },
  );
  assert.ok(said(await packer.explainFailure(new Error('refused'))));
  await assert.rejects(packer.finished, said);
  await packer.discard();
});

test('stopped at any moment, the thread ends by itself (terminate() may end the process)', async () => {
  using scratch = new Scratch();
  mkdirSync(scratch.join('.git/objects/pack'), { recursive: true });
  for (const delay of [0, 20, 40, 60, 80]) {
    const packer = new Packer(scratch.path, new FileRecords());
    new ContentWriter(packer.ring).write(Buffer.alloc(300_000));
    await sleep(delay);
    await packer.discard();
    await assert.rejects(packer.finished, /ended with code 0/);
  }
});

test('stopped, it releases the waiting writer', async () => {
  using scratch = new Scratch();
  mkdirSync(scratch.join('.git/objects/pack'), { recursive: true });
  const packer = new Packer(scratch.path, new FileRecords());
  await packer.discard();
  const writer = new ContentWriter(packer.ring);
  assert.throws(() => writer.flush(), { code: 'CONTENTS_REFUSED' });
  await assert.rejects(packer.finished, GitError);
});
