import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { character, dir, fifo, file, hardlink, opaque, symlink, tar, whiteout } from '../support/archive.ts';
import { noOtherUser, noUserNamespace } from '../support/other-user.ts';
import { printTree } from '../support/tree.ts';
import { readXattrs } from '../support/xattrs.ts';
import { netRawCapability } from './access-list.ts';
import { isRoot, temporaryDirectory } from './harness.ts';
import { runPull, writeLayers, type RunOptions } from './run-pull.ts';

/** A caller other than root is the user of these tests. */
const skip = isRoot && noOtherUser;
const nobody = isRoot ? { uid: 65_534, gid: 65_534 } : {};
const own = isRoot ? { uid: 65_534, gid: 65_534 } : { uid: process.geteuid!(), gid: process.getegid!() };

/** Makes a directory in which the unprivileged user may write. */
function place(t: TestContext): string {
  const directory = temporaryDirectory(t);
  if (isRoot) chownSync(directory, own.uid, own.gid);
  return directory;
}

const hard = [
  tar(
    dir('.', { mode: 0o555 }),
    dir('etc', { uid: 5, gid: 7 }),
    file('etc/shadow', 'secret', { mode: 0, gid: 42 }),
    file('su', 'elf', { mode: 0o4755 }),
    file('own-setuid', 'elf', { mode: 0o6755, ...own }),
    file('ping', 'elf', {
      ...own,
      xattrs: { 'security.capability': netRawCapability, 'user.a': '1', 'trusted.b': '2' },
    }),
    character('dev/null', 1, 3, own),
    hardlink('dev/null2', 'dev/null'),
    fifo('dev/pipe', own),
    dir('ro', { mode: 0o555, ...own, mtime: 77 }),
    file('ro/in', '1', own),
    dir('ro/sub', { mode: 0, ...own }),
    file('ro/sub/in', '2', own),
    file('ro/sub/gone', '2', own),
    symlink('link', 'ro/sub', own),
    file('.wh..wh.plnk/1', 'kept aside', { mode: 0, ...own }),
    hardlink('ro/sub/aside', '.wh..wh.plnk/1'),
  ),
  tar(
    whiteout('ro/sub/gone'),
    file('ro/sub/new', '3', own),
    file('link/via', '4', own),
    opaque('etc'),
    file('etc/x', '', own),
  ),
];

