// The single binary pulls an image from each kind of source, and with each compression of layers.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { archiveOf, layoutFiles, tagged, writeFiles } from '../layout/build-layout.ts';
import { dir, file, gzip, symlink, tar, whiteout, zstd } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { fakeManifest, sha256 } from '../support/fake-image.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { FakeV1Registry } from '../support/fake-v1-registry.ts';
import { programCommand, runProgram, Scratch } from '../support/program.ts';
import { printTree } from '../support/tree.ts';

const built = programCommand.length === 1 ? false : 'needs DLROOTFS_BINARY: make test';

const tars = [
  tar(dir('etc'), file('etc/motd', 'old\n'), file('etc/gone', 'x'), symlink('bin', 'usr/bin')),
  tar(
    whiteout('etc/gone'),
    file('etc/motd', 'new\n'),
    dir('usr/bin'),
    file('bin/tool', 'x', { mode: 0o4755 }),
  ),
];
const expected = `drwxr-xr-x etc/
-rw-r--r-- etc/motd "new\\n"
lrwxrwxrwx bin -> usr/bin
drwxr-xr-x usr/
drwxr-xr-x usr/bin/
-rwsr-xr-x usr/bin/tool "x"
`
  .split('\n')
  .toSorted();

function treeOf(directory: string): string[] {
  const hide = ['owner', 'time', 'xattrs'] as const;
  return printTree(directory, { without: ['json', '.git', 'layersize'], hide, text: true })
    .split('\n')
    .toSorted();
}

const compress: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array>> = {
  none: (bytes) => bytes,
  gzip,
  zstd,
  bzip2: (bytes) => execFileSync('bzip2', ['-c'], { input: bytes }),
  xz: (bytes) => execFileSync('xz', ['-c'], { input: bytes }),
};

/** An image with these layers. A blob that is not gzip or zstd needs an explicit diffID. */
function imageOf(compression = 'gzip') {
  return {
    layers: tars.map((bytes) => compress[compression]!(bytes)),
    config: { rootfs: { type: 'layers', diff_ids: tars.map((bytes) => sha256(bytes)) } },
  };
}

for (const compression of Object.keys(compress)) {
  for (const [way, flags] of Object.entries({ 'a directory': ['-d', 'out'], '-g': ['-g', '-d', 'out'] })) {
    const skip = built || missing('bzip2', 'xz', 'git', 'tar');
    test(`binary: layers in ${compression} become ${way}`, { skip }, async () => {
      using scratch = new Scratch();
      await using registry = await FakeRegistry.start();
      registry.push('lib/img', '1', imageOf(compression));
      const argv = [registry.reference('lib/img', '1'), '--no-cache', ...flags];
      const { exitCode, stderr } = await runProgram(argv, { cwd: scratch.path });
      assert.equal(exitCode, 0, stderr);
      assert.deepEqual(treeOf(scratch.join('out')), expected);
      assert.equal(existsSync(scratch.join('out/.git')), flags.includes('-g'));
    });
  }
}

for (const name of ['out.tar', 'out.tar.gz', 'out.tar.zst']) {
  test(`binary: -o ${name} has the image`, { skip: built || missing('tar', 'zstd') }, async () => {
    using scratch = new Scratch();
    await using registry = await FakeRegistry.start();
    registry.push('lib/img', '1', imageOf());
    const argv = [registry.reference('lib/img', '1'), '--no-cache', '-o', name];
    const { exitCode, stderr } = await runProgram(argv, { cwd: scratch.path });
    assert.equal(exitCode, 0, stderr);
    execFileSync('sh', ['-c', `mkdir out; tar -xpf ${name} -C out`], { cwd: scratch.path });
    assert.deepEqual(treeOf(scratch.join('out')), expected);
  });
}

interface Source {
  /** Makes the image available; returns the arguments and the bytes for standard input. */
  readonly open: (
    scratch: Scratch,
    stack: AsyncDisposableStack,
  ) => Promise<{ readonly image: string; readonly stdin?: Uint8Array; readonly flags?: readonly string[] }>;
}

