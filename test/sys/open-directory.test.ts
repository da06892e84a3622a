import assert from 'node:assert/strict';
import {
  chownSync,
  lchownSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { geteuid } from 'node:process';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { OpenDirectory } from '../../src/sys/open-directory.ts';

describe('OpenDirectory', () => {
  let base = '';
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'open-directory-'));
  });
  afterEach(() => rmSync(base, { recursive: true, force: true }));

  it('names entries from its descriptor, so that a rename above changes nothing', () => {
    mkdirSync(join(base, 'above/inner'), { recursive: true });
    mkdirSync(join(base, 'other/inner'), { recursive: true });
    using directory = OpenDirectory.open(join(base, 'above/inner'));
    renameSync(join(base, 'above'), join(base, 'moved'));
    symlinkSync('other', join(base, 'above'));
    writeFileSync(directory.at('file'), 'content');
    assert.equal(readFileSync(join(base, 'moved/inner/file'), 'utf8'), 'content');
    assert.equal(existsSync(join(base, 'other/inner/file')), false);
  });

  it('accepts one name only', () => {
    using directory = OpenDirectory.open(base);
    for (const name of ['', '..', 'a/b', '/', '/etc', '../x'])
      assert.throws(() => directory.at(name), /is not one name/, name);
  });

  it('makes missing levels, and removes them again', () => {
    const directory = OpenDirectory.open(join(base, 'a/b/c'), { make: 0o700 });
    assert.equal(directory.path, join(base, 'a/b/c'));
    writeFileSync(directory.at('file'), '');
    directory.removeMade();
    assert.ok(existsSync(join(base, 'a/b/c/file')));
    rmSync(directory.at('file'));
    directory.removeMade();
    directory.close();
    assert.equal(existsSync(join(base, 'a')), false);
  });

  it('follows links as the kernel does, also at the last name', () => {
    mkdirSync(join(base, 'real/deep'), { recursive: true });
    symlinkSync('real', join(base, 'link'));
    symlinkSync(join(base, 'link/deep/../new'), join(base, 'last'));
    symlinkSync('loop', join(base, 'loop'));
    const cases: readonly [name: string, path: string][] = [
      ['link/x', 'real/x'],
      ['link/deep/../x', 'real/x'],
      ['./link//./deep/', 'real/deep'],
      ['last', 'real/new'],
      ['missing/../x', 'x'],
      ['link/deep/..', 'real'],
    ];
    for (const [name, expected] of cases) {
      const { directory, name: last } = OpenDirectory.openParent(`${base}/${name}`);
      assert.equal(directory.shown(last), join(base, expected), name);
      directory.close();
    }
    assert.throws(() => OpenDirectory.open(join(base, 'loop')), { code: 'ELOOP' });
    assert.throws(() => OpenDirectory.open(join(base, 'real/missing')), { code: 'ENOENT' });
    writeFileSync(join(base, 'file'), '');
    assert.throws(() => OpenDirectory.open(join(base, 'file')), { code: 'ENOTDIR' });
  });

  it('has no name for the root of the system', () => {
    const { directory, name } = OpenDirectory.openParent('/');
    assert.deepEqual([directory.path, name], ['/', '.']);
    directory.close();
  });

  const rootOnly = { skip: geteuid?.() === 0 ? false : 'needs root, to give files to other users' };

  it('refuses links of other users where they may write, and says where they may rename', rootOnly, () => {
    chmodSync(base, 0o755);
    mkdirSync(join(base, 'mine'));
    type Row = [above: string, mode: number, owner: number, linkOwner: number, follows: boolean, to?: string];
    mkdirSync(join(base, 'theirs'));
    chownSync(join(base, 'theirs'), 1234, 1234);
    const rows: readonly Row[] = [
      ['root closed', 0o755, 0, 1234, true],
      ['sticky', 0o1777, 0, 1234, false],
      ['open', 0o777, 0, 1234, false],
      ['group', 0o775, 0, 1234, false],
      ['of the user', 0o755, 1234, 1234, true, 'theirs'],
      ['sticky of the user', 0o1777, 1234, 1234, true, 'theirs'],
      ['of the user, to what is of root', 0o755, 1234, 1234, false],
      ['sticky with a link of root', 0o1777, 1234, 0, true],
    ];
    for (const [name, mode, owner, linkOwner, follows, target = 'mine'] of rows) {
      mkdirSync(join(base, name));
      symlinkSync(`../${target}`, join(base, name, 'link'));
      lchownSync(join(base, name, 'link'), linkOwner, linkOwner);
      chownSync(join(base, name), owner, owner);
      chmodSync(join(base, name), mode);
      const open = () => OpenDirectory.open(join(base, name, 'link'));
      if (!follows) assert.throws(open, { code: 'FOREIGN_SYMLINK' }, name);
      else {
        using directory = open();
        assert.equal(directory.path, join(base, target), name);
        assert.equal(directory.exposedAt, owner === 0 ? undefined : join(base, name), name);
      }
    }
  });

  it('as root, knows who may rename an entry', rootOnly, () => {
    const [mine, theirs] = [0, 1234];
    for (const [above, mode, entry, may] of [
      [mine, 0o755, theirs, false],
      [mine, 0o1777, mine, false],
      [mine, 0o1777, theirs, true],
      [mine, 0o777, mine, true],
      [mine, 0o775, mine, true],
      [theirs, 0o755, mine, true],
    ] as const) {
      chownSync(base, above, above);
      chmodSync(base, mode);
      rmSync(join(base, 'entry'), { recursive: true, force: true });
      mkdirSync(join(base, 'entry'));
      chownSync(join(base, 'entry'), entry, entry);
      using directory = OpenDirectory.open(base);
      const row = `${above} ${mode.toString(8)} ${entry}`;
      assert.equal(directory.mayOthersRename(directory.stat('entry')!), may, row);
    }
  });

  it('compares the owner of a link with that of the last name, not of its directory', rootOnly, () => {
    chmodSync(base, 0o755);
    for (const [name, above, last, isAllowed] of [
      ['a file of root', 1234, 0, false],
      ['a file of the user', 0, 1234, true],
    ] as const) {
      mkdirSync(join(base, name, 'home'), { recursive: true });
      writeFileSync(join(base, name, 'x'), '');
      symlinkSync('../x', join(base, name, 'home/link'));
      lchownSync(join(base, name, 'home/link'), 1234, 1234);
      chownSync(join(base, name, 'home'), 1234, 1234);
      chownSync(join(base, name, 'x'), last, last);
      chownSync(join(base, name), above, above);
      const open = () => OpenDirectory.openParent(join(base, name, 'home/link'));
      if (!isAllowed) assert.throws(open, { code: 'FOREIGN_SYMLINK' }, name);
      else {
        const place = open();
        assert.equal(place.name, 'x');
        place.directory.close();
      }
    }
  });

  it('exchanges two entries', { skip: process.platform === 'linux' ? false : 'needs renameat2' }, () => {
    using directory = OpenDirectory.open(base);
    mkdirSync(directory.at('one'));
    writeFileSync(join(base, 'one/file'), '');
    mkdirSync(directory.at('two'));
    assert.ok(directory.exchange('one', 'two'));
    assert.ok(existsSync(join(base, 'two/file')));
    assert.throws(() => directory.exchange('one', 'three'), { errno: constants.errno.ENOENT });
    assert.throws(() => directory.renameToFree('one', 'two'), { errno: constants.errno.EEXIST });
    assert.ok(directory.renameToFree('one', 'three'));
    assert.deepEqual(directory.names().toSorted(), ['three', 'two']);
  });
});
