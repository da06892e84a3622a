import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  file,
  header,
  longHeader,
  padded,
  paxHeader,
  raw,
  symlink,
  tar,
  v7Magic,
} from '../support/archive.ts';
import { readArchive, summary } from '../support/read-archive.ts';

const long = 'l'.repeat(300);

describe('where headers disagree, a TarReader', () => {
  const inner = tar(file('smuggled', 'evil')).subarray(0, 1024);

  it('takes the length of the data from the pax header (CVE-2025-62518)', () => {
    const archive = tar(
      raw(paxHeader([['size', '1024']]), header({ name: 'outer', size: 0 }), inner),
      file('after', 'x'),
    );
    assert.deepEqual(readArchive(archive).map(summary), ['-0644 0:0 1024 outer', '-0644 0:0 1 after']);
  });

  it('takes it also when the header says more', () => {
    const archive = tar(
      raw(paxHeader([['size', '0']]), header({ name: 'outer', size: 1024 })),
      file('shown', 'x'),
    );
    assert.deepEqual(readArchive(archive).map(summary), ['-0644 0:0 0 outer', '-0644 0:0 1 shown']);
  });

  it('never applies that size to a meta header in between', () => {
    const archive = tar(
      raw(
        paxHeader([['size', '3']]),
        longHeader('L', long),
        header({ name: 'cut', size: 0 }),
        padded(Buffer.from('abc')),
      ),
      file('after'),
    );
    assert.deepEqual(readArchive(archive).map(summary), [`-0644 0:0 3 ${long}`, '-0644 0:0 0 after']);
  });

  it('lets only the last pax header before an entry count, as GNU tar, bsdtar and Go do', () => {
    const archive = tar(
      raw(
        paxHeader([
          ['path', 'first'],
          ['uid', '5'],
        ]),
      ),
      raw(paxHeader([['gid', '6']])),
      file('own'),
    );
    assert.deepEqual(readArchive(archive).map(summary), ['-0644 0:6 0 own']);
  });

  it('lets the last long name count', () => {
    const archive = tar(
      raw(longHeader('L', 'one'), longHeader('K', 'two'), longHeader('L', 'three'), longHeader('K', 'four')),
      symlink('own', 'target'),
    );
    assert.deepEqual(readArchive(archive).map(summary), ['l0777 0:0 three -> four']);
  });

  it('takes GNU’s long name before the pax path, in whatever order, as Go does', () => {
    for (const metas of [
      [longHeader('L', 'gnu'), paxHeader([['path', 'pax']])],
      [paxHeader([['path', 'pax']]), longHeader('L', 'gnu')],
    ]) {
      assert.equal(readArchive(tar(raw(...metas), file('own')))[0]!.path, 'gnu');
    }
  });

  it('cuts a GNU name at its NUL and passes over an empty one', () => {
    assert.equal(readArchive(tar(raw(longHeader('L', 'abc\0def')), file('own')))[0]!.path, 'abc');
    assert.equal(readArchive(tar(raw(longHeader('L', '')), file('own')))[0]!.path, 'own');
    assert.equal(readArchive(tar(raw(header({ type: 'L', size: 0 })), file('own')))[0]!.path, 'own');
  });

  it('keeps meta headers from one entry to that entry', () => {
    const archive = tar(
      raw(
        paxHeader([
          ['path', 'pax'],
          ['uid', '3'],
        ]),
      ),
      file('a'),
      file('b'),
      raw(longHeader('L', 'x')),
      file('c'),
      file('d'),
    );
    assert.deepEqual(readArchive(archive).map(summary), [
      '-0644 3:0 0 pax',
      '-0644 0:0 0 b',
      '-0644 0:0 0 x',
      '-0644 0:0 0 d',
    ]);
  });

  it('reads a v7 header without what only ustar has', () => {
    const [entry] = readArchive(
      tar(raw(header({ name: 'f', magic: v7Magic, prefix: 'p', type: '3', major: 1 }))),
    );
    assert.equal(summary(entry!), 'c0644 0:0 0,0 f');
  });
});
