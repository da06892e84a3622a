import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DestinationError } from '../../src/errors.ts';
import { Destination } from '../../src/rootfs/destination.ts';
import { locate } from '../../src/rootfs/location.ts';
import { replaceDirectory } from '../../src/sys/temp-file.ts';
import { temporaryDirectory } from './harness.ts';

function identityOf(directory: string): string {
  const { dev, ino } = statSync(directory, { bigint: true });
  return `${dev}:${ino}`;
}

test('what is built in a stage takes the place of a directory with all that is in it', async (t) => {
  const base = temporaryDirectory(t);
  const directory = join(base, 'rootfs');
  mkdirSync(join(directory, 'old'), { recursive: true });
  writeFileSync(join(directory, 'old/file'), 'old');
  const destination = await Destination.replace(directory);
  assert.equal(destination.mode, 'stage');
  writeFileSync(join(destination.path, 'new'), 'new');
  assert.ok(existsSync(join(directory, 'old/file')));
  await destination.commit(identityOf(destination.path));
  assert.deepEqual(readdirSync(base), ['rootfs']);
  assert.deepEqual(readdirSync(directory), ['new']);
});

test('a replacement that is given up leaves the directory as it was', async (t) => {
  const base = temporaryDirectory(t);
  const directory = join(base, 'rootfs');
  mkdirSync(directory);
  writeFileSync(join(directory, 'old'), 'old');
  const destination = await Destination.replace(directory);
  writeFileSync(join(destination.path, 'new'), 'new');
  await destination.discard();
  assert.deepEqual(readdirSync(base), ['rootfs']);
  assert.equal(readFileSync(join(directory, 'old'), 'utf8'), 'old');
});

test('what cannot be replaced is refused before anything is made', async (t) => {
  const base = temporaryDirectory(t);
  writeFileSync(join(base, 'file'), '');
  for (const place of ['.', '/proc', join(base, 'file')]) {
    await assert.rejects(Destination.replace(place), (error: unknown) => error instanceof DestinationError);
  }
  assert.deepEqual(readdirSync(base), ['file']);
});

test('a directory takes the place of another one, or both stay', (t) => {
  const base = temporaryDirectory(t);
  for (const name of ['one', 'other']) {
    mkdirSync(join(base, name));
    writeFileSync(join(base, name, name), '');
  }
  const replace = (stage: string) =>
    replaceDirectory(join(base, stage), join(base, 'other'), join(base, 'aside'));
  assert.deepEqual(replace('one'), [join(base, 'one')]);
  assert.deepEqual(readdirSync(join(base, 'one')), ['other']);
  assert.deepEqual(readdirSync(join(base, 'other')), ['one']);
  assert.throws(() => replace('missing'), { code: 'ENOENT' });
  assert.deepEqual(readdirSync(join(base, 'other')), ['one']);
  assert.deepEqual(readdirSync(base).toSorted(), ['one', 'other']);
});

test('a directory that other runs replace all the time is found', async (t) => {
  const base = temporaryDirectory(t);
  const [one, other] = [join(base, 'one'), join(base, 'other')];
  for (const place of [one, other]) mkdirSync(place);
  const timer = setInterval(() => replaceDirectory(one, other, join(base, 'aside')), 0);
  try {
    for (let round = 0; round < 100; round += 1) assert.equal((await locate(other)).path, other);
  } finally {
    clearInterval(timer);
  }
});
