import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { accessListText } from '../../src/tar/access-list.ts';
import { archiveOf, layoutFiles, tagged } from '../layout/build-layout.ts';
import {
  dir,
  file,
  hardlink,
  opaque,
  symlink,
  tar,
  whiteout,
  type Item,
  type Metadata,
} from '../support/archive.ts';
import { fakeManifest } from '../support/fake-image.ts';
import { Scratch, runProgram } from '../support/program.ts';
import { printTree } from '../support/tree.ts';
import { readXattrs } from '../support/xattrs.ts';
import { diskBackends, build, isRoot, temporaryDirectory } from './harness.ts';

const passwd = file('etc/passwd', 'root:x:0:0::/:\nalice:x:4242:1::/:\nalice:x:1:1::/:\nbroken\nbob:x:nan\n');
const groups = file('etc/group', 'staff:x:77:\n');
const named = 'user::rw-,user:alice:rwx,group::r--,group:staff:r--,mask::rwx,other::---';
const numbers = 'user::rw-,user:4242:rwx,group::r--,group:77:r--,mask::rwx,other::---';
const access = (text = named): Metadata => ({ mode: 0o640, pax: { 'SCHILY.acl.access': text } });

/** The access lists of what is at `name`, as text. */
function lists(directory: string, name: string): string[] {
  return readXattrs(join(directory, name)).map(
    ([key, value]) => `${key.replace('system.posix_acl_', '')} ${accessListText(value)}`,
  );
}

const skip = isRoot ? false : 'needs root';

describe('access lists as text', { skip }, () => {
  const rows: { name: string; layers: Item[][]; found: Record<string, string[]>; lost?: number }[] = [
    {
      name: 'in numbers need nothing else',
      layers: [[file('f', '', access(numbers))]],
      found: { f: [`access ${numbers}`] },
    },
    {
      name: "with names of the image's passwd and group, wherever those stand in the layer",
      layers: [[file('f', '', access()), passwd, groups, file('g', '', access())]],
      found: { f: [`access ${numbers}`], g: [`access ${numbers}`] },
    },
    {
      name: 'with names of a layer below, also of files with other names and of what aufs kept aside',
      layers: [
        [passwd, groups],
        [
          file('d/f', '', access()),
          hardlink('d/h', 'd/f'),
          file('.wh..wh.plnk/1', '', access()),
          hardlink('aside', '.wh..wh.plnk/1'),
        ],
      ],
      found: { 'd/f': [`access ${numbers}`], 'd/h': [`access ${numbers}`], aside: [`access ${numbers}`] },
    },
    {
      name: 'of root, without any passwd',
      layers: [[file('f', '', access('user::rw-,user:root:r--,group::r--,mask::r--,other::---'))]],
      found: { f: ['access user::rw-,user:0:r--,group::r--,mask::r--,other::---'] },
    },
    {
      name: 'with names that the image does not have are counted',
      layers: [[passwd, file('f', '', access())], [groups]],
      found: { f: [] },
      lost: 1,
    },
    {
      name: 'that make no sense are counted',
      layers: [[file('f', '', access('nonsense')), file('g', '', access('user:0:rwx'))]],
      found: { f: [], g: [] },
      lost: 2,
    },
    {
      name: 'are not given to what has taken the place of their file',
      layers: [
        [
          passwd,
          groups,
          file('f', '', access()),
          file('f', ''),
          file('d/g', '', access()),
          symlink('d', 'etc'),
          file('etc/g', ''),
          file('x/y', '', access()),
          file('x', ''),
        ],
      ],
      found: { f: [], 'etc/g': [], x: [] },
    },
    {
      name: 'where passwd is a link or a directory are counted: no name is known',
      layers: [
        [symlink('etc/passwd', '/proc/self/root/etc/passwd'), dir('etc/group'), file('f', '', access())],
      ],
      found: { f: [] },
      lost: 1,
    },
    {
      name: 'where etc is a loop of links, or a file, are counted',
      layers: [
        [symlink('etc', 'etc'), file('f', '', access())],
        [file('etc', ''), file('g', '', access())],
      ],
      found: { f: [], g: [] },
      lost: 2,
    },
    {
      name: 'go with their file',
      layers: [
        [passwd, groups, file('f', '', access())],
        [file('g', '', access()), whiteout('f'), opaque('')],
      ],
      found: { g: [] },
      lost: 1,
    },
  ];
  for (const { name, layers, found, lost = 0 } of rows) {
    test(name, (t) => {
      const directory = temporaryDirectory(t);
      const { counts } = build(
        directory,
        layers.map((items) => tar(...items)),
        { mode: 'stage' },
      );
      for (const [file_, expected] of Object.entries(found))
        assert.deepEqual(lists(directory, file_), expected, file_);
      assert.equal(counts.xattrs, lost);
    });
  }

  test('of directories are kept, handed down to nothing, and go with a later entry', (t) => {
    const directory = temporaryDirectory(t);
    const pax = { 'SCHILY.acl.access': named, 'SCHILY.acl.default': named };
    const layers = [
      [
        passwd,
        groups,
        dir('d', { mode: 0o2755, mtime: 5, pax }),
        file('d/f', ''),
        dir('e', { mode: 0o500, pax }),
        dir('.', { mode: 0o700, pax }),
      ],
      [file('d/g', '', { mode: 0o644 }), dir('e', { mode: 0o755 }), file('e/h', '')],
    ];
    const { counts } = build(
      directory,
      layers.map((items) => tar(...items)),
      { mode: 'stage' },
    );
    assert.equal(counts.xattrs, 0);
    for (const name of ['d', '.'])
      assert.deepEqual(lists(directory, name), [`access ${numbers}`, `default ${numbers}`], name);
    for (const name of ['d/f', 'd/g', 'e', 'e/h']) assert.deepEqual(lists(directory, name), [], name);
    const tree = printTree(directory, { root: true, hide: ['xattrs', 'owner'] }).replaceAll('.000000000', '');
    assert.match(tree, /^drw-rws--- 5 d\/$/m);
    assert.match(tree, /^drwxr-xr-x \d+ e\/$/m);
    assert.match(tree, /^drw-rwx--- \d+ \.\/$/m);
  });

  for (const backend of diskBackends) {
    test(`give the group no more than the mode says where they cannot be set, ${backend}`, (t) => {
      const directory = join(temporaryDirectory(t), 'd');
      mkdirSync(directory);
      const { counts } = build(
        directory,
        [tar(file('f', '', access(numbers)), symlink('l', 'f', access(numbers)))],
        {
          backend,
        },
      );
      const set = backend === 'libc';
      assert.match(printTree(directory), set ? /^-rw-rwx--- .* f \{/m : /^-rw-r----- .* f$/m);
      assert.equal(counts.xattrs, set ? 1 : 2);
    });
  }

  test('come through the program, without a word of its own', async () => {
    using scratch = new Scratch();
    const manifest = fakeManifest({ layers: [{ tar: tar(passwd, groups, file('f', '', access())) }] });
    writeFileSync(scratch.join('image.tar'), archiveOf(layoutFiles([tagged(manifest, 'v1')])));
    const { stderr } = await runProgram([
      `oci-archive:${scratch.join('image.tar')}`,
      '-d',
      scratch.join('d'),
    ]);
    assert.equal(stderr, '');
    assert.deepEqual(lists(scratch.path, 'd/f'), [`access ${numbers}`]);
  });
});