function dockerArchive(): Buffer {
  const made = fakeManifest({ ...imageOf('none'), format: 'docker' });
  const manifest = [
    { Config: 'config.json', RepoTags: ['lib/img:1'], Layers: ['0/layer.tar', '1/layer.tar'] },
  ];
  return tar(
    file('manifest.json', JSON.stringify(manifest)),
    file('config.json', made.blobs.get(made.configDigest)),
    file('0/layer.tar', tars[0]),
    file('1/layer.tar', tars[1]),
  );
}

const layout = () => layoutFiles([tagged(fakeManifest(imageOf()), '1')]);

const sources: Readonly<Record<string, Source['open']>> = {
  'registry v2, an OCI index': async (_, stack) => {
    const registry = stack.use(await FakeRegistry.start());
    registry.pushIndex('lib/img', '1', [
      imageOf(),
      { ...imageOf(), platform: { os: 'linux', architecture: 's390x' } },
    ]);
    return { image: registry.reference('lib/img', '1'), flags: ['--platform', 'linux/amd64'] };
  },
  'registry v2, by digest': async (_, stack) => {
    const registry = stack.use(await FakeRegistry.start());
    const { digest } = registry.push('lib/img', '1', { ...imageOf(), format: 'docker' });
    return { image: registry.reference('lib/img', digest) };
  },
  'registry v2, schema 1': async (_, stack) => {
    const registry = stack.use(await FakeRegistry.start());
    registry.push('lib/img', '1', { layers: imageOf().layers, format: 'schema1' });
    return { image: registry.reference('lib/img', '1') };
  },
  'registry v1': async (_, stack) => {
    const registry = stack.use(await FakeV1Registry.start());
    registry.push('lib/img', '1', { layers: imageOf().layers });
    return { image: registry.reference('lib/img', '1') };
  },
  'registry v1, its index elsewhere': async (_, stack) => {
    const registry = stack.use(await FakeV1Registry.start({ mode: 'split' }));
    registry.push('lib/img', '1', { layers: imageOf().layers });
    return { image: registry.reference('lib/img', '1'), flags: ['--registry-version', '1'] };
  },
  'oci:': (scratch) => {
    writeFiles(scratch.join('layout'), layout());
    return Promise.resolve({ image: 'oci:layout:1' });
  },
  'oci-archive:': (scratch) => {
    writeFileSync(scratch.join('image.tar'), archiveOf(layout()));
    return Promise.resolve({ image: 'oci-archive:image.tar:1' });
  },
  'oci-archive: in zstd': (scratch) => {
    writeFileSync(scratch.join('image.tar.zst'), zstd(archiveOf(layout())));
    return Promise.resolve({ image: 'oci-archive:image.tar.zst' });
  },
  'docker-archive:': (scratch) => {
    writeFileSync(scratch.join('image.tar'), dockerArchive());
    return Promise.resolve({ image: 'docker-archive:image.tar:lib/img:1' });
  },
  'docker-archive: in gzip': (scratch) => {
    writeFileSync(scratch.join('image.tar.gz'), gzip(dockerArchive()));
    return Promise.resolve({ image: 'docker-archive:image.tar.gz:@0' });
  },
  'standard input, as of docker save': () => Promise.resolve({ image: '-', stdin: dockerArchive() }),
  'standard input, an OCI archive in gzip': () =>
    Promise.resolve({ image: '-', stdin: gzip(archiveOf(layout())) }),
};

for (const [name, open] of Object.entries(sources)) {
  test(`binary: an image from ${name}`, { skip: built }, async () => {
    using scratch = new Scratch();
    await using stack = new AsyncDisposableStack();
    const { image, stdin, flags = [] } = await open(scratch, stack);
    const run = (argv: readonly string[]) =>
      runProgram([...argv, '--no-cache', ...flags], { cwd: scratch.path, ...(stdin && { stdin }) });
    const { exitCode, stderr } = await run([image, '-d', 'out']);
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(treeOf(scratch.join('out')), expected);
    const inspected = await run(['inspect', image, '--json']);
    assert.equal(inspected.exitCode, 0, inspected.stderr);
    assert.equal((JSON.parse(inspected.stdout) as { layers: unknown[] }).layers.length, 2);
  });
}
