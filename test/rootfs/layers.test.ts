import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  character,
  dir,
  fifo,
  file,
  hardlink,
  header,
  opaque,
  paxHeader,
  raw,
  sparse,
  symlink,
  tar,
  whiteout,
  type Item,
} from '../support/archive.ts';
import { backends, builtTree, isRoot, type TestedBackend } from './harness.ts';

interface Row {
  readonly name: string;
  readonly layers: readonly (readonly Item[])[];
  /** The tree; or the error. */
  readonly tree?: readonly string[];
  readonly error?: RegExp;
  readonly needsRoot?: boolean;
  /** True: skipped where devices and FIFOs cannot be made. */
  readonly special?: true;
}

const whiteouts: readonly Row[] = [
  {
    name: 'a whiteout hides a file of the layer below and leaves nothing of itself',
    layers: [[file('etc/old', '1'), file('etc/kept', '2')], [whiteout('etc/old')]],
    tree: ['d etc/', '- etc/kept "2"'],
  },
  {
    name: 'a whiteout hides a directory with all that is below',
    layers: [[file('a/b/c/d', '1'), file('a/x', '2')], [whiteout('a/b')]],
    tree: ['d a/', '- a/x "2"'],
  },
  {
    name: 'a whiteout hides a symlink, not what it points to',
    layers: [[file('data/x', '1'), symlink('link', 'data')], [whiteout('link')]],
    tree: ['d data/', '- data/x "1"'],
  },
  {
    name: 'a whiteout hides a file of two layers below',
    layers: [[file('x', '1')], [file('y', '2')], [whiteout('x')]],
    tree: ['- y "2"'],
  },
  {
    name: 'a whiteout before the entry of the same name: the new one stays',
    layers: [[file('x', 'old')], [whiteout('x'), file('x', 'new')]],
    tree: ['- x "new"'],
  },
  {
    name: 'a whiteout after the entry of the same name: the new one stays',
    layers: [[file('x', 'old')], [file('x', 'new'), whiteout('x')]],
    tree: ['- x "new"'],
  },
  {
    name: 'a whiteout after a directory of its layer hides only what lower layers have in it',
    layers: [
      [file('d/old', '1'), file('d/s/old', '1')],
      [dir('d'), file('d/new', '2'), whiteout('d')],
    ],
    tree: ['d d/', '- d/new "2"'],
  },
  {
    name: 'a whiteout before a directory of its layer hides only what lower layers have in it',
    layers: [
      [file('d/old', '1'), file('d/s/old', '1')],
      [whiteout('d'), dir('d'), file('d/new', '2')],
    ],
    tree: ['d d/', '- d/new "2"'],
  },
  {
    name: 'a whiteout of a directory that has a new file deep below, without entries for the directories',
    layers: [
      [file('d/old', '1'), file('d/s/old', '1')],
      [file('d/s/t/new', '2'), whiteout('d')],
    ],
    tree: ['d d/', 'd d/s/', 'd d/s/t/', '- d/s/t/new "2"'],
  },
  {
    name: 'a whiteout of a directory into which the layer before wrote last, and its own layer first',
    layers: [[file('a/old', '1')], [file('a/b', '1')], [file('a/x', '2'), whiteout('a')]],
    tree: ['d a/', '- a/x "2"'],
  },
  {
    name: 'a whiteout of what its own layer alone has hides nothing',
    layers: [[dir('a')], [file('a/x', '1'), whiteout('a/x')]],
    tree: ['d a/', '- a/x "1"'],
  },
  {
    name: 'a whiteout of an empty directory of its own layer hides nothing',
    layers: [[file('a/old', '1')], [dir('a/new'), whiteout('a')]],
    tree: ['d a/', 'd a/new/'],
  },
  {
    name: 'a whiteout in the first layer hides nothing, whatever its order',
    layers: [[file('x', '1'), whiteout('x'), whiteout('y'), opaque(''), file('d/z', '2'), opaque('d')]],
    tree: ['d d/', '- d/z "2"', '- x "1"'],
  },
  {
    name: 'a whiteout of what is not there does nothing, and makes no directories',
    layers: [[dir('a')], [whiteout('a/x'), whiteout('b/c/d'), opaque('e')]],
    tree: ['d a/'],
  },
  {
    name: 'a whiteout below a file does nothing',
    layers: [[file('a', '1')], [whiteout('a/x'), opaque('a')]],
    tree: ['- a "1"'],
  },
  {
    name: 'a whiteout goes through a symlinked directory',
    layers: [[file('usr/lib/x', '1'), symlink('lib', 'usr/lib')], [whiteout('lib/x')]],
    tree: ['l lib -> usr/lib', 'd usr/', 'd usr/lib/'],
  },
  {
    name: 'a whiteout goes through an absolute symlink and one with ..',
    layers: [
      [
        file('usr/lib/x', '1'),
        file('usr/lib/y', '1'),
        symlink('a', '/usr/lib'),
        symlink('usr/b', '../../../usr/lib'),
      ],
      [whiteout('a/x'), whiteout('usr/b/y')],
    ],
    tree: ['l a -> /usr/lib', 'd usr/', 'l usr/b -> ../../../usr/lib', 'd usr/lib/'],
  },
  {
    name: 'a whiteout by another way than the entry of the same layer: the new one stays',
    layers: [
      [file('usr/lib/x', 'old'), symlink('lib', 'usr/lib')],
      [file('lib/x', 'new'), whiteout('usr/lib/x')],
    ],
    tree: ['l lib -> usr/lib', 'd usr/', 'd usr/lib/', '- usr/lib/x "new"'],
  },
  {
    name: 'a whiteout removes one name of a hard-linked file',
    layers: [[file('x', '1'), hardlink('y', 'x')], [whiteout('x')]],
    tree: ['- y "1"'],
  },
  {
    name: 'a file can come back in a later layer',
    layers: [[file('x', '1')], [whiteout('x')], [file('x', '2')]],
    tree: ['- x "2"'],
  },
  {
    name: 'a whiteout may be of any type, even a directory',
    layers: [
      [file('x', '1'), file('y', '1')],
      [dir('.wh.x'), symlink('.wh.y', 'z')],
    ],
    tree: [],
  },
  {
    name: 'a whiteout may be a hard link, to whatever, and an opaque marker a directory (smolvm 397)',
    layers: [
      [file('x', '1'), file('y', '1'), file('d/z', '1')],
      [hardlink('.wh.x', 'nowhere'), file('.wh.y', 'content'), dir('d/.wh..wh..opq')],
    ],
    tree: ['d d/'],
  },
  {
    name: 'a whiteout of a name that is too long to exist does nothing',
    layers: [[file('x', '1')], [whiteout('n'.repeat(256)), whiteout('n'.repeat(4096))]],
    tree: ['- x "1"'],
  },
  {
    name: 'a whiteout of nothing is an error',
    layers: [[file('.wh.', '')]],
    error: /layer 0.*names no file that could be removed/,
  },
  {
    name: 'a whiteout of . is an error',
    layers: [[dir('a')], [file('a/.wh..', '')]],
    error: /layer 1: a\/\.wh\.\..*whiteout/,
  },
  {
    name: 'a whiteout of .. is an error',
    layers: [[dir('a')], [file('a/.wh...', '')]],
    error: /layer 1: a\/\.wh\.\.\..*whiteout/,
  },
  {
    name: 'a directory named like a whiteout is one if it has files (containerd: WhiteoutDirectoryName)',
    layers: [[file('etc/x', '1')], [file('.wh.etc/somefile', '2')], [file('.wh.etc/.wh.somefile', '')]],
    tree: ['d .wh.etc/', 'd etc/', '- etc/x "1"'],
  },
  {
    name: 'aufs files are left out',
    layers: [[file('.wh..wh.aufs', ''), dir('.wh..wh.orph'), dir('.wh..wh.plnk'), file('x', '1')]],
    tree: ['- x "1"'],
  },
];