for (const backend of ['libc', 'node'] as const) {
  describe(`as an unprivileged user, ${backend}`, { skip }, () => {
    test('owners, devices, capabilities, setuid bits and closed directories, and a second pull', async (t) => {
      const base = place(t);
      const layers = writeLayers(base, hard);
      const directory = join(base, 'rootfs');
      const first = await runPull({ directory, layers, backend }, nobody);
      assert.equal(first.error, undefined);
      assert.equal(first.mode, 'stage');
      const { owners, devices, xattrs, capabilities, setuid } = first.counts!;
      // These are etc, etc/shadow, su, and the root.
      assert.deepEqual(
        { owners, devices, capabilities, setuid },
        { owners: 4, devices: backend === 'libc' ? 2 : 3, capabilities: 1, setuid: 1 },
      );
      assert.equal(xattrs, backend === 'libc' ? 1 : 2);
      const look = (): string => printTree(directory, { root: true, without: ['json'], hide: ['time'] });
      const tree = look();
      const owner = `${own.uid}:${own.gid}`;
      assert.match(tree, new RegExp(`^-rwxr-xr-x ${owner} 3 \\w+ su$`, 'm'));
      assert.match(tree, new RegExp(`^-rwsr-sr-x ${owner} 3 \\w+ own-setuid$`, 'm'));
      assert.match(tree, new RegExp(`^dr-xr-xr-x ${owner} ro/$`, 'm'));
      assert.match(tree, new RegExp(`^d--------- ${owner} ro/sub/$`, 'm'));
      assert.match(tree, new RegExp(`^dr-xr-xr-x ${owner} \\./$`, 'm'));
      assert.equal(statSync(join(directory, 'ro')).mtimeMs, 77_000);
      if (isRoot) {
        assert.deepEqual(readdirSync(join(directory, 'ro/sub')).toSorted(), ['aside', 'in', 'new', 'via']);
        if (backend === 'libc')
          assert.deepEqual(
            readXattrs(join(directory, 'ping')).map(([name]) => name),
            ['user.a'],
          );
      }

      const second = await runPull({ directory, layers, backend, merge: true }, nobody);
      assert.equal(second.error, undefined);
      assert.equal(second.mode, 'overlay');
      assert.equal(look(), tree);
      assert.equal(readFileSync(join(directory, 'json'), 'utf8'), '{}');
    });

    test('what fails leaves nothing, closed directories or not', async (t) => {
      const base = place(t);
      const layers = writeLayers(base, [hard[0]!, tar(hardlink('x', 'nowhere'))]);
      const before = readdirSync(base);
      const { error } = await runPull({ directory: join(base, 'new/rootfs'), layers, backend }, nobody);
      assert.equal(error?.exitCode, 6);
      assert.deepEqual(readdirSync(base), before);
    });

    test('a umask that takes everything changes nothing in the image', async (t) => {
      const base = place(t);
      const layers = writeLayers(base, [
        tar(dir('d', { mode: 0o777 }), file('d/f', '', { mode: 0o666 }), file('e/g', '')),
      ]);
      const directory = join(base, 'rootfs');
      assert.equal((await runPull({ directory, layers, backend, umask: 0o077 }, nobody)).error, undefined);
      const tree = printTree(directory, { root: true, hide: ['time', 'owner'] });
      for (const line of ['drwxr-xr-x ./', 'drwxrwxrwx d/', 'drwxr-xr-x e/'])
        assert.ok(tree.includes(`${line}\n`), tree);
      assert.match(tree, /^-rw-rw-rw- .* d\/f$/m);
    });

    test('a root that is closed to its owner gets its time and mode', async (t) => {
      const base = place(t);
      const layers = writeLayers(base, [tar(file('x', '', own), dir('.', { mode: 0, mtime: 77, ...own }))]);
      const directory = join(base, 'rootfs');
      assert.equal((await runPull({ directory, layers, backend }, nobody)).error, undefined);
      const { mode, mtimeMs } = statSync(directory);
      assert.deepEqual([mode & 0o7777, mtimeMs], [0, 77_000]);
    });

    test('directories in directories, all of them closed to their owner, get their modes', async (t) => {
      const base = place(t);
      // More levels than directories that stay open.
      const levels = 300;
      const paths = Array.from({ length: levels }, (_, n) => 'd/'.repeat(n + 1));
      const layers = writeLayers(base, [tar(...paths.map((path) => dir(path, { mode: 0, ...own })))]);
      const directory = join(base, 'rootfs');
      assert.equal((await runPull({ directory, layers, backend }, nobody)).error, undefined);
      for (const [level, path] of paths.entries()) {
        const found = join(directory, path);
        assert.equal(statSync(found).mode & 0o777, 0, `level ${level}`);
        chmodSync(found, 0o700);
      }
    });

    test('a DIR that may not be written is an error that says so', async (t) => {
      if (!isRoot) return t.skip('needs root, to make a directory of another user');
      const base = temporaryDirectory(t);
      const layers = writeLayers(base, [tar(file('x', ''))]);
      mkdirSync(join(base, 'full'));
      mkdirSync(join(base, 'full/x'));
      mkdirSync(join(base, 'bare'));
      for (const name of ['new', 'a/b/new', 'bare', 'full', 'layer-0.tar', 'layer-0.tar/x']) {
        const { error } = await runPull({ directory: join(base, name), layers, backend }, nobody);
        assert.equal(error?.exitCode, 7, name);
        assert.match(error?.message ?? '', new RegExp(`${name}|${base}`), name);
      }
      assert.deepEqual(readdirSync(base).toSorted(), ['bare', 'full', 'layer-0.tar']);
    });
  });
}

const namespace: RunOptions = { ...nobody, under: ['unshare', '--user', '--map-root-user'] };

test(
  'root of a user namespace with one user: what is not mapped is counted',
  { skip: skip || noUserNamespace },
  async (t) => {
    const base = place(t);
    const layers = writeLayers(base, [
      tar(
        file('mine', 'x', { mode: 0o4755 }),
        file('other', 'x', { uid: 5, gid: 7, mode: 0o4755 }),
        character('null', 1, 3),
        dir('d', { mode: 0o2775, gid: 7 }),
      ),
    ]);
    const directory = join(base, 'rootfs');
    const { counts, error } = await runPull({ directory, layers, backend: 'libc' }, namespace);
    assert.equal(error, undefined);
    assert.deepEqual([counts!.owners, counts!.devices, counts!.setuid], [2, 1, 1]);
    const tree = printTree(directory, { hide: ['time', 'owner'], without: ['json'] });
    assert.match(tree, /^-rwsr-xr-x .* mine\n-rwxr-xr-x .* other\n$/m);
  },
);
