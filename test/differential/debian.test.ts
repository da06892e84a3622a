/**
 * A Debian of three layers, by mmdebstrap, by umoci and by this test, pulled in every format of an image. The
 * tree is always equal to umoci's, entry by entry.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { dir, file, hardlink, opaque, symlink, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { debianArchive } from '../support/rootfs-trees.ts';
import {
  addLayers,
  assertSameTree,
  copyImage,
  countOf,
  mediaTypes,
  newLayout,
  pull,
  pullAsArchive,
  putIndex,
  run,
  treeOf,
  unpackByUmoci,
} from './peers.ts';
import { noOtherUser } from '../support/other-user.ts';

/** Changes of an administrator: accounts, a removed package, files replaced by others of another type. */
const changes = `
chroot . useradd --create-home --uid 1234 app
chroot . dpkg --remove --force-all systemd-sysv
rm -r usr/share/doc usr/share/man etc/cron.daily
echo file >etc/cron.daily
rm -f etc/hostname; mkdir etc/hostname; echo inside >etc/hostname/file
ln -sfn ../etc usr/config
cp usr/bin/id usr/bin/other; chmod 4755 usr/bin/other; ln usr/bin/other usr/bin/third
setcap cap_net_raw+ep usr/bin/stat
mkfifo -m 0622 var/fifo
mknod var/device c 1 3
chown -R 1234:1 srv; chmod 2770 srv`;

/** A layer that hides files of lower layers, also through the symlink `bin`, and replaces some of them. */
const hiding = tar(
  dir('etc/apt'),
  opaque('etc/apt'),
  file('etc/apt/sources.list', 'deb nowhere /\n', { mtime: [1_500_000_000, 123_456_789] }),
  whiteout('etc/pam.d'),
  whiteout('usr/bin/third'),
  whiteout('var/device'),
  dir('usr/share/zoneinfo'),
  opaque('usr/share/zoneinfo'),
  file('usr/bin/rewritten', '#!/bin/sh\n', { mode: 0o755 }),
  hardlink('usr/bin/rewritten-too', 'usr/bin/rewritten'),
  symlink('usr/lib/os-release', '../../etc/os-release.new', { mtime: [1_600_000_000, 1] }),
  file('etc/os-release.new', 'ID=test\n'),
);

const needs = missing(
  'root',
  'mmdebstrap',
  'docker-registry',
  'skopeo',
  'umoci',
  'setcap',
  'setfattr',
  'git',
);