const opaques: readonly Row[] = [
  {
    name: 'an opaque marker hides all that lower layers have in its directory',
    layers: [[file('d/a', '1'), file('d/s/b', '1'), file('e', '2')], [opaque('d')]],
    tree: ['d d/', '- e "2"'],
  },
  {
    name: 'an opaque marker first, then new files',
    layers: [
      [file('d/a', '1'), file('d/b', '1')],
      [dir('d'), opaque('d'), file('d/b', '2')],
    ],
    tree: ['d d/', '- d/b "2"'],
  },
  {
    name: 'new files, then an opaque marker',
    layers: [
      [file('d/a', '1'), file('d/s/x', '1')],
      [dir('d'), file('d/b', '2'), file('d/s/y', '2'), opaque('d')],
    ],
    tree: ['d d/', '- d/b "2"', 'd d/s/', '- d/s/y "2"'],
  },
  {
    name: 'new files around an opaque marker, which is written twice',
    layers: [[file('d/a', '1')], [file('d/b', '2'), opaque('d'), file('d/c', '3'), opaque('d')]],
    tree: ['d d/', '- d/b "2"', '- d/c "3"'],
  },
  {
    name: 'an opaque marker of the root',
    layers: [
      [file('d/a', '1'), file('x', '1')],
      [file('y', '2'), opaque('')],
    ],
    tree: ['- y "2"'],
  },
  {
    name: 'an opaque marker through a symlinked directory',
    layers: [
      [file('usr/lib/x', '1'), symlink('lib', 'usr/lib')],
      [opaque('lib'), file('lib/y', '2')],
    ],
    tree: ['l lib -> usr/lib', 'd usr/', 'd usr/lib/', '- usr/lib/y "2"'],
  },
  {
    name: 'an opaque marker keeps an empty directory and a symlink of its own layer',
    layers: [[file('d/a', '1')], [dir('d/e'), symlink('d/l', 'x'), opaque('d')]],
    tree: ['d d/', 'd d/e/', 'l d/l -> x'],
  },
  {
    name: 'an opaque marker acts on the layer below only, not on the one above',
    layers: [[file('d/a', '1')], [opaque('d')], [file('d/c', '3')]],
    tree: ['d d/', '- d/c "3"'],
  },
  {
    name: 'an opaque marker of a subdirectory leaves its siblings',
    layers: [[file('d/s/a', '1'), file('d/t/a', '1')], [opaque('d/s')]],
    tree: ['d d/', 'd d/s/', 'd d/t/', '- d/t/a "1"'],
  },
];

