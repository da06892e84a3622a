import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, truncateSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { GitError } from '../../src/errors.ts';
import { ObjectStore, packBlobs } from '../../src/git/object-store.ts';
import { ID_BYTES } from '../../src/git/trees.ts';
import { contentIn } from '../../src/git/pack-writer.ts';
import { git, scratch } from './git.ts';

type ContentSource = Parameters<typeof packBlobs>[0];

/** Returns a source of contents in memory. */
function contentsOf(list: readonly (Uint8Array | 'flush')[]): ContentSource {
  let next = 0;
  let count = 0;
  let number = 0;
  let rest: Uint8Array = new Uint8Array(0);
  return {
    get number() {
      return number;
    },
    next() {
      const content = list[next];
      next += 1;
      number = count;
      if (content === undefined || content === 'flush') return content;
      count += 1;
      rest = content;
      return content.length;
    },
    fill(into, at, length) {
      if (length > rest.length) return false;
      into.set(rest.subarray(0, length), at);
      rest = rest.subarray(length);
      return true;
    },
  };
}

const blobId = (bytes: Uint8Array): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

/** Packs the contents; returns a list of names for each answer. */
async function pack(directory: string, list: readonly (Uint8Array | 'flush')[]): Promise<string[][]> {
  const answers: string[][] = [];
  await packBlobs(contentsOf(list), path.join(directory, '.git/objects/pack'), ({ first, ids }) => {
    assert.equal(first, answers.flat().length);
    const hex = Buffer.from(ids).toString('hex');
    answers.push(hex.match(new RegExp(`.{${2 * ID_BYTES}}`, 'g')) ?? []);
  });
  return answers;
}

test('names come in the order of the contents, at once where they are asked for', async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const contents = [3, 0, 300_000, 5_000_000].map((size) => randomBytes(size));
  const [one, two, three, four] = contents as [Buffer, Buffer, Buffer, Buffer];
  const answers = await pack(directory, ['flush', one, two, 'flush', 'flush', one, three, four]);
  assert.deepEqual(
    answers,
    [
      [one, two],
      [one, three, four],
    ].map((list) => list.map(blobId)),
  );
  for (const bytes of contents) assert.equal(git(directory, 'cat-file', '-t', blobId(bytes)), 'blob\n');
  assert.equal(git(directory, 'cat-file', 'blob', blobId(three)), three.toString('latin1'));
});

test('thousands of names come in several answers', async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const contents = Array.from({ length: 5000 }, (_, number) => Buffer.from(String(number)));
  const answers = await pack(directory, contents);
  assert.deepEqual(answers.flat(), contents.map(blobId));
  assert.ok(answers.length > 2);
});

test('much is packed in several packs, each content in one of them', async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const contents = Array.from({ length: 9 }, () => randomBytes(16 * 2 ** 20));
  await pack(directory, [...contents, ...contents]);
  const packs = readdirSync(path.join(directory, '.git/objects/pack'));
  assert.equal(packs.filter((name) => name.endsWith('.pack')).length, 3, packs.join(' '));
  assert.match(git(directory, 'count-objects', '-v'), /^in-pack: 9$/m);
  assert.equal(git(directory, 'fsck', '--strict', '--full').match(/^dangling blob/gm)?.length, 9);
});

test('a content that ends early is an error', async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const short: ContentSource = { number: 0, next: () => 10, fill: () => false };
  await assert.rejects(
    packBlobs(short, path.join(directory, '.git/objects/pack'), () => undefined),
    GitError,
  );
});

test('a pack that somebody cuts off is an error', { timeout: 30_000 }, async (t) => {
  const directory = scratch(t);
  git(directory, 'init', '--quiet');
  const packs = path.join(directory, '.git/objects/pack');
  let completing = false;
  const store = new ObjectStore(packs, async () => {
    if (completing) for (const name of readdirSync(packs)) truncateSync(path.join(packs, name));
    return Promise.resolve();
  });
  const bytes = randomBytes(5_000_000);
  await store.add(bytes.length, contentIn(bytes));
  completing = true;
  await assert.rejects(
    store.complete(),
    (error) => error instanceof GitError && /cut off/.test(error.message),
  );
  assert.deepEqual(readdirSync(packs), []);
});
