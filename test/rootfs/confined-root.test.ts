import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { ConfinedRoot } from '../../src/rootfs/confined-root.ts';
import { prepareRootfs } from '../../src/runtime/prepare.ts';
import { Scratch } from '../support/program.ts';

/** Makes a rootfs, and a file outside to which no path in it may lead. */
function tree(scratch: Scratch): string {
  const root = scratch.join('rootfs');
  mkdirSync(`${root}/usr/etc`, { recursive: true });
  writeFileSync(`${root}/usr/etc/passwd`, 'inside');
  writeFileSync(scratch.join('passwd'), 'outside');
  return root;
}

const links: readonly (readonly [what: string, target: string, found: string | undefined])[] = [
  ['relative', 'usr/etc', 'inside'],
  ['absolute, as after chroot', '/usr/etc', 'inside'],
  ['climbing above the root', '../../../usr/etc', 'inside'],
  ['up and down again', 'usr/../usr/./etc//', 'inside'],
  ['to the host by climbing', '..', undefined],
  ['to itself', 'etc', undefined],
  ['to nothing', 'nowhere', undefined],
  ['to a process directory of the host', '/proc/self/cwd', undefined],
];

for (const [what, target, found] of links) {
  test(`/etc as a symlink ${what} reads ${found ?? 'nothing'}`, () => {
    using scratch = new Scratch();
    const directory = tree(scratch);
    symlinkSync(target, `${directory}/etc`);
    using root = new ConfinedRoot(directory);
    assert.equal(root.readText('etc/passwd'), found);
    assert.equal(root.stat('etc/passwd')?.size, found?.length);
  });
}

test('a file that is a symlink out of the root reads nothing', () => {
  using scratch = new Scratch();
  const directory = tree(scratch);
  symlinkSync(scratch.join('passwd'), `${directory}/usr/etc/group`);
  symlinkSync('../../../passwd', `${directory}/usr/etc/shadow`);
  using root = new ConfinedRoot(directory);
  assert.equal(root.readText('usr/etc/group'), undefined);
  assert.equal(root.readText('usr/etc/shadow'), undefined);
});

test('directories are no text, and files of more than 4 MiB are not read', () => {
  using scratch = new Scratch();
  const directory = tree(scratch);
  using root = new ConfinedRoot(directory);
  assert.equal(root.readText('usr/etc'), undefined);
  truncateSync(`${directory}/usr/etc/passwd`, 4 * 1024 * 1024);
  assert.equal(root.readText('usr/etc/passwd')?.length, 4 * 1024 * 1024);
  truncateSync(`${directory}/usr/etc/passwd`, 4 * 1024 * 1024 + 1);
  assert.equal(root.readText('usr/etc/passwd'), undefined);
  assert.equal(root.stat('/')?.type, 'directory');
  assert.equal(root.stat('..')?.type, 'directory');
});

test('prepare adds what is missing, keeps what is there, and stays inside', () => {
  using scratch = new Scratch();
  const directory = tree(scratch);
  symlinkSync('../../outside', `${directory}/etc`);
  mkdirSync(`${directory}/outside`);
  mkdirSync(scratch.join('outside'));
  writeFileSync(`${directory}/outside/hosts`, '');
  writeFileSync(`${directory}/outside/hostname`, 'mine\n');
  symlinkSync('/run/not-there-yet/resolv.conf', `${directory}/outside/resolv.conf`);
  const made = prepareRootfs(directory);
  assert.deepEqual(made, ['/dev', '/proc', '/sys', '/run', '/tmp', '/etc/hosts']);
  assert.equal(readFileSync(`${directory}/outside/hostname`, 'utf8'), 'mine\n');
  assert.match(readFileSync(`${directory}/outside/hosts`, 'utf8'), /^127\.0\.0\.1\tlocalhost\n/);
  assert.equal(existsSync(scratch.join('outside/hosts')), false);
  assert.deepEqual(prepareRootfs(directory), []);
});

test('only a missing or empty regular file is filled: no directory, also at the end of a symlink', () => {
  using scratch = new Scratch();
  const directory = tree(scratch);
  symlinkSync('/', `${directory}/root`);
  symlinkSync('usr', `${directory}/link`);
  writeFileSync(`${directory}/empty`, '');
  using root = new ConfinedRoot(directory);
  for (const path of ['usr', 'root', 'link', 'usr/etc/passwd'])
    assert.equal(root.fillFile(path, 'new'), false);
  for (const path of ['empty', 'usr/missing']) {
    assert.equal(root.fillFile(path, 'new'), true);
    assert.equal(root.readText(path), 'new');
  }
  assert.equal(root.readText('usr/etc/passwd'), 'inside');
});