const links: readonly Row[] = [
  {
    name: 'a file that is replaced is a new one: its other names keep the old content',
    layers: [[file('x', 'old'), hardlink('y', 'x'), hardlink('z', 'x')], [file('x', 'new')]],
    tree: ['- x "new"', '- y "old" =1', '- z "old" =1'],
  },
  {
    name: 'a hard link across layers',
    layers: [[file('x', '1')], [hardlink('d/y', 'x')]],
    tree: ['d d/', '- d/y "1" =1', '- x "1" =1'],
  },
  {
    name: 'a chain of hard links',
    layers: [
      [file('a', '1'), hardlink('b', 'a'), hardlink('c', 'b')],
      [hardlink('d', './c'), whiteout('a')],
    ],
    tree: ['- b "1" =1', '- c "1" =1', '- d "1" =1'],
  },
  {
    name: 'a hard link to a symlink is a second name of the symlink',
    layers: [[symlink('l', 'nowhere'), hardlink('m', 'l')]],
    tree: ['l l -> nowhere =1', 'l m -> nowhere =1'],
  },
  {
    name: 'a hard link whose target lies behind a symlinked directory, absolute and climbing',
    layers: [[file('usr/x', '1'), symlink('l', '/usr'), hardlink('a', '/l/x'), hardlink('b', '../../usr/x')]],
    tree: ['- a "1" =1', '- b "1" =1', 'l l -> /usr', 'd usr/', '- usr/x "1" =1'],
  },
  {
    name: 'a hard link to a FIFO',
    layers: [[fifo('p'), hardlink('q', 'p')]],
    tree: ['p p =1', 'p q =1'],
    special: true,
  },
  {
    name: 'a hard link to a device',
    layers: [[character('null', 1, 3), hardlink('nul', 'null')]],
    tree: ['c 1,3 nul =1', 'c 1,3 null =1'],
    needsRoot: true,
    special: true,
  },
  {
    name: 'a hard link replaces what has its name',
    layers: [[file('x', '1'), file('y', '2')], [hardlink('y', 'x')]],
    tree: ['- x "1" =1', '- y "1" =1'],
  },
  {
    name: 'a hard link that replaces the directory of its target finds nothing',
    layers: [[file('a/b/c', '1'), hardlink('a', 'a/b/c')]],
    error: /layer 0: a: cannot link to a\/b\/c: .*ENOENT/,
  },
  {
    name: 'a hard link that replaces the directory of its target finds nothing, also by way of a symlink',
    layers: [[file('a/b/c', '1'), symlink('s', 'a/b')], [hardlink('a', 's/c')]],
    error: /layer 1: a: cannot link to s\/c: .*ENOENT/,
  },
  {
    name: 'a hard link that replaces a directory, to a target elsewhere',
    layers: [[file('a/b/c', '1'), file('d/e', '2')], [hardlink('a', 'd/e')]],
    tree: ['- a "2" =1', 'd d/', '- d/e "2" =1'],
  },
  {
    name: 'a hard link to itself leaves the file',
    layers: [[file('x', '1'), hardlink('x', 'x')]],
    tree: ['- x "1"'],
  },
  {
    name: 'a hard link whose first name becomes another file in the same layer',
    layers: [
      [file('x', 'old'), hardlink('y', 'x'), file('x', 'new'), hardlink('z', 'x'), hardlink('w', 'y')],
    ],
    tree: ['- w "old" =1', '- x "new" =2', '- y "old" =1', '- z "new" =2'],
  },
  {
    name: 'a hard link made twice',
    layers: [[file('x', '1'), hardlink('y', 'x'), hardlink('y', 'x')]],
    tree: ['- x "1" =1', '- y "1" =1'],
  },
  {
    name: 'a hard link to what is not there is an error',
    layers: [[hardlink('y', 'x')]],
    error: /layer 0: y: cannot link to x: .*ENOENT/,
  },
  {
    name: 'a hard link to itself that is not there is an error',
    layers: [[hardlink('x', 'x')]],
    error: /layer 0: x: cannot link to x: .*ENOENT/,
  },
  {
    name: 'a hard link below what is not there is an error',
    layers: [[hardlink('y', 'a/b/x')]],
    error: /cannot link to a\/b\/x: .*ENOENT/,
  },
  {
    name: 'a hard link to what the layer has hidden is an error',
    layers: [[file('x', '1')], [whiteout('x'), hardlink('y', 'x')]],
    error: /layer 1: y: .*ENOENT/,
  },
  {
    name: 'a hard link to a directory is an error',
    layers: [[dir('d'), hardlink('e', 'd')]],
    error: /cannot link to d: .*EISDIR/,
  },
  {
    name: 'a hard link to the root is an error',
    layers: [[hardlink('e', '/')]],
    error: /cannot link to \/: .*ENOENT/,
  },
  {
    name: 'a symlink to nothing is an error',
    layers: [[symlink('e', '')]],
    error: /layer 0: e: .*links to nothing/,
  },
];

