import assert from 'node:assert/strict';
import { chmodSync, chownSync, lstatSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  block,
  character,
  dir,
  fifo,
  file,
  hardlink,
  sparse,
  symlink,
  tar,
  tarAs,
  whiteout,
} from '../support/archive.ts';
import { printTree } from '../support/tree.ts';
import { readXattrs, writeXattr } from '../support/xattrs.ts';
import { accessListBytes, netRawCapability } from './access-list.ts';
import { nothingLost } from '../../src/rootfs/not-restored.ts';
import { diskBackends, build, builtTree, isRoot, temporaryDirectory } from './harness.ts';

const skip = isRoot ? false : 'needs root';
const time = '1000000000.000000000';
const empty = 'e3b0c44298fc';

const lines = (...list: string[]): string => list.map((line) => `${line}\n`).join('');

describe('metadata, as root', { skip }, () => {
  for (const backend of diskBackends) {
    test(`all mode bits stay, with and without a change of owner, whatever the umask, ${backend}`, (t) => {
      const before = process.umask(0o077);
      t.after(() => process.umask(before));
      const modes = [0o4755, 0o2755, 0o1644, 0o6711, 0o7777, 0o000, 0o666, 0o111];
      const items = modes.flatMap((mode) => [
        file(`root-${mode.toString(8)}`, '', { mode }),
        file(`user-${mode.toString(8)}`, '', { mode, uid: 5, gid: 7 }),
        dir(`dir-${mode.toString(8)}`, { mode }),
        dir(`udir-${mode.toString(8)}`, { mode, uid: 5, gid: 7 }),
        file(`udir-${mode.toString(8)}/in`, '', { mode }),
      ]);
      const directory = temporaryDirectory(t);
      build(directory, [tar(...items)], { backend, mode: 'stage' });
      for (const mode of modes) {
        for (const name of ['root-', 'user-', 'dir-', 'udir-']) {
          const stat = lstatSync(join(directory, name + mode.toString(8)));
          const owner = name.startsWith('u') ? '5:7' : '0:0';
          const found = `${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid}`;
          assert.equal(found, `${mode.toString(8)} ${owner}`, name + mode.toString(8));
        }
        const inner = lstatSync(join(directory, `udir-${mode.toString(8)}`, 'in'));
        assert.equal(`${inner.mode & 0o7777} ${inner.uid}:${inner.gid}`, `${mode} 0:0`);
      }
    });

    test(`times stay to the second on everything, ${backend}`, (t) => {
      const layer = tar(
        dir('d', { mtime: 5 }),
        file('d/f', '', { mtime: -7 }),
        symlink('d/l', 'x', { mtime: 9 }),
        dir('d/e', { mtime: 11 }),
        hardlink('d/h', 'd/f', { mtime: 99 }),
        dir('.', { mtime: 3 }),
      );
      const second = tar(file('d/e/new', '', { mtime: 13 }), whiteout('d/l'));
      assert.equal(
        builtTree(t, [layer, second], {
          backend,
          rootMetadata: { mode: 0o755, uid: 0, gid: 0 },
          hide: ['owner', 'mode'],
        }).replaceAll('.000000000', ''),
        lines(
          'd 5 d/',
          'd 11 d/e/',
          `- 0 13 ${empty} d/e/new`,
          `- 0 -7 ${empty} d/f =1`,
          `- 0 -7 ${empty} d/h =1`,
        ),
      );
    });

    test(`the root's entry gives it mode, owner and time, last of all, ${backend}`, (t) => {
      const directory = temporaryDirectory(t);
      build(directory, [tar(dir('./', { mode: 0o1751, uid: 5, gid: 7, mtime: 3 }), file('a', ''))], {
        backend,
        rootMetadata: { mode: 0o700, uid: 1, gid: 1 },
      });
      const stat = statSync(directory);
      assert.equal(
        `${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid} ${stat.mtimeMs}`,
        '1751 5:7 3000',
      );
    });

    test(`a root without an entry gets what it is given, or keeps its own, ${backend}`, (t) => {
      const directory = temporaryDirectory(t);
      build(directory, [tar(file('a', ''))], { backend, rootMetadata: { mode: 0o750, uid: 3, gid: 4 } });
      build(directory, [tar(file('b', ''))], { backend, mode: 'overlay' });
      const stat = statSync(directory);
      assert.equal(`${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid}`, '750 3:4');
    });

    test(`a directory that no entry makes is root's, 0755, with the time of the entry that needs it, ${backend}`, (t) => {
      const layer = tar(file('a/b/c', '', { uid: 5, gid: 7, mode: 0o600, mtime: 42 }));
      assert.equal(
        builtTree(t, [layer], { backend }).replaceAll('.000000000', ''),
        lines('drwxr-xr-x 0:0 42 a/', 'drwxr-xr-x 0:0 42 a/b/', `-rw------- 5:7 0 42 ${empty} a/b/c`),
      );
    });

    test(`a directory's later entry wins: owner, mode, time, ${backend}`, (t) => {
      const layers = [
        tar(dir('d', { mode: 0o2770, uid: 5, gid: 7, mtime: 1 }), file('d/x', '')),
        tar(dir('d', { mode: 0o755, uid: 6, gid: 8, mtime: 2 })),
      ];
      assert.match(builtTree(t, layers, { backend }), /^drwxr-xr-x 6:8 2\.0+ d\/\n/);
    });

    test(`names are bytes: Latin-1, broken UTF-8, newlines, escapes, 255 of them, ${backend}`, (t) => {
      const names = [
        Buffer.from([0xe9, 0x74, 0xe9]),
        Buffer.from([0xff, 0xfe, 0x80]),
        Buffer.from('new\nline\tand \\ \u001b[31m'),
        Buffer.from('\u00e9'.repeat(127) + 'x'),
        Buffer.alloc(255, 0xe9),
      ];
      const items = names.flatMap((name) => [
        file(name, 'c'),
        symlink(Buffer.concat([Buffer.from('l'), name.subarray(0, 200)]), name),
        file(Buffer.concat([Buffer.from('d/'), name, Buffer.from('/'), name]), 'c'),
        hardlink(Buffer.concat([Buffer.from('h'), name.subarray(0, 200)]), name),
      ]);
      const directory = temporaryDirectory(t);
      build(directory, [tar(...items)], { backend });
      const tree = printTree(directory, { text: true, hide: ['mode', 'owner', 'time'] });
      assert.match(tree, /^- \\xe9t\\xe9 "c" =/m);
      assert.match(tree, /^l l\\xff\\xfe\\x80 -> \\xff\\xfe\\x80$/m);
      assert.match(
        tree,
        /^- d\/new\\x0aline\\x09and \\x5c \\x1b\[31m\/new\\x0aline\\x09and \\x5c \\x1b\[31m "c"$/m,
      );
      assert.equal(tree.split('\n').length - 1, 1 + 5 * 5);
    });

    test(`a name of 256 bytes is an error that names the entry, ${backend}`, (t) => {
      assert.throws(() => builtTree(t, [tar(file(`d/${'n'.repeat(256)}`, ''))], { backend }), {
        name: 'DestinationError',
        message: /^layer 0: d\/n+.*name too long/,
        code: 'ENAMETOOLONG',
      });
    });

    test(`a symlink has 4095 bytes at most, ${backend}`, (t) => {
      const target = 'x'.repeat(4095);
      assert.equal(
        builtTree(t, [tar(symlink('l', target))], { backend, hide: ['mode', 'owner', 'time'] }),
        `l l -> ${target}\n`,
      );
      assert.throws(() => builtTree(t, [tar(symlink('l', `${target}x`))], { backend }), {
        message: /^layer 0: l: cannot create l: name too long/,
      });
    });

    test(`times that the file system cannot keep are counted, ${backend}`, (t) => {
      const directory = temporaryDirectory(t);
      const layer = tar(
        file('a', '', { mtime: 2 ** 52 }),
        file('b', '', { mtime: -(2 ** 52) }),
        dir('c', { mtime: 2 ** 45 }),
        symlink('d', 'x', { mtime: -(2 ** 40) }),
        file('fits', '', { mtime: -1 }),
        dir('fits-too', { mtime: 2 ** 32 }),
      );
      const { counts } = build(directory, [layer], { backend });
      const kept = printTree(directory, { hide: ['mode', 'owner', 'xattrs'] });
      assert.match(kept, / -1\.0+ .* fits\n.* 4294967296\.0+ fits-too\/\n$/);
      const changed = [2 ** 52, -(2 ** 52), 2 ** 45, -(2 ** 40)].filter(
        (wanted) => !kept.includes(`${wanted}.000000000`),
      );
      assert.ok(changed.length > 0);
      assert.equal(counts.times, changed.length);
    });

    test(`sparse files keep their holes, ${backend}`, (t) => {
      const size = 64 * 1024 * 1024;
      const extents = [
        [0, 'begin'],
        [1024 * 1024, 'middle'],
        [size - 3, 'end'],
      ] as const;
      const directory = temporaryDirectory(t);
      for (const format of ['gnu', '0.0', '0.1', '1.0'] as const) {
        build(
          directory,
          [tarAs('gnu', sparse(`f-${format}`, size, extents, format), sparse('hole', size, [], format))],
          { backend, mode: 'overlay' },
        );
        const stat = statSync(join(directory, `f-${format}`));
        assert.equal(stat.size, size);
        assert.ok(stat.blocks * 512 < 1024 * 1024, `${stat.blocks} blocks`);
        assert.equal(statSync(join(directory, 'hole')).size, size);
      }
      const hashes = printTree(directory, { hide: ['time'] })
        .split('\n')
        .filter((line) => line.includes(' f-'))
        .map((line) => line.split(' ')[3]);
      assert.equal(new Set(hashes).size, 1);
    });
  }

  test('times stay to the nanosecond on everything', (t) => {
    const mtime = [1_234_567_890, 123_456_789] as const;
    const layer = tar(
      dir('d', { mtime }),
      file('d/f', '', { mtime }),
      symlink('d/l', 'x', { mtime }),
      fifo('d/p', { mtime }),
      character('d/c', 1, 3, { mtime }),
      file('old', '', { mtime: [-2, 500_000_001] }),
      dir('.', { mtime }),
    );
    const directory = temporaryDirectory(t);
    const { counts } = build(directory, [layer]);
    const tree = printTree(directory, { root: true });
    assert.equal(tree.match(/1234567890\.123456789/g)?.length, 6);
    assert.match(tree, / -2\.500000001 .* old$/m);
    assert.deepEqual(counts, nothingLost());
  });

  test('what the Node back end cannot keep is counted', (t) => {
    const layer = tar(
      character('c', 1, 3),
      fifo('p'),
      hardlink('c2', 'c'),
      file('x', '', { xattrs: { 'user.a': '1', 'security.capability': netRawCapability } }),
      file('t', '', { mtime: [1_234_567_890, 123_456_789] }),
    );
    const directory = temporaryDirectory(t);
    const { counts } = build(directory, [layer], { backend: 'node' });
    assert.equal(
      printTree(directory, { text: true, hide: ['mode', 'owner', 'time'] }),
      lines('- t ""', '- x ""'),
    );
    assert.deepEqual(counts, { ...nothingLost(), devices: 3, xattrs: 1, capabilities: 1, times: 1 });
  });

  test('devices keep their numbers, owner and mode', (t) => {
    const layer = tar(
      character('null', 1, 3, { mode: 0o666, uid: 5, gid: 7 }),
      block('sda', 8, 0, { mode: 0o4660 }),
      character('far', 4095, 1_048_575),
      fifo('pipe', { mode: 0o2640, uid: 5 }),
    );
    const directory = temporaryDirectory(t);
    build(directory, [layer, tar(character('x', 10, 200), hardlink('y', 'x'))]);
    assert.equal(
      printTree(directory).replaceAll(`${time} `, ''),
      lines(
        'crw------- 0:0 4095,1048575 far',
        'crw-rw-rw- 5:7 1,3 null',
        'prw-r-S--- 5:0 pipe',
        'brwSrw---- 0:0 8,0 sda',
        'crw------- 0:0 10,200 x =1',
        'crw------- 0:0 10,200 y =1',
      ),
    );
  });

  test('a device that no system can have is counted, and what it should replace is gone', (t) => {
    const directory = temporaryDirectory(t);
    const { counts } = build(directory, [
      tar(file('x', '')),
      tar(character('x', 70_000, 1), hardlink('y', 'x')),
    ]);
    assert.equal(printTree(directory), '');
    assert.equal(counts.devices, 2);
  });

  test('owners to 2^32 - 2 are kept, the one that no file can have is counted', (t) => {
    const directory = temporaryDirectory(t);
    const { counts } = build(directory, [
      tar(
        file('a', '', { uid: 0xffff_fffe, gid: 3_000_000_000 }),
        file('b', '', { uid: 0xffff_ffff, gid: 7, mode: 0o4755 }),
      ),
    ]);
    assert.match(printTree(directory), /^-rw-r--r-- 4294967294:3000000000 .* a\n-rwxr-xr-x 0:7 .* b\n$/);
    assert.equal(counts.owners, 1);
    assert.equal(counts.setuid, 1);
  });

  test('extended attributes of all name spaces stay, of any bytes, on files, directories, links and devices', (t) => {
    const directory = temporaryDirectory(t);
    const list = accessListBytes({ owner: 6, user: [5, 6], group: 4, mask: 4, others: 4 });
    const xattrs = { 'trusted.t': Buffer.from([0, 255, 10]), 'security.x': 'y' };
    const layer = tar(
      file('f', 'x', { xattrs: { ...xattrs, 'user.u': '', 'system.posix_acl_access': list } }),
      dir('d', { xattrs: { ...xattrs, 'user.u': 'v'.repeat(1000) } }),
      symlink('l', 'f', { xattrs }),
      character('c', 1, 3, { xattrs }),
      dir('.', { xattrs: { 'user.root': 'r' } }),
    );
    const { counts } = build(directory, [layer]);
    const found = (name: string): string[] => readXattrs(join(directory, name)).map(([key]) => key);
    assert.deepEqual(found('f'), ['security.x', 'system.posix_acl_access', 'trusted.t', 'user.u']);
    assert.deepEqual(found('d'), ['security.x', 'trusted.t', 'user.u']);
    assert.deepEqual(found('l'), ['security.x', 'trusted.t']);
    assert.deepEqual(found('c'), ['security.x', 'trusted.t']);
    assert.deepEqual(found('.'), ['user.root']);
    assert.deepEqual(readXattrs(join(directory, 'f'))[1]![1], list);
    assert.deepEqual(readXattrs(join(directory, 'l'))[1]![1], xattrs['trusted.t']);
    assert.equal(counts.xattrs, 0);
  });

  test('extended attributes that the kernel refuses are counted, and the rest is done', (t) => {
    const directory = temporaryDirectory(t);
    const layer = tar(
      symlink('l', 'x', { xattrs: { 'user.not-on-links': '1' } }),
      file('f', '', { xattrs: { nonsense: '1', 'user.ok': '2', 'security.capability': 'not one' } }),
      file('big', '', { xattrs: { 'user.big': 'x'.repeat(70_000) } }),
    );
    const { counts } = build(directory, [layer]);
    assert.equal(counts.xattrs, 3);
    assert.equal(counts.capabilities, 1);
    assert.deepEqual(readXattrs(join(directory, 'f')), [['user.ok', Buffer.from('2')]]);
  });

  test('extended attributes with long names, and more of them than fit, are counted', (t) => {
    const directory = temporaryDirectory(t);
    const many = Object.fromEntries(Array.from({ length: 9_000 }, (_, index) => [`user.${index}`, 'v']));
    const layer = tar(
      file('f', '', {
        xattrs: {
          [`user.${'n'.repeat(250)}`]: 'fits',
          [`user.${'n'.repeat(251)}`]: 'one too long',
          [`user.${'n'.repeat(20_000)}`]: 'far too long',
          'user.': 'no name',
        },
      }),
      file('many', '', { xattrs: many }),
      file('after', ''),
    );
    const { counts } = build(directory, [layer]);
    assert.deepEqual(readXattrs(join(directory, 'f')), [[`user.${'n'.repeat(250)}`, Buffer.from('fits')]]);
    const kept = readXattrs(join(directory, 'many')).length;
    assert.ok(kept > 0);
    assert.equal(counts.xattrs, 3 + 9_000 - kept);
  });

  test('a capability stays on a file with another owner, setuid and a hard link', (t) => {
    const directory = temporaryDirectory(t);
    const xattrs = { 'security.capability': netRawCapability };
    const layer = tar(
      file('ping', 'elf', { uid: 5, gid: 7, mode: 0o6755, xattrs }),
      hardlink('ping4', 'ping', { uid: 5, gid: 7, mode: 0o6755 }),
      file('late', 'elf', { uid: 5 }),
      hardlink('late2', 'late', { xattrs }),
    );
    build(directory, [layer, tar(hardlink('ping6', 'ping4'))]);
    for (const name of ['ping', 'ping4', 'ping6', 'late', 'late2']) {
      assert.deepEqual(readXattrs(join(directory, name)), [['security.capability', netRawCapability]], name);
    }
    assert.match(printTree(directory), /^-rwsr-sr-x 5:7 .* ping =\d/m);
  });

  test("a directory's attributes are those of its last entry", (t) => {
    const directory = temporaryDirectory(t);
    build(directory, [
      tar(dir('d', { xattrs: { 'user.a': '1', 'user.b': '1' } }), dir('e', { xattrs: { 'user.a': '1' } })),
      tar(dir('d', { xattrs: { 'user.b': '2' } })),
    ]);
    assert.deepEqual(readXattrs(join(directory, 'd')), [['user.b', Buffer.from('2')]]);
    assert.deepEqual(readXattrs(join(directory, 'e')), [['user.a', Buffer.from('1')]]);
  });

  test('a default access list of a directory in the image is kept, and nothing inherits it', (t) => {
    const directory = temporaryDirectory(t);
    const list = accessListBytes({ owner: 7, user: [5, 7], group: 5, mask: 7, others: 5 });
    const layer = tar(
      dir('d', { xattrs: { 'system.posix_acl_default': list } }),
      file('d/f', '', { mode: 0o644 }),
      dir('d/e', { mode: 0o750 }),
      file('d/e/g', '', { mode: 0o666 }),
      file('d/i/j', '', { mode: 0o600 }),
    );
    build(directory, [layer]);
    assert.deepEqual(readXattrs(join(directory, 'd')), [['system.posix_acl_default', list]]);
    for (const name of ['d/f', 'd/e', 'd/e/g', 'd/i', 'd/i/j'])
      assert.deepEqual(readXattrs(join(directory, name)), [], name);
    const tree = printTree(directory, { hide: ['time', 'xattrs'] });
    assert.match(tree, /^drwxr-x--- 0:0 d\/e\/$/m);
    assert.match(tree, /^-rw-rw-rw- 0:0 .* d\/e\/g$/m);
  });

  for (const mode of ['stage', 'empty'] as const) {
    for (const inherited of ['setgid', 'default access list'] as const) {
      test(`the image inherits nothing from DIR: ${inherited}, ${mode}`, (t) => {
        const directory = join(temporaryDirectory(t), 'root');
        mkdirSync(directory);
        if (inherited === 'setgid') {
          chownSync(directory, 0, 7);
          chmodSync(directory, 0o2755);
        } else {
          const list = accessListBytes({ owner: 7, user: [5, 7], group: 7, mask: 7, others: 0 });
          if (!writeXattr(directory, 'system.posix_acl_default', list)) return t.skip('no access lists here');
        }
        build(
          directory,
          [
            tar(
              file('a/b/f', ''),
              dir('d', { mode: 0o755 }),
              file('g', '', { mode: 0o604 }),
              symlink('l', 'x'),
            ),
          ],
          { mode },
        );
        assert.equal(
          printTree(directory).replaceAll(`${time} `, ''),
          lines(
            'drwxr-xr-x 0:0 a/',
            'drwxr-xr-x 0:0 a/b/',
            `-rw-r--r-- 0:0 0 ${empty} a/b/f`,
            'drwxr-xr-x 0:0 d/',
            `-rw----r-- 0:0 0 ${empty} g`,
            'lrwxrwxrwx 0:0 l -> x',
          ),
        );
      });
    }
  }

  test('no entry inherits from a setgid directory of the image', (t) => {
    const layer = tar(
      dir('d', { mode: 0o2775, gid: 7 }),
      dir('d/e', { mode: 0o755 }),
      file('d/e/f', ''),
      symlink('d/l', 'x'),
    );
    const second = tar(file('d/g', ''), dir('d/h'));
    assert.equal(
      builtTree(t, [layer, second]).replaceAll(`${time} `, ''),
      lines(
        'drwxrwsr-x 0:7 d/',
        'drwxr-xr-x 0:0 d/e/',
        `-rw-r--r-- 0:0 0 ${empty} d/e/f`,
        `-rw-r--r-- 0:0 0 ${empty} d/g`,
        'drwxr-xr-x 0:0 d/h/',
        'lrwxrwxrwx 0:0 d/l -> x',
      ),
    );
  });

  test('paths longer than PATH_MAX, and links to and from there', (t) => {
    const directory = temporaryDirectory(t);
    const deep = Array.from({ length: 60 }, (_, index) => `${index}-${'p'.repeat(150)}`).join('/');
    const layer = tar(
      file(`${deep}/f`, 'deep', { mtime: 5 }),
      dir(`${deep}/d`, { mode: 0o700, mtime: 6, xattrs: { 'user.x': 'y' } }),
      symlink(`${deep}/l`, 'f'),
      hardlink('near', `${deep}/f`),
      hardlink(`${deep}/h`, 'near'),
      file(`${deep}/gone`, ''),
    );
    build(directory, [
      layer,
      tar(
        whiteout(`${deep}/gone`),
        symlink('short', '0-'.concat('p'.repeat(150))),
        file(`short/${deep.slice(153)}/via`, 'x'),
      ),
    ]);
    const tree = printTree(directory, { text: true, hide: ['mode', 'owner'] });
    assert.match(tree, /^- 5\.0+ near "deep" =1$/m);
    assert.match(tree, /^- 5\.0+ .*\/h "deep" =1$/m);
    assert.match(tree, /^d 6\.0+ .*\/d\/ \{user\.x=79\}$/m);
    assert.match(tree, /\/via "x"$/m);
    assert.doesNotMatch(tree, /gone/);
    build(directory, [tar(whiteout('0-'.concat('p'.repeat(150))))], { mode: 'overlay' });
    build(directory, [tar(file('x', '')), tar(file('0-'.concat('p'.repeat(150)), 'now a file'))], {
      mode: 'empty',
    });
    assert.match(
      printTree(directory, { text: true, hide: ['mode', 'owner', 'time'] }),
      /^- 0-p+ "now a file"$/m,
    );
  });

  test('a path of more than 16 KiB is refused', (t) => {
    const deep = Array.from({ length: 70 }, () => 'd'.repeat(250)).join('/');
    assert.throws(() => builtTree(t, [tar(file(`${deep}/f`, ''))]), { code: 'ENAMETOOLONG' });
  });

  test('2,047 directories above a file are made, and one more is refused', (t) => {
    const deepest = 'd/'.repeat(2047);
    builtTree(t, [tar(file(`${deepest}f`, ''))]);
    assert.throws(() => builtTree(t, [tar(file(`${deepest}d/f`, ''))]), { code: 'ENAMETOOLONG' });
    // The path is short, but the directory that the symlink leads to is at the limit.
    const throughLink = [tar(file(`${deepest}f`, ''), symlink('l', deepest), file('l/x/y', ''))];
    assert.throws(() => builtTree(t, throughLink), { code: 'ENAMETOOLONG' });
  });
});
