import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { until } from '../support/until.ts';
import { Setting, assertOriginalLines } from './setting.ts';
import { noOtherUser } from '../support/other-user.ts';

interface Damage {
  readonly what: string;
  readonly root?: true;
  /** Damages a file of the store; `aside` is a place outside of it. */
  readonly to: (file: string, aside: string) => void;
}

const flip = (file: string, at: number) => {
  const bytes = readFileSync(file);
  bytes[at]! ^= 0xff;
  writeFileSync(file, bytes);
};
const replaced = (file: string, by: () => void) => {
  rmSync(file);
  by();
};

const damages: readonly Damage[] = [
  { what: 'a flipped byte in the middle', to: (file) => flip(file, readFileSync(file).length >> 1) },
  { what: 'a flipped byte at the end', to: (file) => flip(file, readFileSync(file).length - 1) },
  { what: 'a truncated file', to: (file) => truncateSync(file, readFileSync(file).length - 100) },
  { what: 'an empty file', to: (file) => truncateSync(file, 0) },
  { what: 'bytes too many', to: (file) => appendFileSync(file, 'more') },
  {
    what: 'a planted symlink',
    to: (file, aside) => {
      renameSync(file, aside);
      symlinkSync(aside, file);
    },
  },
  {
    what: 'a hard link that somebody else may have',
    to: (file, aside) => linkSync(file, aside),
  },
  {
    what: 'a directory',
    to: (file) => replaced(file, () => mkdirSync(`${file}/in/it`, { recursive: true })),
  },
  { what: 'a pipe', to: (file) => replaced(file, () => execFileSync('mkfifo', [file])) },
  { what: "another user's file", root: true, to: (file) => chownSync(file, 65534, 65534) },
  { what: 'a file that cannot be read', to: (file) => chmodSync(file, 0) },
];

for (const { what, root, to } of damages) {
  test(`the cache has ${what} for a layer: exit 0, the right tree, every line once`, async (t) => {
    if (root && missing('root') !== false) return t.skip('needs root');
    await using setting = await Setting.open();
    await setting.pullWell();
    const [first, , last] = setting.image.layers;
    for (const { digest } of [first!, last!]) {
      to(setting.blob(digest), setting.scratch.join(`aside-${digest.slice(7, 12)}`));
    }
    const { stdout } = await setting.pullWell(['-d', 'again']);
    assertOriginalLines(stdout, setting.image);
    assert.equal(setting.tree('again'), setting.tree('out'));
    assert.deepEqual(
      setting.names.filter((name) => !name.startsWith('aside')),
      ['again', 'out'],
    );
    // The cache is repaired: the third run fetches nothing.
    setting.registry.requests.length = 0;
    await setting.pullWell(['-d', 'third']);
    assert.deepEqual(setting.registry.log(/\/blobs\//), []);
    assert.equal(setting.tree('third'), setting.tree('out'));
    return undefined;
  });
}

test('a cache damaged everywhere, manifest, config and tags too: exit 0 and the right tree', async () => {
  await using setting = await Setting.open();
  await setting.pullWell();
  const files = readdirSync(setting.store, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`);
  assert.ok(files.length >= 6, files.join(' '));
  for (const file of files) flip(file, readFileSync(file).length >> 1);
  const { stdout } = await setting.pullWell(['-d', 'again']);
  assertOriginalLines(stdout, setting.image);
  assert.equal(setting.tree('again'), setting.tree('out'));
});

test('what a killed run left is damaged: exit 0, the right tree, and every line once', async () => {
  await using setting = await Setting.open(undefined, {
    faults: [{ path: /\/blobs\//, skip: 1, stallAfter: 300_000, times: 3 }],
  });
  const killed = setting.start();
  await until('300,000 bytes', () => setting.partial(0) === 300_000 && setting.partial(2) === 300_000);
  killed.kill('SIGKILL');
  await killed.result;
  for (const n of [0, 2]) {
    const name = setting.image.layers[n]!.digest.replace(':', '-');
    flip(`${setting.store}/partial/${name}`, 1000);
  }
  await using sound = await Setting.open();
  const argv = ['--cache-dir', setting.store];
  // Another registry has the same blobs, without faults.
  for (const layer of setting.image.layers)
    sound.registry.putBlob('lib/img', setting.image.blobs.get(layer.digest)!);
  sound.registry.putBlob('lib/img', setting.image.blobs.get(setting.image.configDigest)!);
  sound.registry.putManifest('lib/img', '1', setting.image);
  const { stdout, stderr } = await sound.pullWell(argv);
  assertOriginalLines(stdout, setting.image);
  assert.match(stderr, /digest sha256:.*starting the pull again without it/);
  await sound.pullWell(['-d', 'fresh', '--no-cache']);
  assert.equal(sound.tree('out'), sound.tree('fresh'));
});

interface Unusable {
  readonly what: string;
  readonly says: RegExp;
  readonly root?: true;
  readonly prepare: (setting: Setting) => void;
  readonly uid?: number;
}

const unusable: readonly Unusable[] = [
  {
    what: 'a file',
    says: /^notice: continuing without the cache: .*store/m,
    prepare: ({ store }) => writeFileSync(store, ''),
  },
  {
    what: "another user's",
    root: true,
    says: /^notice: continuing without the cache: .*belongs to user 65534, not to user 0$/m,
    prepare: ({ store }) => {
      mkdirSync(store);
      chownSync(store, 65534, 65534);
    },
  },
  {
    what: 'open to everybody',
    says: /^notice: continuing without the cache: .*can be written by others$/m,
    prepare: ({ store }) => {
      mkdirSync(store);
      chmodSync(store, 0o777);
    },
  },
  {
    what: 'a directory whose blobs are a planted symlink',
    says: /^notice: continuing without the cache: cannot open .*blobs: not a directory \(ENOTDIR\)$/m,
    prepare: ({ store, scratch }) => {
      mkdirSync(store, { mode: 0o700 });
      const signature = 'Signature: 8a477f597d28d172789f06886806bc55';
      const line = '# This file is a cache directory tag created by dlrootfs.';
      writeFileSync(`${store}/CACHEDIR.TAG`, `${signature}\n${line}\n`);
      mkdirSync(scratch.join('elsewhere'));
      symlinkSync(scratch.join('elsewhere'), `${store}/blobs`);
    },
  },
  {
    what: "a user's own, but read-only",
    root: true,
    uid: 65534,
    says: /^notice: continuing without the cache: .*EACCES/m,
    prepare: ({ store, scratch }) => {
      mkdirSync(store);
      chownSync(store, 65534, 65534);
      chmodSync(store, 0o500);
      chownSync(scratch.path, 65534, 65534);
    },
  },
];

for (const { what, says, root, prepare, uid } of unusable) {
  test(`the cache directory is ${what}: one notice, exit 0 and the right tree`, async (t) => {
    if (root && missing('root') !== false) return t.skip('needs root');
    if (uid !== undefined && noOtherUser !== false) return t.skip(noOtherUser);
    await using setting = await Setting.open();
    prepare(setting);
    const { stdout, stderr } = await setting.pullWell([], uid === undefined ? {} : { uid });
    assertOriginalLines(stdout, setting.image);
    assert.match(stderr, says);
    assert.equal(stderr.match(/^notice: /gm)!.length, uid === undefined ? 1 : 2, stderr);
    assert.match(setting.tree(), /etc\/motd/);
    if (setting.names.includes('elsewhere')) {
      assert.deepEqual(readdirSync(setting.scratch.join('elsewhere')), []);
    }
    return undefined;
  });
}
