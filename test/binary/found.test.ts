// What `make fuzz` has found, one test each.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { file, tar } from '../support/archive.ts';
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
  assert.match(stderr, /^error: .*config\\x1b\[2J\\x93\\u\{202e\}\.json\nhint: .*\n$/);
  assert.deepEqual(readdirSync(scratch.path), []);
});