/**
 * The metadata of aufs for files with several names: regular files in `.wh..wh.plnk/`, to which hard links of
 * the same layer lead.
 */
const pseudoLinks: readonly Row[] = [
  {
    name: 'hard links to one file there are names of one file, and nothing else of it stays',
    layers: [
      [
        dir('.wh..wh.plnk'),
        file('.wh..wh.plnk/12.34', 'shared', { mode: 0o4755, uid: isRoot ? 5 : 0 }),
        file('.wh..wh.plnk/unused', 'x'),
        hardlink('one', '.wh..wh.plnk/12.34'),
        hardlink('d/two', '/.wh..wh.plnk/./12.34'),
      ],
    ],
    tree: ['d d/', '- d/two "shared" =1', '- one "shared" =1'],
  },
  {
    name: 'of two files of one name there, each link has the one that stood before it',
    layers: [
      [
        file('.wh..wh.plnk/1', 'first'),
        hardlink('one', '.wh..wh.plnk/1'),
        file('.wh..wh.plnk/1', 'second'),
        hardlink('two', '.wh..wh.plnk/1'),
      ],
    ],
    tree: ['- one "first"', '- two "second"'],
  },
  {
    name: 'a link replaces what has its name, and can be replaced',
    layers: [
      [dir('one'), file('one/x', '1'), file('two', '1')],
      [
        file('.wh..wh.plnk/1', 'new'),
        hardlink('one', '.wh..wh.plnk/1'),
        hardlink('two', '.wh..wh.plnk/1'),
        hardlink('three', 'two'),
        file('one', 'newer'),
      ],
    ],
    tree: ['- one "newer"', '- three "new" =1', '- two "new" =1'],
  },
  {
    name: 'no whiteout and no opaque marker of its layer touches them',
    layers: [
      [file('old', '1')],
      [
        file('.wh..wh.plnk/1', 'kept'),
        whiteout('.wh..wh.plnk'),
        whiteout('.wh..wh.plnk/1'),
        opaque(''),
        hardlink('one', '.wh..wh.plnk/1'),
        opaque(''),
      ],
    ],
    tree: ['- one "kept"'],
  },
  {
    name: 'a sparse file there stays one',
    layers: [
      [
        sparse(
          '.wh..wh.plnk/1',
          6,
          [
            [0, 'a'],
            [5, 'b'],
          ],
          '1.0',
        ),
        hardlink('one', '.wh..wh.plnk/1'),
      ],
    ],
    tree: ['- one "a\\u0000\\u0000\\u0000\\u0000b"'],
  },
  {
    name: 'a link to a file there that the layer does not have is an error',
    layers: [[file('.wh..wh.plnk/1', 'x'), hardlink('one', '.wh..wh.plnk/2')]],
    error: /layer 0: one: cannot link to \.wh\.\.wh\.plnk\/2: .*ENOENT/,
  },
  {
    name: 'a link to a file there of a layer below is an error',
    layers: [[file('.wh..wh.plnk/1', 'x')], [hardlink('one', '.wh..wh.plnk/1')]],
    error: /layer 1: one: .*ENOENT/,
  },
  {
    name: 'a link to a symlink or a directory there is an error: aufs had none',
    layers: [[symlink('.wh..wh.plnk/1', '/etc'), dir('.wh..wh.plnk/2'), hardlink('one', '.wh..wh.plnk/1')]],
    error: /layer 0: one: .*ENOENT/,
  },
];

