import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { archiveOf, layoutFiles, tagged } from '../layout/build-layout.ts';
import { fifo, file, tar } from '../support/archive.ts';
import { fakeManifest } from '../support/fake-image.ts';
import { printTree } from '../support/tree.ts';
import { temporaryDirectory } from './harness.ts';

const sources = fileURLToPath(new URL('../support/from-sources.ts', import.meta.url));
const said = 'notice: libc cannot be called here: extended attributes, devices and FIFOs are left out';

test('where libc cannot be called, that is said once, and the rest is there', (t) => {
  const directory = temporaryDirectory(t);
  const archive = join(directory, 'image.tar');
  const manifest = fakeManifest({
    layers: [{ tar: tar(file('a', '1'), fifo('p')) }, { tar: tar(file('b', '2')) }],
  });
  writeFileSync(archive, archiveOf(layoutFiles([tagged(manifest, 'v1')])));
  for (const [flags, lines] of [
    [[], []],
    [['--no-addons'], [said, 'notice: 1 device not restored']],
  ] as const) {
    const argv = [
      ...flags,
      sources,
      '--no-json',
      `oci-archive:${archive}`,
      '-d',
      join(directory, `d${lines.length}`),
    ];
    const { status, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    const notices = stderr.split('\n').filter((line) => line.startsWith('notice: '));
    assert.deepEqual(
      notices.map((line) => line.replace(/:? run as root.*/, '')),
      lines,
    );
  }
  assert.equal(
    printTree(join(directory, 'd2'), { text: true, hide: ['mode', 'owner', 'time'] }),
    '- a "1"\n- b "2"\n',
  );
  assert.match(execFileSync('stat', ['-c', '%F', join(directory, 'd0/p')]).toString(), /fifo/);
});
