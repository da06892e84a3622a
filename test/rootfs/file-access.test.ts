import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { test } from 'node:test';
import type { DiskFilesystem } from '../../src/rootfs/filesystem.ts';
import { systemCalls } from '../../src/sys/system-calls.ts';
import { LinuxFilesystem } from '../../src/rootfs/linux.ts';
import { PortableFilesystem } from '../../src/rootfs/portable.ts';
import { missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';

const { EFBIG, EINVAL, ENOENT, ENOSYS, ENOTSUP, EPERM } = constants.errno;

const backends: [name: string, open: (path: string) => DiskFilesystem | number][] = [
  ['libc', (path) => LinuxFilesystem.open(systemCalls()!, Buffer.from(path))],
  ['portable', (path) => PortableFilesystem.open(Buffer.from(path))],
];

for (const [backend, open] of backends) {
  test(`${backend}: openFile opens regular files only, and waits for nothing`, () => {
    using scratch = new Scratch();
    writeFileSync(scratch.join('file'), 'content');
    mkdirSync(scratch.join('directory'));
    symlinkSync('file', scratch.join('link'));
    execFileSync('mkfifo', [scratch.join('fifo')]);
    const filesystem = open(scratch.path);
    assert.ok(typeof filesystem !== 'number');
    const file = filesystem.openFile(filesystem.root, 'file');
    assert.equal(readFileSync(file, 'utf8'), 'content');
    assert.equal(filesystem.closeFile(file), 0);
    assert.deepEqual(
      ['directory', 'link', 'fifo'].map((name) => filesystem.openFile(filesystem.root, name)),
      [-EINVAL, -EINVAL, -EINVAL],
    );
    assert.equal(filesystem.openFile(filesystem.root, 'missing'), -ENOENT);
    filesystem.close();
  });

  test(`${backend}: readFile opens no device`, { skip: missing('root') }, () => {
    using scratch = new Scratch();
    // No driver has this device number: to open it fails with ENXIO.
    execFileSync('mknod', [scratch.join('device'), 'c', '240', '99']);
    writeFileSync(scratch.join('file'), 'content');
    const filesystem = open(scratch.path);
    assert.ok(typeof filesystem !== 'number');
    const { root } = filesystem;
    assert.equal(filesystem.readFile(root, 'device', 10), -EINVAL);
    assert.equal(String(filesystem.readFile(root, 'file', 10)), 'content');
    assert.equal(filesystem.readFile(root, 'file', 6), -EFBIG);
    assert.equal(filesystem.readFile(root, 'missing', 10), -ENOENT);
    filesystem.close();
  });

  test(`${backend}: stat tells when the inode changed`, () => {
    using scratch = new Scratch();
    writeFileSync(scratch.join('file'), 'content');
    const filesystem = open(scratch.path);
    assert.ok(typeof filesystem !== 'number');
    const stat = filesystem.stat(filesystem.root, 'file');
    assert.ok(typeof stat !== 'number');
    const [seconds, nanoseconds] = execFileSync('stat', ['-c', '%.9Z', scratch.join('file')], {
      encoding: 'utf8',
    })
      .trim()
      .split('.');
    assert.deepEqual([stat.ctimeSeconds, stat.ctimeNanoseconds], [Number(seconds), Number(nanoseconds)]);
    filesystem.close();
  });
}

test(
  'libc: readXattrs reads all attributes of a file, a directory, a link',
  { skip: missing('root') },
  () => {
    using scratch = new Scratch();
    writeFileSync(scratch.join('file'), '');
    writeFileSync(scratch.join('bare'), '');
    mkdirSync(scratch.join('directory'));
    symlinkSync('file', scratch.join('link'));
    const set = (name: string, attribute: string, hex: string) =>
      execFileSync('setfattr', ['-h', '-n', attribute, '-v', hex, scratch.join(name)]);
    set('file', 'user.a', '0x620063');
    set('file', 'user.empty', '0x');
    set('directory', 'trusted.d', '0x31');
    set('link', 'trusted.l', '0x32');
    // The kernel as it is, one before 6.13, and one with a filter that does not know the call.
    for (const answer of [undefined, -ENOSYS, -EPERM]) {
      const calls = { ...systemCalls()!, ...(answer !== undefined && { listxattrat: () => answer }) };
      const filesystem = LinuxFilesystem.open(calls, Buffer.from(scratch.path));
      assert.ok(typeof filesystem !== 'number');
      const read = (name: string): [string, string][] => {
        const found = filesystem.readXattrs({ parent: filesystem.root, name, file: -1 });
        assert.ok(typeof found !== 'number');
        return [...found]
          .filter(([attribute]) => attribute !== 'security.selinux')
          .map(([attribute, value]): [string, string] => [attribute, Buffer.from(value).toString('hex')])
          .toSorted(([one], [other]) => (one < other ? -1 : 1));
      };
      assert.deepEqual(read('file'), [
        ['user.a', '620063'],
        ['user.empty', ''],
      ]);
      assert.deepEqual(read('directory'), [['trusted.d', '31']]);
      assert.deepEqual(read('link'), [['trusted.l', '32']]);
      assert.deepEqual(read('bare'), []);
      assert.equal(filesystem.readXattrs({ parent: filesystem.root, name: 'none', file: -1 }), -ENOENT);
      filesystem.close();
    }

    const portable = PortableFilesystem.open(Buffer.from(scratch.path));
    assert.ok(typeof portable !== 'number');
    assert.equal(portable.readXattrs(), -ENOTSUP);
    portable.close();
  },
);
