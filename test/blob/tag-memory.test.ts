import assert from 'node:assert/strict';
import { readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Store } from '../../src/blob/store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { dir, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';

const digest = digestOf(Buffer.from('manifest'));
const openStore = (scratch: Scratch) =>
  Store.open({
    directory: scratch.join('store'),
    spoolDirectory: scratch.path,
    maxBytes: 2 ** 30,
    report: () => undefined,
  });

test('tags: what was remembered is recalled by another run', async () => {
  using scratch = new Scratch();
  const store = await openStore(scratch);
  assert.equal(await store.recall('library/x:1'), undefined);
  await store.remember('library/x:1', digest);
  await store.close();
  const recalled = await (await openStore(scratch)).recall('library/x:1');
  assert.equal(recalled?.digest, digest);
  assert.ok(Math.abs(Date.now() - recalled.at.getTime()) < 60_000);
  assert.equal(await (await openStore(scratch)).recall('library/x:2'), undefined);
});

test('tags: garbage and planted links recall nothing', async () => {
  using scratch = new Scratch();
  const store = await openStore(scratch);
  await store.remember('library/x:1', digest);
  const [name] = readdirSync(scratch.join('store/tags'));
  writeFileSync(scratch.join('store/tags', name!), 'garbage');
  assert.equal(await store.recall('library/x:1'), undefined);
  const hex = (await import('node:crypto')).hash('sha256', 'library/y:1');
  writeFileSync(scratch.join('elsewhere'), digest);
  symlinkSync(scratch.join('elsewhere'), scratch.join('store/tags', hex));
  assert.equal(await store.recall('library/y:1'), undefined);
});

test('tags: the first pull asks for a manifest once, the next by HEAD, and nothing else', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers: [{ tar: tar(dir('etc')) }] });
  const pull = async (destination: string) => {
    registry.requests.length = 0;
    const argv = [
      registry.reference('lib/img', '1'),
      '-d',
      destination,
      '--cache-dir',
      scratch.join('store'),
    ];
    const { exitCode, stderr } = await runProgram(argv, { cwd: scratch.path });
    assert.equal(exitCode, 0, stderr);
    return registry.log().map((line) => line.replace(/sha256:\w+/, 'DIGEST'));
  };
  const blob = 'GET /v2/lib/img/blobs/DIGEST';
  assert.deepEqual(await pull('a'), ['GET /v2/', 'GET /v2/lib/img/manifests/1', blob, blob]);
  assert.deepEqual(await pull('b'), ['GET /v2/', 'HEAD /v2/lib/img/manifests/1']);
});
