/**
 * An image that podman pushes in each of its compressions, in every command. zstd:chunked has a zstd frame
 * per file.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { dir, file, hardlink, symlink, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { type ProgramResult, runProgram, Scratch } from '../support/program.ts';
import { assertSameTree, copyImage, countOf, mediaTypes, run, treeOf } from './peers.ts';

/** The number of files, which is about the number of frames. */
const FILES = 3000;

/** Random bytes: the compressed image is so large that the decoder's thread decodes it. */
function noise(seed: string): Buffer {
  return Buffer.concat(
    Array.from({ length: 48 }, (_, index) => createHash('sha256').update(`${seed} ${index}`).digest()),
  );
}

function system(release: string): Buffer {
  const files = Array.from({ length: FILES }, (_, index) =>
    file(`srv/${index % 40}/file-${index}`, noise(`${index}`)),
  );
  const directories = Array.from({ length: 40 }, (_, index) => dir(`srv/${index}`));
  return tar(
    dir('etc'),
    file('etc/release', release),
    dir('srv'),
    ...directories,
    ...files,
    hardlink('srv/linked', 'srv/0/file-0'),
    symlink('srv/pointer', '0/file-0'),
  );
}

const needs = missing('root', 'podman', 'docker-registry', 'skopeo');

describe('an image that podman pushed', { skip: needs }, () => {
  const scratch = new Scratch();
  const storage = [
    '--root',
    scratch.join('store'),
    '--runroot',
    scratch.join('run'),
    '--storage-driver',
    'vfs',
  ];
  const podman = (...words: readonly string[]): string => run('podman', ...storage, ...words);
  const cache = ['--cache-dir', scratch.join('cache')];
  let registry: DockerRegistry | undefined;
  let expected: string | undefined;

  async function ran(argv: readonly string[], exitCode = 0): Promise<ProgramResult> {
    const result = await runProgram([...argv, ...cache], { cwd: scratch.path });
    assert.equal(result.exitCode, exitCode, `${argv.join(' ')}: ${result.stderr}`);
    return result;
  }

  /** Asserts that the tree is the one that the first pull made. */
  function compareTree(directory: string): void {
    const tree = treeOf(scratch.join(directory), { root: false });
    expected ??= tree;
    assert.ok(countOf(tree) > FILES, `${countOf(tree)} entries`);
    assertSameTree(expected, tree);
    rmSync(scratch.join(directory), { recursive: true });
  }

  before(async () => {
    for (const release of ['one', 'two']) {
      writeFileSync(scratch.join(`${release}.tar`), system(`${release}\n`));
      podman('import', '-q', scratch.join(`${release}.tar`), `localhost/${release}`);
    }
    registry = await DockerRegistry.start();
  });
  after(async () => {
    await registry?.[Symbol.asyncDispose]();
    scratch[Symbol.dispose]();
  });

  for (const compression of ['gzip', 'zstd', 'zstd:chunked']) {
    test(`with ${compression}: all commands read it`, async () => {
      const tag = compression.replace(':', '-');
      const [one, two] = ['one', 'two'].map((name) => registry!.reference(name, tag));
      const how = ['--tls-verify=false', '--force-compression', '--compression-format', compression];
      for (const name of ['one', 'two'])
        podman('push', '-q', ...how, `localhost/${name}`, `docker://${registry!.reference(name, tag)}`);
      const [mediaType] = await mediaTypes(registry!, 'one', tag);
      assert.match(mediaType!, compression === 'gzip' ? /\bgzip$/ : /\bzstd$/);

      assert.match((await ran(['inspect', one!])).stdout, /linux/);
      await ran(['cache', 'add', one!]);
      await ran([one!, '-d', 'plain', '--offline']);
      const verified = await ran(['verify', one!, '-d', 'plain']);
      assert.doesNotMatch(verified.stdout, /differ/);
      compareTree('plain');
      await ran([one!, '-d', 'direct', '--no-cache']);
      compareTree('direct');
      await ran([one!, '-d', 'branches', '-g']);
      compareTree('branches');

      await ran([one!, '-o', 'image.tar']);
      const archive = readFileSync(scratch.join('image.tar'));
      rmSync(scratch.join('image.tar'));
      for (const index of [0, FILES - 1]) assert.ok(archive.includes(noise(`${index}`)));
      assert.equal((await ran(['cat', one!, 'etc/release'])).stdout, 'one\n');
      await ran([one!, '-d', 'part', '--path', 'etc']);
      assert.equal(readFileSync(scratch.join('part/etc/release'), 'utf8'), 'one\n');
      rmSync(scratch.join('part'), { recursive: true });
      assert.match((await ran(['diff', one!, two!], 9)).stdout, /etc\/release/);

      for (const [layout, source] of [
        ['oci', `oci:${scratch.join(`layout-${tag}`)}:x`],
        ['oci-archive', `oci-archive:${scratch.join(`archive-${tag}.tar`)}:x`],
      ] as const) {
        copyImage(`docker://${one!}`, source, '--preserve-digests');
        await ran([source, '-d', layout]);
        compareTree(layout);
        assert.equal((await ran(['cat', source, 'etc/release'])).stdout, 'one\n');
      }
    });
  }
});
