// Defects that `make fuzz` has found, one test each.
import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { file, sparse, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { programCommand, runProgram, Scratch } from '../support/program.ts';

const built = programCommand.length === 1 ? false : 'needs DLROOTFS_BINARY: make test';

test('binary: a name in an archive with control characters is not printed raw', { skip: built }, async () => {
  using scratch = new Scratch();
  const manifest = [
    { Config: 'config\u001b[2J\u0093\u202e.json', RepoTags: ['a:1'], Layers: ['0/layer.tar'] },
  ];
  const stdin = tar(file('manifest.json', JSON.stringify(manifest)), file('0/layer.tar', tar()));
  const { exitCode, stderr } = await runProgram(['-', '-d', 'out'], { cwd: scratch.path, stdin });
  assert.equal(exitCode, 3, stderr);
  assert.match(stderr, /^error: .*config\\x1b\[2J\\x93\\u\{202e\}\.json is missing\nhint: .*\n$/);
  assert.deepEqual(readdirSync(scratch.path), []);
});

for (const format of ['gnu', '1.0'] as const) {
  test(
    `binary: a file of 1 TiB of holes (${format}) is refused with -g, which would store them, and not otherwise`,
    { skip: built || missing('git') },
    async () => {
      using scratch = new Scratch();
      await using registry = await FakeRegistry.start();
      const holes = sparse('holes', 2 ** 40, [[4096, 'x']], format);
      registry.push('lib/img', '1', { layers: [{ tar: tar(holes) }] });
      const pull = (...flags: readonly string[]) =>
        runProgram([registry.reference('lib/img', '1'), '--no-cache', ...flags], { cwd: scratch.path });
      const refused = await pull('-g', '-d', 'git');
      assert.equal(refused.exitCode, 7, refused.stderr);
      assert.match(refused.stderr, /^error: .*holes.*(?:disk|space).*\nhint: /m);
      const plain = await pull('-d', 'plain');
      assert.equal(plain.exitCode, 0, plain.stderr);
      assert.deepEqual(readdirSync(scratch.path), ['plain']);
      assert.equal(statSync(scratch.join('plain/holes')).size, 2 ** 40);
    },
  );
}
