/**
 * A small system built by buildah, changed in its mount, and pushed in each of its compressions: buildah's
 * mount, umoci's tree and the pull are equal.
 */
import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { missing } from '../support/debian.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { Scratch } from '../support/program.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';
import { assertSameTree, copyImage, countOf, mediaTypes, pull, run, treeOf, unpackByUmoci } from './peers.ts';

const system = `
cp /bin/true bin/capable; setcap cap_net_raw+ep bin/capable; ln bin/capable bin/capable-too
echo x >etc/a; ln etc/a etc/b; ln etc/a etc/c
mkdir -p srv/all/deep srv/some opt/conf; echo y | tee srv/all/x srv/all/deep/y srv/some/z opt/conf/d >/dev/null
mkfifo run/fifo; mknod dev/null c 1 3; mknod dev/disk b 8 1
printf latin1 >"$(printf 'srv/caf\\351')"
setfattr -n user.note -v hello etc/passwd
chown -h 1000:1001 home/app; ln -s /etc/a home/link; truncate -s 1M srv/hole`;

/**
 * Changes: broken hard links, a directory emptied by its removal (an opaque one), files of other types,
 * moves.
 */
const edits = `
echo changed >etc/a; rm etc/c
rm -r srv/all; mkdir srv/all; echo new >srv/all/new
rm -r srv/some; echo file >srv/some
rm "$(printf 'srv/caf\\351')" dev/disk run/fifo
chmod 4755 bin/busybox; chmod 0700 home/app
rm home/link; mkdir home/link; mv opt/conf opt/moved
touch -d 2001-01-01T00:00:00.123456789Z srv`;

const inside = `chroot . /bin/sh -c 'echo run >/etc/ran; chmod 0 /etc/b; mkdir -p /usr/bin/new/deep'`;

const needs = missing(
  'root',
  'buildah',
  'docker-registry',
  'skopeo',
  'umoci',
  'busybox',
  'setcap',
  'setfattr',
);

describe('an image that buildah built', { skip: needs }, () => {
  const scratch = new Scratch();
  const buildah = (...words: readonly string[]): string =>
    run('buildah', '--root', scratch.join('store'), '--runroot', scratch.join('run'), ...words).trim();
  let registry: DockerRegistry | undefined;
  let expected: string;

  function commit(from: string, to: string, script: string): void {
    const container = buildah('from', '--quiet', from);
    run('sh', '-ec', `cd "$0"; ${script}`, buildah('mount', container));
    buildah('commit', '--quiet', '--rm', container, to);
  }

  before(async () => {
    mkdirSync(scratch.join('busybox'));
    busyboxTree(scratch.join('busybox'));
    commit('scratch', 'one', `cp -a ${scratch.join('busybox')}/. .; ${system}`);
    commit('one', 'two', edits);
    commit('two', 'three', inside);
    // Layers by buildah have no entry for the root.
    expected = treeOf(buildah('mount', buildah('from', '--quiet', 'three')), { root: false });
    registry = await DockerRegistry.start();
  });
  after(async () => {
    await registry?.[Symbol.asyncDispose]();
    buildah('umount', '--all');
    buildah('rm', '--all');
    scratch[Symbol.dispose]();
  });

  for (const [format, compression, mediaType] of [
    ['oci', 'gzip', 'application/vnd.oci.image.layer.v1.tar+gzip'],
    ['v2s2', 'gzip', 'application/vnd.docker.image.rootfs.diff.tar.gzip'],
    ['oci', 'zstd', 'application/vnd.oci.image.layer.v1.tar+zstd'],
    ['oci', 'zstd:chunked', 'application/vnd.oci.image.layer.v1.tar+zstd'],
  ] as const) {
    test(`is its mount, pushed as ${format} with ${compression}`, async () => {
      const tag = `${format}-${compression}`.replace(':', '-');
      const reference = registry!.reference('busybox', tag);
      const how = ['--force-compression', '--format', format, '--compression-format', compression];
      buildah('push', '-q', '--tls-verify=false', ...how, 'three', `docker://${reference}`);
      assert.deepEqual(await mediaTypes(registry!, 'busybox', tag), [mediaType, mediaType, mediaType]);
      const rootfs = scratch.join('rootfs');
      await pull(reference, rootfs);
      assert.ok(countOf(expected) > 50, `${countOf(expected)} entries`);
      assertSameTree(expected, treeOf(rootfs, { root: false }));
      rmSync(rootfs, { recursive: true });
    });
  }

  test('is what umoci unpacks', () => {
    copyImage(`docker://${registry!.reference('busybox', 'oci-gzip')}`, `oci:${scratch.join('layout')}:x`);
    unpackByUmoci(`${scratch.join('layout')}:x`, scratch.join('umoci'));
    assertSameTree(expected, treeOf(scratch.join('umoci'), { root: false }));
  });
});