const parents: readonly Row[] = [
  {
    name: 'directories without an entry are made',
    layers: [[file('a/b/c', '1')]],
    tree: ['d a/', 'd a/b/', '- a/b/c "1"'],
  },
  {
    name: 'a merged /usr: files go through the symlink of a lower layer',
    layers: [[dir('usr/bin'), symlink('bin', 'usr/bin')], [file('bin/foo', '1')]],
    tree: ['l bin -> usr/bin', 'd usr/', 'd usr/bin/', '- usr/bin/foo "1"'],
  },
  {
    name: 'a chain of symlinks, relative, absolute and climbing out',
    layers: [
      [
        dir('real/deep'),
        symlink('a', 'b'),
        symlink('b', '/c/./'),
        symlink('c', '../../../../real//deep'),
        file('a/x', '1'),
      ],
    ],
    tree: [
      'l a -> b',
      'l b -> /c/./',
      'l c -> ../../../../real//deep',
      'd real/',
      'd real/deep/',
      '- real/deep/x "1"',
    ],
  },
  {
    name: 'an absolute symlink in a directory begins at the root',
    layers: [
      [symlink('a/b/l', '/c'), file('a/b/l/x', '1')],
      [file('a/b/l/y', '2'), whiteout('a/b/l/x')],
    ],
    tree: ['d a/', 'd a/b/', 'l a/b/l -> /c', 'd c/', '- c/y "2"'],
  },
  {
    name: 'a symlink that a hard link has replaced is no way any more',
    layers: [[file('d/x', '1'), symlink('l', 'd'), hardlink('l', 'l/x'), file('l/y', '2')]],
    tree: ['d d/', '- d/x "1"', 'd l/', '- l/y "2"'],
  },
  {
    name: '.. after a symlink means the parent of what it points to',
    layers: [[dir('x/y'), symlink('l', 'x/y'), symlink('m', 'l/../z'), file('m/f', '1')]],
    tree: ['l l -> x/y', 'l m -> l/../z', 'd x/', 'd x/y/', 'd x/z/', '- x/z/f "1"'],
  },
  {
    name: 'a dangling symlink: what it points to is made, inside the root',
    layers: [[symlink('l', '/a/b'), file('l/x', '1')]],
    tree: ['d a/', 'd a/b/', '- a/b/x "1"', 'l l -> /a/b'],
  },
  {
    name: 'a symlink to itself is no directory',
    layers: [[symlink('l', 'l'), file('l/x', '1')]],
    error: /l\/x: .*ELOOP/,
  },
  {
    name: 'two symlinks to each other are no directory',
    layers: [[symlink('a', 'b'), symlink('b', 'a/'), file('a/x', '1')]],
    error: /a\/x: .*ELOOP/,
  },
  {
    name: 'a file of a layer below gives way to a directory that a path needs (umoci 588, overlayfs)',
    layers: [
      [file('a/b', '1'), hardlink('c', 'a/b')],
      [file('a/b/c/d', '2'), whiteout('a/b')],
    ],
    tree: ['d a/', 'd a/b/', 'd a/b/c/', '- a/b/c/d "2"', '- c "1"'],
  },
  {
    name: 'a file, a FIFO, or a hard link of the same layer does too',
    special: true,
    layers: [
      [
        file('f', '1'),
        hardlink('g', 'f'),
        dir('f/x'),
        symlink('g/y', 'z'),
        fifo('p'),
        hardlink('p/q', 'g/y'),
      ],
    ],
    tree: ['d f/', 'd f/x/', 'd g/', 'l g/y -> z =1', 'd p/', 'l p/q -> z =1'],
  },
  {
    name: 'a hard link into the place of its own target finds nothing',
    layers: [[file('f', '1'), hardlink('f/x', 'f')]],
    error: /layer 0: f\/x: cannot link to f: .*EISDIR/,
  },
  {
    name: 'a symlink to a file is no directory',
    layers: [[file('f', '1'), symlink('l', 'f'), file('l/x', '2')]],
    error: /l\/x: .*ENOTDIR/,
  },
  {
    name: 'a directory entry replaces a symlink to a directory',
    layers: [
      [file('real/x', '1'), symlink('l', 'real')],
      [dir('l'), file('l/y', '2')],
    ],
    tree: ['d l/', '- l/y "2"', 'd real/', '- real/x "1"'],
  },
  {
    name: 'a symlink replaces a directory, and what comes after goes through it',
    layers: [
      [dir('to'), file('l/x', '1')],
      [symlink('l', 'to'), file('l/y', '2')],
    ],
    tree: ['l l -> to', 'd to/', '- to/y "2"'],
  },
  {
    name: 'a symlink that is replaced leads elsewhere from then on',
    layers: [[dir('a'), dir('b'), symlink('l', 'a'), file('l/x', '1'), symlink('l', 'b'), file('l/y', '2')]],
    tree: ['d a/', '- a/x "1"', 'd b/', '- b/y "2"', 'l l -> b'],
  },
  {
    name: 'a directory that was removed and made again is another one',
    layers: [[file('d/s/x', '1')], [file('d/s/y', '2'), symlink('d', 'e'), file('d/s/z', '3')]],
    tree: ['l d -> e', 'd e/', 'd e/s/', '- e/s/z "3"'],
  },
  {
    name: 'paths with ., .. and doubled slashes are taken as they would be from the root',
    layers: [[file('./a//b/../c', '1'), file('/x', '2'), file('../../y', '3')]],
    tree: ['d a/', '- a/c "1"', '- x "2"', '- y "3"'],
  },
  {
    name: 'an entry without a name is one for the root (containerd: SymlinkEmptyFilename)',
    layers: [
      [
        file('etc/passwd', 'inside'),
        symlink('', '/etc/'),
        file('', 'content'),
        raw(header({ name: '', type: '5', mode: 0o755 })),
        hardlink('local', '/etc/passwd'),
      ],
    ],
    tree: ['d etc/', '- etc/passwd "inside" =1', '- local "inside" =1'],
  },
  {
    name: 'an entry for the root that is no directory is left out',
    layers: [[file('x', '1'), symlink('..', 'x'), symlink('a/..', '/etc/'), fifo('.')]],
    tree: ['- x "1"'],
  },
  {
    name: 'slashes at the end of names are nothing, but in v7, where they make a directory',
    layers: [
      [
        raw(paxHeader([['path', 'a//']]), header({ name: 'x' })),
        symlink('l/', 'a'),
        hardlink('h///', 'a/'),
        raw(header({ name: 'v7/', type: '\0' })),
      ],
    ],
    tree: ['- a "" =1', '- h "" =1', 'l l -> a', 'd v7/'],
  },
  {
    name: 'content of an entry for the root is passed over',
    layers: [[file('.', 'x'.repeat(2000)), file('x', '1')]],
    tree: ['- x "1"'],
  },
  {
    name: 'a million of components that lead nowhere are taken away',
    layers: [
      [
        file(`${'../'.repeat(300_000)}x`, '1'),
        file(`${'./'.repeat(400_000)}y/`, '2'),
        file('a/../'.repeat(100_000), ''),
      ],
    ],
    tree: ['- x "1"', '- y "2"'],
  },
  {
    name: 'symlinks that double at each step are no directory',
    layers: [
      [
        dir('z'),
        ...Array.from({ length: 60 }, (_, index) => symlink(`l${index}`, `l${index + 1}/../`.repeat(200))),
        file('l0/x', ''),
      ],
    ],
    error: /l0\/x: .*ELOOP/,
  },
  {
    name: 'long symlinks, one after the other, lead where they lead',
    layers: [
      [
        ...Array.from({ length: 39 }, (_, index) =>
          symlink(`l${index}`, `l${index + 1}${'/.'.repeat(1900)}`),
        ),
        file('l0/x', '1'),
        whiteout('nothing'),
      ],
      [file('l39/y', '2'), ...Array.from({ length: 39 }, (_, index) => whiteout(`l${index}`))],
    ],
    tree: ['d l39/', '- l39/x "1"', '- l39/y "2"'],
  },
  { name: 'an archive without entries', layers: [[]], tree: [] },
];

