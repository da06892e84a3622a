import assert from 'node:assert/strict';
import {
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DestinationError } from '../../src/errors.ts';
import { Destination } from '../../src/rootfs/destination.ts';
import { locate } from '../../src/rootfs/location.ts';
import { OpenDirectory } from '../../src/sys/open-directory.ts';
import { isRoot, temporaryDirectory } from './harness.ts';

function identityOf(directory: string): string {
  const { dev, ino } = statSync(directory, { bigint: true });
  return `${dev}:${ino}`;
}

test('what is built in a stage takes the place of a directory with all that is in it', async (t) => {
  const base = temporaryDirectory(t);
  const directory = join(base, 'rootfs');
  mkdirSync(join(directory, 'old'), { recursive: true });
  writeFileSync(join(directory, 'old/file'), 'old');
  const destination = await Destination.replace(directory, []);
  assert.equal(destination.mode, 'stage');
  writeFileSync(join(destination.root.path, 'new'), 'new');
  assert.ok(existsSync(join(directory, 'old/file')));
  await destination.commit(identityOf(destination.root.path));
  assert.deepEqual(readdirSync(base), ['rootfs']);
  assert.deepEqual(readdirSync(directory), ['new']);
});

test('a replacement that is given up leaves the directory as it was', async (t) => {
  const base = temporaryDirectory(t);
  const directory = join(base, 'rootfs');
  mkdirSync(directory);
  writeFileSync(join(directory, 'old'), 'old');
  const destination = await Destination.replace(directory, []);
  writeFileSync(join(destination.root.path, 'new'), 'new');
  await destination.discard();
  assert.deepEqual(readdirSync(base), ['rootfs']);
  assert.equal(readFileSync(join(directory, 'old'), 'utf8'), 'old');
});

test(
  'where another user may rename, only the directory that was found at the start is replaced',
  { skip: isRoot ? false : 'needs root, to give a directory away' },
  async (t) => {
    const base = temporaryDirectory(t);
    for (const name of ['rootfs', 'other']) {
      mkdirSync(join(base, name));
      writeFileSync(join(base, name, name), '');
    }
    for (const [owner, isReplaced] of [
      [0, true],
      [65_534, false],
    ] as const) {
      chownSync(base, owner, owner);
      using destination = await Destination.replace(join(base, 'rootfs'), []);
      writeFileSync(destination.root.at('new'), '');
      renameSync(join(base, 'rootfs'), join(base, 'aside'));
      renameSync(join(base, 'other'), join(base, 'rootfs'));
      const committed = destination.commit(destination.root.identity);
      if (isReplaced) {
        assert.equal(await committed, undefined);
        assert.deepEqual(readdirSync(join(base, 'rootfs')), ['new']);
      } else {
        await assert.rejects(committed, { code: 'SWAPPED', exitCode: 7 });
        await destination.discard();
        assert.deepEqual(readdirSync(join(base, 'rootfs')), ['rootfs']);
      }
      assert.deepEqual(readdirSync(base).toSorted(), ['aside', 'rootfs']);
      renameSync(join(base, 'aside'), join(base, 'other'));
    }
  },
);

test('what cannot be replaced is refused before anything is made', async (t) => {
  const base = temporaryDirectory(t);
  writeFileSync(join(base, 'file'), '');
  for (const place of ['.', '/proc', join(base, 'file')]) {
    await assert.rejects(
      Destination.replace(place, []),
      (error: unknown) => error instanceof DestinationError,
    );
  }
  assert.deepEqual(readdirSync(base), ['file']);
});

test('a directory that other runs replace all the time is found', async (t) => {
  const base = temporaryDirectory(t);
  const [one, other] = [join(base, 'one'), join(base, 'other')];
  for (const place of [one, other]) mkdirSync(place);
  using directory = OpenDirectory.open(base);
  const timer = setInterval(() => directory.exchange('one', 'other'), 0);
  try {
    for (let round = 0; round < 100; round += 1) {
      using location = locate(other);
      assert.equal(location.root?.path, other);
      await new Promise(setImmediate);
    }
  } finally {
    clearInterval(timer);
  }
});
