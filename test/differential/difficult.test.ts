/**
 * Files that peers do not restore completely: capabilities, hard links that a later layer breaks, access
 * lists, sparse files, names that are not UTF-8, devices, times before 1970 and after 2262. GNU tar makes the
 * layers from a tree, which is the expected result.
 */
import assert from 'node:assert/strict';
import { lstatSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { missing } from '../support/debian.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { diskKinds, mountDisk } from '../support/disk.ts';
import { runProgram, Scratch } from '../support/program.ts';
import {
  addLayers,
  assertSameTree,
  copyImage,
  countOf,
  newLayout,
  pull,
  pullAsArchive,
  run,
  treeOf,
  unpackByUmoci,
} from './peers.ts';

const script = path.join(import.meta.dirname, 'difficult-tree.sh');
const needs = missing('root', 'docker-registry', 'skopeo', 'umoci', 'setcap', 'setfattr', 'setfacl');

describe('a tree of difficult files', { skip: needs }, () => {
  const scratch = new Scratch();
  const layout = scratch.join('layout');
  let expected: string;

  before(() => {
    const archives = [1, 2, 3, 4, 5].map((n) => scratch.join(`${n}.tar`));
    run('bash', script, scratch.join('tree'), ...archives);
    expected = treeOf(scratch.join('tree'));
    newLayout(layout, 'all');
    newLayout(layout, 'four');
    addLayers(`${layout}:four`, ...archives.slice(0, 4));
    addLayers(`${layout}:all`, ...archives);
  });
  after(() => scratch[Symbol.dispose]());

  test('has all kinds of files', () => {
    assert.ok(countOf(expected) > 150, `${countOf(expected)} entries`);
    const kinds = new Set(expected.split('\n').map((line) => line.charAt(0)));
    assert.deepEqual(kinds, new Set(['-', 'd', 'l', 'c', 'b', 'p', '']));
    for (const name of ['security.capability', 'system.posix_acl_default', 'trusted.note', 'user.bytes'])
      assert.ok(expected.includes(name), name);
  });

  test('is unchanged after a push and a pull, as gzip and as zstd', async () => {
    for (const compression of ['gzip', 'zstd']) {
      await using registry = await DockerRegistry.start();
      const reference = registry.reference('difficult');
      copyImage(`oci:${layout}:all`, `docker://${reference}`, '--dest-compress-format', compression);
      const rootfs = scratch.join(compression);
      await pull(reference, rootfs);
      assertSameTree(expected, treeOf(rootfs));
    }
  });

  test('keeps its holes', async () => {
    const rootfs = scratch.join('holes');
    await pull(`oci:${layout}:all`, rootfs);
    for (const name of ['only-a-hole', 'many', 'old']) {
      const { size, blocks } = lstatSync(path.join(rootfs, 'holes', name));
      assert.ok(blocks * 512 < size / 8, `${name} takes ${blocks} blocks for ${size} bytes`);
    }
  });

  test('is what umoci unpacks, but for what umoci cannot', async () => {
    unpackByUmoci(`${layout}:four`, scratch.join('umoci'));
    await pull(`oci:${layout}:four`, scratch.join('four'));
    assertSameTree(asUmociHasIt(treeOf(scratch.join('four'))), asUmociHasIt(treeOf(scratch.join('umoci'))));
  });

  test('as one archive, unpacked by GNU tar, it is the same', async () => {
    const directory = scratch.join('flat');
    await pullAsArchive(`oci:${layout}:all`, directory);
    assertSameTree(expected, treeOf(directory));
  });

  for (const [format, program, flags] of diskKinds) {
    const title = `as a disk image of ${[format, ...flags].join(' ')}, mounted, it is the same`;
    test(title, { skip: program === undefined ? false : missing(program) }, async (t) => {
      const disk = scratch.join(`disk.${format}`);
      const { exitCode, stderr } = await runProgram([
        `oci:${layout}:all`,
        '-o',
        disk,
        '--no-cache',
        ...flags,
      ]);
      assert.equal(exitCode, 0, stderr);
      const root = mountDisk(t, disk, format);
      if (root === undefined) return;
      const asItCan =
        format === 'squashfs' ? asSquashfsHasIt : program === 'mkfs.erofs' ? asMkfsErofsHasIt : asItIs;
      assertSameTree(asItCan(expected), asItCan(treeOf(root, { without: ['lost+found'] })));
      const lost = /notice: (.*) not restored/.exec(stderr)?.[1];
      const times = count(expected, /\.(?!0{9} )\d{9} /);
      const losses = {
        ext4: undefined,
        erofs: program && `${count(expected, / -\d+\.(?!0{9} )\d{9} /)} exact times`,
        squashfs: `2 extended attributes, ${times + count(expected, / -\d+\.0{9} /)} exact times`,
      };
      assert.equal(lost, losses[format], stderr);
    });
  }
});

/** Returns the number of names in a printed tree whose line matches; several names of one file count once. */
function count(tree: string, pattern: RegExp): number {
  const first = new Set<string>();
  return tree.split('\n').filter((line) => {
    const group = / (=\d+)/.exec(line)?.[1];
    if (!pattern.test(line) || (group !== undefined && first.has(group))) return false;
    if (group !== undefined) first.add(group);
    return true;
  }).length;
}

const asItIs = (tree: string): string => tree;

/** mkfs.erofs misreads the fraction of a time before 1970, so such times have none. */
function asMkfsErofsHasIt(tree: string): string {
  return sorted(tree.replaceAll(/( -\d+)\.\d{9} /g, '$1.000000000 '));
}

const inTime = (seconds: string) => String(Math.min(Math.max(Number(seconds), 0), 2 ** 32 - 1));

/** squashfs has whole seconds from 1970 to 2106, and no access lists. */
function asSquashfsHasIt(tree: string): string {
  return sorted(
    tree
      .replaceAll(/ (-?\d+)\.\d{9} /g, (_, seconds: string) => ` ${inTime(seconds)}.000000000 `)
      .replaceAll(/ \{system\.posix_acl[^}]*\}/g, ''),
  );
}

function sorted(tree: string): string {
  return tree.split('\n').toSorted().join('\n');
}

/**
 * Returns the tree as umoci 0.4.7 makes it. Its times are 64 bits of nanoseconds, which end in 2262, and Go's
 * archive/tar ignores extended attributes without a value. It refuses the old sparse type with `unknown
 * typeflag`: hence the image without the last layer.
 */
function asUmociHasIt(tree: string): string {
  return tree
    .replaceAll(' user.empty=', '')
    .replaceAll(/ -?\d+\.\d{9} (.*2300-)/g, ' $1')
    .split('\n')
    .toSorted()
    .join('\n');
}
