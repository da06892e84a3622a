import assert from 'node:assert/strict';
import diagnostics from 'node:diagnostics_channel';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Worker } from 'node:worker_threads';
import { type TreeChange, readChanges } from '../../src/rootfs/changes.ts';
import { nothingLost } from '../../src/rootfs/not-restored.ts';
import { createRing } from '../../src/sys/ring.ts';
import { Rootfs } from '../../src/rootfs/rootfs.ts';
import { dir, file, hardlink, symlink, tar, whiteout } from '../support/archive.ts';
import { printTree } from '../support/tree.ts';
import { chunks, isRoot, openRootfs, temporaryDirectory } from './harness.ts';

const label = 'layer 0123456789ab';

/** Yields a layer without end. */
async function* endless(): AsyncGenerator<Uint8Array> {
  for (let count = 0; ; count += 1) {
    yield file(`f${count}`, Buffer.alloc(100_000)).encode('ustar');
  }
}

for (const backend of ['libc', 'node'] as const) {
  describe(`a rootfs written by its thread, ${backend}`, () => {
    test('layers in chunks of any size, our own file, the end', async (t) => {
      const root = temporaryDirectory(t);
      let changes: TreeChange[] = [];
      await using opened = await openRootfs(root, {
        mode: 'stage',
        backend,
        contents: createRing(16 * 1024 * 1024),
        onChanges: (records) => changes.push(...readChanges(records)),
      });
      const { rootfs } = opened;
      assert.equal(rootfs.backend, backend);
      const big = Buffer.alloc(9_000_000, 'x');
      const first = await rootfs.apply(chunks(tar(dir('d'), file('d/big', big), file('gone', '')), 100_000), {
        label,
      });
      assert.equal(first, 3);
      changes = [];
      const second = await rootfs.apply(chunks(tar(whiteout('gone'), symlink('l', 'd')), 7), { label });
      assert.equal(second, 2);
      assert.equal(await rootfs.writeLayerInfo('json', Buffer.from('{}')), true);
      assert.deepEqual(changes, [
        { kind: 'removed', path: 'gone', target: '', number: 0 },
        { kind: 'symlink', path: 'l', target: '', number: 2 },
        { kind: 'file', path: 'json', target: '', number: 3 },
      ]);
      const counts = await rootfs.close({ mode: 0o755, uid: undefined, gid: undefined });
      assert.deepEqual({ ...counts, owners: 0 }, nothingLost());
      assert.equal(counts.owners, isRoot ? 0 : 4);
      assert.equal(printTree(root, { hide: ['time', 'owner', 'mode'] }).split('\n').length, 5);
      assert.ok(readFileSync(join(root, 'd/big')).equals(big));
    });

    test('our own file is replaced by the next one, but not a file of the image with its name', async (t) => {
      const root = temporaryDirectory(t);
      await using opened = await openRootfs(root, { mode: 'stage', backend });
      const { rootfs } = opened;
      const apply = (layer: Uint8Array) => rootfs.apply(chunks(layer), { label });
      const write = (text: string) => rootfs.writeLayerInfo('json', Buffer.from(text));
      const found = () => readFileSync(join(root, 'json'), 'utf8');
      await apply(tar(file('x', '')));
      assert.deepEqual([await write('one'), found()], [true, 'one']);
      await apply(tar(file('x', '')));
      assert.deepEqual([await write('two'), found()], [true, 'two']);
      await apply(tar(file('json', 'of the image')));
      assert.deepEqual([await write('three'), found()], [false, 'of the image']);
      await rootfs.close();
    });

    test('an error of the layer says where, and discarding leaves the directory empty', async (t) => {
      const root = temporaryDirectory(t);
      await using opened = await openRootfs(root, { mode: 'stage', backend });
      const { rootfs } = opened;
      await rootfs.apply(chunks(tar(file('a/b/c', ''), symlink('l', '/etc'))), { label });
      await assert.rejects(
        rootfs.apply(chunks(tar(file('x', ''), hardlink('new\nline', 'nowhere'))), { label }),
        {
          name: 'IntegrityError',
          exitCode: 6,
          code: 'ENOENT',
          message: /^layer 0123456789ab: new\\x0aline: cannot link to nowhere/,
        },
      );
      await rootfs.discard();
      assert.deepEqual(readdirSync(root), []);
    });

    test('a broken archive is an IntegrityError', async (t) => {
      await using opened = await openRootfs(temporaryDirectory(t), { mode: 'stage', backend });
      const { rootfs } = opened;
      const layer = tar(file('x', Buffer.alloc(10_000)));
      await assert.rejects(rootfs.apply(chunks(layer.subarray(0, 5000)), { label }), {
        exitCode: 6,
        message: /layer 0123456789ab/,
      });
      await rootfs.discard();
    });

    test('bytes after the end mark are read and left alone', async (t) => {
      const root = temporaryDirectory(t);
      await using opened = await openRootfs(root, { mode: 'stage', backend });
      const { rootfs } = opened;
      const layer = Buffer.concat([tar(file('x', '')), Buffer.alloc(9_000_000, 'garbage')]);
      let taken = 0;
      const counted = (async function* (): AsyncGenerator<Uint8Array> {
        for await (const chunk of chunks(layer)) {
          taken += chunk.length;
          yield chunk;
        }
      })();
      await rootfs.apply(counted, { label });
      assert.equal(taken, layer.length);
      await rootfs.close();
      assert.deepEqual(readdirSync(root), ['x']);
    });

    test('an error of the source is thrown as it is', async (t) => {
      const root = temporaryDirectory(t);
      await using opened = await openRootfs(root, { mode: 'stage', backend });
      const { rootfs } = opened;
      const failure = new Error('the network is down');
      const broken = (async function* (): AsyncGenerator<Uint8Array> {
        yield tar(file('x', Buffer.alloc(100_000))).subarray(0, 50_000);
        throw failure;
      })();
      await assert.rejects(rootfs.apply(broken, { label }), (error) => error === failure);
      await rootfs.discard();
      assert.deepEqual(readdirSync(root), []);
    });

    test('a signal ends it, while bytes come and while none do', async (t) => {
      for (const source of [
        endless(),
        (async function* (): AsyncGenerator<Uint8Array> {
          yield Buffer.alloc(512);
          await new Promise((resolve) => setTimeout(resolve, 200));
        })(),
      ]) {
        const root = temporaryDirectory(t);
        await using opened = await openRootfs(root, { mode: 'stage', backend });
        const { rootfs } = opened;
        const controller = new AbortController();
        const reason = new Error('enough');
        setTimeout(() => controller.abort(reason), 50);
        await assert.rejects(
          rootfs.apply(source, { label, signal: controller.signal }),
          (error) => error === reason,
        );
        await rootfs.discard();
        assert.deepEqual(readdirSync(root), []);
      }
    });

    test('discarding while a layer is applied', async (t) => {
      const root = temporaryDirectory(t);
      await using opened = await openRootfs(root, { mode: 'stage', backend });
      const { rootfs } = opened;
      const applied = rootfs.apply(endless(), { label });
      applied.catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 50));
      await rootfs.discard();
      await assert.rejects(applied, { name: 'Error', message: 'the stream was aborted' });
      assert.deepEqual(readdirSync(root), []);
    });

    test('a discarded overlay keeps what is there', async (t) => {
      const root = temporaryDirectory(t);
      await using opened = await openRootfs(root, { mode: 'overlay', backend });
      const { rootfs } = opened;
      await rootfs.apply(chunks(tar(file('x', ''))), { label });
      await rootfs.discard();
      assert.deepEqual(readdirSync(root), ['x']);
    });
  });
}