const tables = { whiteouts, opaques, links, pseudoLinks, parents };

const makesSpecial = (backend: TestedBackend): boolean => backend === 'libc' || backend === 'memory';

for (const backend of backends) {
  for (const [title, rows] of Object.entries(tables)) {
    describe(`${title}, ${backend}`, () => {
      for (const row of rows) {
        if (row.special === true && !makesSpecial(backend)) continue;
        test(row.name, (t) => {
          if (row.needsRoot === true && !isRoot && backend !== 'memory') return t.skip('needs root');
          const apply = (): string =>
            builtTree(
              t,
              row.layers.map((items) => tar(...items)),
              {
                backend,
                text: true,
                hide: ['mode', 'owner', 'time', 'xattrs'],
              },
            );
          if (row.error) assert.throws(apply, row.error);
          else assert.equal(apply(), row.tree!.map((line) => `${line}\n`).join(''));
        });
      }
    });
  }
}

/** An entry of each type at `name`, and its printed form. */
const things: Readonly<Record<string, (name: string) => { items: Item[]; lines: string[] }>> = {
  file: (name) => ({ items: [file(name, 'f')], lines: [`- ${name} "f"`] }),
  'empty directory': (name) => ({ items: [dir(name)], lines: [`d ${name}/`] }),
  'full directory': (name) => ({
    items: [dir(name), file(`${name}/sub/in`, 'i')],
    lines: [`d ${name}/`, `d ${name}/sub/`, `- ${name}/sub/in "i"`],
  }),
  'symlink to a directory': (name) => ({ items: [symlink(name, 'other')], lines: [`l ${name} -> other`] }),
  'dangling symlink': (name) => ({ items: [symlink(name, 'nowhere')], lines: [`l ${name} -> nowhere`] }),
  'hard link': (name) => ({ items: [hardlink(name, 'base')], lines: [`- ${name} "b"`] }),
  fifo: (name) => ({ items: [fifo(name)], lines: [`p ${name}`] }),
  device: (name) => ({ items: [character(name, 1, 3)], lines: [`c 1,3 ${name}`] }),
};