describe('a real Debian is what umoci unpacks', { skip: needs }, () => {
  const scratch = new Scratch();
  const layout = scratch.join('layout');
  const image = `oci:${layout}:debian`;
  let registry: DockerRegistry | undefined;
  let expected: string;

  const reference = (tag: string) => registry!.reference('debian', tag);

  before(async () => {
    // ext4 takes long to make files after many were removed, so a tmpfs is used if possible.
    spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2g,mode=755', 'tmpfs', scratch.path]);
    newLayout(layout, 'debian');
    addLayers(`${layout}:debian`, debianArchive('systemd-sysv'));
    run('umoci', 'unpack', '--image', `${layout}:debian`, scratch.join('bundle'));
    run('sh', '-ec', `cd "$0"; ${changes}`, scratch.join('bundle/rootfs'));
    run('umoci', 'repack', '--image', `${layout}:debian`, scratch.join('bundle'));
    rmSync(scratch.join('bundle'), { recursive: true });
    writeFileSync(scratch.join('hiding.tar'), hiding);
    addLayers(`${layout}:debian`, scratch.join('hiding.tar'));
    unpackByUmoci(`${layout}:debian`, scratch.join('umoci'));
    expected = treeOf(scratch.join('umoci'));
    rmSync(scratch.join('umoci'), { recursive: true });
    registry = await DockerRegistry.start({ schema1: true });
    copyImage(image, `docker://${reference('gzip')}`, '--format', 'oci');
  });
  after(async () => {
    await registry?.[Symbol.asyncDispose]();
    spawnSync('umount', ['-l', scratch.path]);
    scratch[Symbol.dispose]();
  });

  /** Pulls, compares, and returns the rootfs. */
  async function samePulled(source: string, ...flags: readonly string[]): Promise<string> {
    const rootfs = scratch.join('rootfs');
    rmSync(rootfs, { recursive: true, force: true });
    await pull(source, rootfs, ...flags);
    assertSameTree(expected, treeOf(rootfs));
    return rootfs;
  }

  test('the reference has what the layers bring, and not what they hide', () => {
    assert.ok(countOf(expected) > 3000, `${countOf(expected)} entries`);
    for (const entry of [
      /^-rwsr-xr-x 0:0 .* usr\/bin\/other$/m,
      /^-.* usr\/bin\/stat \{security\.capability=/m,
      /^-.* etc\/cron\.daily$/m,
      /^drwxrws--- 1234:1 .* srv\/$/m,
      / 1500000000\.123456789 .* etc\/apt\/sources\.list$/m,
    ])
      assert.ok(entry.test(expected), `${entry} is not there`);
    for (const path of ['etc/pam.d/', 'var/device', 'usr/share/doc/', 'etc/apt/apt.conf.d/', 'usr/bin/third'])
      assert.ok(!expected.includes(` ${path}\n`), `${path} is still there`);
  });

  test('as gzip, and its programs run', async () => {
    const rootfs = await samePulled(reference('gzip'));
    assert.match(run('chroot', rootfs, '/bin/sh', '-c', 'dpkg -l'), /^ii {2}dpkg /m);
  });

  test('as zstd', async () => {
    // skopeo would reuse the gzip blobs that it knows to be in the other registry.
    await using fresh = await DockerRegistry.start();
    const asZstd = fresh.reference('debian', 'zstd');
    copyImage(image, `docker://${asZstd}`, '--format', 'oci', '--dest-compress-format', 'zstd');
    const zstd = 'application/vnd.oci.image.layer.v1.tar+zstd';
    assert.deepEqual(await mediaTypes(fresh, 'debian', 'zstd'), [zstd, zstd, zstd]);
    await samePulled(asZstd);
  });

  test('as Docker schema 2', async () => {
    copyImage(image, `docker://${reference('v2s2')}`, '--format', 'v2s2');
    await samePulled(reference('v2s2'));
  });

  test('as Docker schema 1', async () => {
    copyImage(image, `docker://${reference('v2s1')}`, '--format', 'v2s1');
    await samePulled(reference('v2s1'));
  });

  test('from an index of platforms', async () => {
    await putIndex(registry!, 'debian', 'gzip', 'index');
    await samePulled(reference('index'));
  });

  test('from an OCI layout', async () => {
    await samePulled(image);
  });

  test('from an OCI layout in an archive', async () => {
    copyImage(image, `oci-archive:${scratch.join('oci.tar')}:debian`);
    await samePulled(`oci-archive:${scratch.join('oci.tar')}`);
    rmSync(scratch.join('oci.tar'));
  });

  test('from an archive as docker saves it', async () => {
    copyImage(image, `docker-archive:${scratch.join('docker.tar')}:debian:test`);
    await samePulled(`docker-archive:${scratch.join('docker.tar')}`);
    rmSync(scratch.join('docker.tar'));
  });

  test('with -g, the repository aside', async () => {
    const rootfs = await samePulled(reference('gzip'), '-g');
    const commits = run('git', '-C', rootfs, 'log', '--format=%s').trim().split('\n');
    assert.deepEqual(commits.length, 3);
  });

  test('as one archive, unpacked by GNU tar', async () => {
    const directory = scratch.join('flat');
    await pullAsArchive(image, directory);
    assertSameTree(expected, treeOf(directory));
    rmSync(directory, { recursive: true });
  });

  test('as a plain user, but for what only root can make', { skip: noOtherUser }, async () => {
    const nobody = 65_534;
    const home = scratch.join('home');
    run('chmod', 'a+rx', scratch.path);
    run('chmod', '-R', 'a+rX', layout);
    mkdirSync(home);
    chownSync(home, nobody, nobody);
    const rootfs = `${home}/rootfs`;
    const argv = [image, '-d', rootfs, '--no-cache'];
    const { exitCode, stderr } = await runProgram(argv, { uid: nobody, environment: { HOME: home } });
    assert.equal(exitCode, 0, stderr);
    assertSameTree(asUser(expected), withoutOwners(treeOf(rootfs)));
  });
});

const withoutOwners = (tree: string): string => tree.replaceAll(/^(\S+) \d+:\d+ /gm, '$1 ');

/** Removes devices, capabilities, and setuid and setgid of files, which a pull by a user does not restore. */
function asUser(tree: string): string {
  const lines = withoutOwners(tree)
    .split('\n')
    .filter((line) => !/^[bc]/.test(line));
  return lines
    .map((line) =>
      line
        .replace(/^(-..)s/, '$1x')
        .replace(/^(-.{5})s/, '$1x')
        .replace(/ \{security\.capability=\w+\}$/, ''),
    )
    .join('\n');
}