test('the death of the thread is an error, not a wait', async (t) => {
  const started: Worker[] = [];
  const note = (message: unknown): void => void started.push((message as { worker: Worker }).worker);
  diagnostics.subscribe('worker_threads', note);
  await using opened = await openRootfs(temporaryDirectory(t), { mode: 'stage' });
  const { rootfs } = opened;
  diagnostics.unsubscribe('worker_threads', note);
  const dying = (async function* (): AsyncGenerator<Uint8Array> {
    let count = 0;
    for await (const chunk of endless()) {
      // The ring was full several times, so the thread has read from it.
      if ((count += 1) === 100) void started[0]!.terminate();
      yield chunk;
    }
  })();
  await assert.rejects(rootfs.apply(dying, { label }), { name: 'DestinationError', code: 'THREAD_DIED' });
  await assert.rejects(rootfs.close(), { code: 'THREAD_DIED' });
  await rootfs.discard();
});

test('a directory that is not there, or is no directory, cannot be opened', async (t) => {
  const root = temporaryDirectory(t);
  for (const backend of ['libc', 'node'] as const) {
    await assert.rejects(Rootfs.open(join(root, 'no'), { mode: 'stage', backend }), { exitCode: 7 });
    await assert.rejects(Rootfs.open('/dev/null', { mode: 'stage', backend }), { exitCode: 7 });
  }
});

test('two runs do not get one stage', async (t) => {
  const root = temporaryDirectory(t);
  await using first = await openRootfs(root, { mode: 'stage', backend: 'libc' });
  await assert.rejects(Rootfs.open(root, { mode: 'stage', backend: 'libc' }), { code: 'BUSY', exitCode: 7 });
  await first.rootfs.discard();
  await using second = await openRootfs(root, { mode: 'stage', backend: 'libc' });
  await second.rootfs.discard();
});
