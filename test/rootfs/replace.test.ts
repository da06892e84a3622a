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
import { replaceDirectory } from '../../src/rootfs/replacement.ts';
import { makeStage, removeReplaced } from '../../src/rootfs/stage.ts';
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

test(
  'a directory that another user puts there just before the exchange gets its name back',
  { skip: isRoot ? false : 'needs root, to give a directory away' },
  (t) => {
    const base = temporaryDirectory(t);
    for (const name of ['rootfs', 'other', 'stage']) {
      mkdirSync(join(base, name));
      writeFileSync(join(base, name, name), '');
    }
    chownSync(base, 65_534, 65_534);
    const before = identityOf(join(base, 'rootfs'));
    using directory = OpenDirectory.open(base);
    const exchange = directory.exchange.bind(directory);
    directory.exchange = (one, other) => {
      directory.exchange = exchange;
      renameSync(join(base, 'rootfs'), join(base, 'aside'));
      renameSync(join(base, 'other'), join(base, 'rootfs'));
      return exchange(one, other);
    };
    const place = { directory, name: 'rootfs' };
    const replacement = { identity: before, kept: [] };
    assert.throws(() => replaceDirectory(place, 'stage', identityOf(join(base, 'stage')), replacement), {
      code: 'SWAPPED',
      exitCode: 7,
    });
    assert.deepEqual(readdirSync(base).toSorted(), ['aside', 'rootfs', 'stage']);
    assert.deepEqual(readdirSync(join(base, 'rootfs')), ['other']);
    assert.deepEqual(readdirSync(join(base, 'stage')), ['stage']);
  },
);

test(
  'where another user may rename, nothing takes the place of a directory that has gone',
  { skip: isRoot ? false : 'needs root, to give a directory away' },
  (t) => {
    const base = temporaryDirectory(t);
    for (const name of ['rootfs', 'stage']) mkdirSync(join(base, name));
    chownSync(base, 65_534, 65_534);
    const [before, stage] = [identityOf(join(base, 'rootfs')), identityOf(join(base, 'stage'))];
    renameSync(join(base, 'rootfs'), join(base, 'aside'));
    using directory = OpenDirectory.open(base);
    assert.throws(
      () => replaceDirectory({ directory, name: 'rootfs' }, 'stage', stage, { identity: before, kept: [] }),
      { code: 'SWAPPED', exitCode: 7 },
    );
    assert.deepEqual(readdirSync(base).toSorted(), ['aside', 'stage']);
  },
);

test('a directory with files that another process puts in the place of a new stage is no stage', (t) => {
  const base = temporaryDirectory(t);
  using directory = OpenDirectory.open(base);
  const openChild = directory.openChild.bind(directory);
  directory.openChild = (name) => {
    renameSync(join(base, name), join(base, 'aside'));
    mkdirSync(join(base, name));
    writeFileSync(join(base, name, 'file'), '');
    return openChild(name);
  };
  assert.throws(() => makeStage({ directory, name: 'rootfs' }), { code: 'SWAPPED', exitCode: 7 });
  const stage = readdirSync(base).find((name) => name !== 'aside');
  assert.deepEqual(readdirSync(join(base, stage!)), ['file']);
});

test('of what was replaced only that is removed: neither a file nor a directory with its name', async (t) => {
  const base = temporaryDirectory(t);
  mkdirSync(join(base, 'replaced'));
  mkdirSync(join(base, 'directory'));
  writeFileSync(join(base, 'file'), '');
  const identity = identityOf(join(base, 'replaced'));
  using directory = OpenDirectory.open(base);
  for (const name of ['directory', 'file'])
    await assert.rejects(removeReplaced({ directory, name }, identity), { code: 'SWAPPED', exitCode: 7 });
  assert.deepEqual(readdirSync(base).toSorted(), ['directory', 'file', 'replaced']);
  await removeReplaced({ directory, name: 'replaced' }, identity);
  assert.deepEqual(readdirSync(base).toSorted(), ['directory', 'file']);
});

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