describe('every type over every type', () => {
  for (const backend of backends) {
    for (const [lowerName, lower] of Object.entries(things)) {
      for (const [upperName, upper] of Object.entries(things)) {
        for (const sameLayer of [false, true]) {
          const title = `${upperName} over ${lowerName}, ${sameLayer ? 'in one layer' : 'in a layer above'}, ${backend}`;
          const special = /fifo|device/.test(lowerName + upperName);
          if (special && !makesSpecial(backend)) continue;
          test(title, (t) => {
            if (!isRoot && backend !== 'memory' && /device/.test(lowerName + upperName))
              return t.skip('needs root');
            const base = [dir('other'), file('base', 'b')];
            const one = lower('x').items;
            const two = upper('x').items;
            const layers = sameLayer ? [tar(...base, ...one, ...two)] : [tar(...base, ...one), tar(...two)];
            const merged =
              lowerName.endsWith('directory') &&
              upperName.endsWith('directory') &&
              !/symlink/.test(lowerName + upperName);
            const lines = merged && lowerName.startsWith('full') ? lower('x').lines : upper('x').lines;
            const linked = upperName === 'hard link';
            const expected = [
              linked ? '- base "b" =1' : '- base "b"',
              'd other/',
              ...lines.map((line) => (linked ? `${line} =1` : line)),
            ];
            const tree = builtTree(t, layers, {
              backend,
              text: true,
              hide: ['mode', 'owner', 'time', 'xattrs'],
            });
            assert.equal(tree, expected.map((line) => `${line}\n`).join(''));
          });
        }
      }
    }
  }
});
