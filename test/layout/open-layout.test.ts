import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  createReadStream,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { decompress } from '../../src/blob/decode/decompress.ts';
import { DlrootfsError } from '../../src/errors.ts';
import { openLayout } from '../../src/layout/open-layout.ts';
import { parseSource } from '../../src/layout/local-source.ts';
import { digestOf, verifyDigest } from '../../src/oci/digest.ts';
import type { LocalLayer, Session } from '../../src/oci/image.ts';
import { file, symlink, tar } from '../support/archive.ts';
import { fakeIndex, fakeManifest, sha256 } from '../support/fake-image.ts';
import { runProgram, Scratch } from '../support/program.ts';
import {
  archiveOf,
  blobOf,
  collect,
  imageOf,
  layoutFiles,
  readImage,
  tagged,
  writeFiles,
} from './build-layout.ts';

const tars = [tar(file('etc/motd', 'hi')), tar(file('etc/other', 'yo'), file('big', 'x'.repeat(3_000_000)))];
const manifest = fakeManifest({ layers: tars.map((bytes) => ({ tar: bytes })) });
const other = fakeManifest({ layers: [{ tar: tars[0]!, compression: 'zstd' }] });
const arm = fakeManifest({ layers: [{ tar: tars[1]! }], platform: { os: 'linux', architecture: 'arm64' } });

const { signal } = new AbortController();

function open(
  text: string,
  scratch: Scratch,
  stdin?: AsyncIterable<Uint8Array>,
): Promise<Session<LocalLayer>> {
  return openLayout(parseSource(text)!, { spoolDirectory: scratch.path, decompress, stdin, signal });
}

function stdinOf(bytes: Uint8Array): Readable {
  return Readable.from([bytes.subarray(0, 3), bytes.subarray(3)], { objectMode: false });
}

const gunzipped = (blobs: readonly Buffer[]): string[] => blobs.map((blob) => sha256(blob));

test('an image in a layout directory is read and verified', async () => {
  using scratch = new Scratch();
  writeFiles(scratch.join('img'), layoutFiles([tagged(manifest, 'v1')]));
  const { image, blobs } = await readImage(await open(`oci:${scratch.join('img')}:v1`, scratch));
  assert.equal(image.digest, manifest.digest);
  assert.equal(image.id, manifest.configDigest.slice(7));
  assert.deepEqual(
    image.layers.map((layer) => layer.diffID),
    manifest.diffIDs,
  );
  assert.deepEqual(
    gunzipped(blobs),
    manifest.layers.map((layer) => layer.digest),
  );
});

/** A secret text, which no message may have. */
const SECRET = 'root:$y$j9T';

test('a document is not read through a link out of the layout; a link inside it is followed', async () => {
  for (const name of ['index.json', 'oci-layout']) {
    using scratch = new Scratch();
    const files = layoutFiles([tagged(manifest, 'v1')]);
    writeFiles(scratch.join('img'), files);
    writeFileSync(scratch.join('secret'), SECRET);
    for (const target of ['../secret', scratch.join('secret'), '../img2/secret']) {
      rmSync(scratch.join('img', name));
      symlinkSync(target, scratch.join('img', name));
      if (target.includes('img2'))
        writeFiles(scratch.join('img2'), new Map([['secret', Buffer.from(SECRET)]]));
      const source = `oci:${scratch.join('img')}:v1`;
      await assert.rejects(
        async () => readImage(await open(source, scratch)),
        (error) => isRefusal(error, 6, /is a symlink that leads out of the layout$/),
      );
    }
    rmSync(scratch.join('img', name));
    writeFileSync(scratch.join('img/inner'), files.get(name)!);
    symlinkSync(scratch.join('img/inner'), scratch.join('img', name));
    await readImage(await open(`oci:${scratch.join('img')}:v1`, scratch));
  }
});

test('blobs may be links to a shared store; what is not the blob is not quoted', async () => {
  using scratch = new Scratch();
  const files = layoutFiles([tagged(manifest, 'v1')]);
  writeFiles(scratch.join('img'), files);
  mkdirSync(scratch.join('shared'));
  const blobs = [...files.keys()].filter((name) => name.startsWith('blobs/'));
  for (const name of blobs) {
    renameSync(scratch.join('img', name), scratch.join('shared', basename(name)));
    symlinkSync(scratch.join('shared', basename(name)), scratch.join('img', name));
  }
  const source = `oci:${scratch.join('img')}:v1`;
  const { blobs: read } = await readImage(await open(source, scratch));
  assert.equal(read.length, manifest.layers.length);
  for (const name of blobs) {
    const place = scratch.join('shared', basename(name));
    const right = readFileSync(place);
    // The size is right, so that the content is read.
    writeFileSync(place, SECRET.padEnd(right.length, SECRET).slice(0, right.length));
    const out = scratch.join('out');
    const { exitCode, stderr } = await runProgram([source, '-d', out]);
    assert.equal(exitCode, 6, stderr);
    assert.doesNotMatch(stderr, /root:|\$y/, name);
    assert.match(stderr, /digest/, name);
    writeFileSync(place, right);
  }
});

function isRefusal(error: unknown, exitCode: number, message: RegExp): boolean {
  assert.ok(error instanceof DlrootfsError);
  assert.equal(error.exitCode, exitCode);
  assert.match(error.message, message);
  assert.doesNotMatch(`${error.message}${error.hint}`, /root:/);
  return true;
}

test('the same image in an archive, plain, compressed and on standard input is the same', async () => {
  using scratch = new Scratch();
  const archive = archiveOf(layoutFiles([tagged(manifest, 'v1')]));
  const forms = { 'x.tar': archive, 'x.tar.gz': gzipSync(archive), 'x.tar.zst': zstdCompressSync(archive) };
  for (const [name, bytes] of Object.entries(forms)) {
    writeFileSync(scratch.join(name), bytes);
    for (const session of [
      await open(`oci-archive:${scratch.join(name)}:v1`, scratch),
      await open('-', scratch, stdinOf(bytes)),
      await open('-:v1', scratch, createReadStream(scratch.join(name))),
    ]) {
      const { image, blobs } = await readImage(session);
      assert.equal(image.digest, manifest.digest);
      assert.deepEqual(
        gunzipped(blobs),
        manifest.layers.map((layer) => layer.digest),
      );
    }
  }
  assert.deepEqual(readdirSync(scratch.path).toSorted(), Object.keys(forms).toSorted());
});

test('a blob is read from any position, and ends with its own last byte', async () => {
  using scratch = new Scratch();
  writeFileSync(scratch.join('x.tar'), archiveOf(layoutFiles([tagged(manifest, 'v1')])));
  const session = await open(`oci-archive:${scratch.join('x.tar')}`, scratch);
  const { layers } = await session.image({ os: 'linux', architecture: 'amd64' });
  const whole = await blobOf(layers[1]!);
  const blob = await layers[1]!.openLocal();
  assert.equal(blob.size, whole.length);
  const part = Buffer.alloc(whole.length);
  assert.equal(await blob.read(part, 100), whole.length - 100);
  assert.deepEqual(part.subarray(0, whole.length - 100), whole.subarray(100));
  assert.equal(await blob.read(part, whole.length + 5), 0);
  await blob.close();
  await session.close();
});

test('the wanted one of several is chosen by tag, full name, place or platform', async () => {
  using scratch = new Scratch();
  const named = { manifest: arm, annotations: { 'io.containerd.image.name': 'docker.io/a/b:3' } };
  writeFiles(scratch.join('img'), layoutFiles([tagged(manifest, 'v1'), tagged(other, 'v2'), named]));
  const digest = async (wanted: string) =>
    (await imageOf(await open(`oci:${scratch.join('img')}${wanted}`, scratch))).digest;
  assert.equal(await digest(':v2'), other.digest);
  assert.equal(await digest(':@0'), manifest.digest);
  assert.equal(await digest(':docker.io/a/b:3'), arm.digest);
  await assert.rejects(digest(''), { exitCode: 2, hint: /v1, v2, docker\.io\/a\/b:3/ });
  await assert.rejects(digest(':v3'), { exitCode: 3, message: /no image "v3"/, hint: /v1, v2/ });
  await assert.rejects(digest(':@9'), { exitCode: 3 });
  const session = await open(`oci:${scratch.join('img')}`, scratch);
  const tags = await collect(session.tags());
  assert.deepEqual(tags, ['v1', 'v2', 'docker.io/a/b:3']);
});

const platforms = [
  { manifest, platform: { os: 'linux', architecture: 'amd64' } },
  { manifest: arm, platform: { os: 'linux', architecture: 'arm64' } },
];

test('several platforms stand in a nested index or in index.json itself', async () => {
  using scratch = new Scratch();
  const nested = fakeIndex(platforms);
  writeFiles(scratch.join('nested'), layoutFiles([{ manifest: nested }], [manifest, arm]));
  writeFiles(scratch.join('flat'), layoutFiles(platforms));
  for (const form of ['nested', 'flat']) {
    const text = `oci:${scratch.join(form)}`;
    const image = await imageOf(await open(text, scratch));
    assert.equal(image.digest, manifest.digest);
    assert.deepEqual(
      image.platforms,
      platforms.map(({ platform }) => platform),
    );
    assert.equal((await imageOf(await open(text, scratch), 'arm64')).digest, arm.digest);
    await assert.rejects(imageOf(await open(text, scratch), 's390x'), {
      exitCode: 3,
      hint: /linux\/amd64, linux\/arm64/,
    });
  }
});

test('attestations and artifacts beside the only image do not count', async () => {
  using scratch = new Scratch();
  const attestation = { manifest: other, platform: { os: 'unknown', architecture: 'unknown' } };
  const artifact = { manifest: other, artifactType: 'application/vnd.x' };
  writeFiles(scratch.join('img'), layoutFiles([attestation, tagged(manifest, 'v1'), artifact]));
  assert.equal((await imageOf(await open(`oci:${scratch.join('img')}`, scratch))).digest, manifest.digest);
});

test('blobs may be links to a shared store', async () => {
  using scratch = new Scratch();
  const files = layoutFiles([tagged(manifest, 'v1')]);
  writeFiles(scratch.join('store'), files);
  mkdirSync(scratch.join('img'));
  writeFileSync(scratch.join('img/index.json'), files.get('index.json')!);
  symlinkSync(scratch.join('store/blobs'), scratch.join('img/blobs'));
  assert.equal((await imageOf(await open(`oci:${scratch.join('img')}`, scratch))).digest, manifest.digest);
});

test('schema 1 in a layout is read', async () => {
  using scratch = new Scratch();
  const old = fakeManifest({ layers: tars.map((bytes) => ({ tar: bytes })), format: 'schema1' });
  writeFiles(scratch.join('img'), layoutFiles([tagged(old, 'v1')]));
  const { image, blobs } = await readImage(await open(`oci:${scratch.join('img')}`, scratch));
  assert.deepEqual(
    gunzipped(blobs),
    old.layers.map((layer) => layer.digest),
  );
  assert.equal(image.digest, old.digest);
});

type Damage = (files: Map<string, Uint8Array>) => void;
const blobName = (digest: string): string => `blobs/sha256/${digest.slice(7)}`;
const change = (files: Map<string, Uint8Array>, name: string, edit: (text: string) => string): void =>
  void files.set(name, Buffer.from(edit(Buffer.from(files.get(name)!).toString())));

const damages: readonly (readonly [string, Damage, number, RegExp])[] = [
  [
    'a manifest with a changed byte',
    (f) => change(f, blobName(manifest.digest), (t) => t.replace('gzip', 'gzIp')),
    6,
    /manifest sha256:.* has digest sha256:.* but must have/,
  ],
  [
    'a manifest of another size',
    (f) => change(f, blobName(manifest.digest), (t) => `${t} `),
    6,
    /has \d+ bytes but must have/,
  ],
  [
    'a config with a changed byte',
    (f) => change(f, blobName(manifest.configDigest), (t) => t.replace('PATH', 'path')),
    6,
    /the config .* has digest/,
  ],
  ['a missing manifest', (f) => void f.delete(blobName(manifest.digest)), 3, /lacks manifest sha256/],
  ['a missing config', (f) => void f.delete(blobName(manifest.configDigest)), 3, /lacks the config/],
  ['a missing layer', (f) => void f.delete(blobName(manifest.layers[1]!.digest)), 3, /lacks a layer/],
  [
    'a layer of another size',
    (f) => void f.set(blobName(manifest.layers[1]!.digest), Buffer.from('x')),
    6,
    /has 1 bytes but must have/,
  ],
  [
    'an index that is no JSON',
    (f) => void f.set('index.json', Buffer.from('<html>')),
    6,
    /index\.json .* not valid JSON/,
  ],
  [
    'an index with a path for a digest',
    (f) => change(f, 'index.json', (t) => t.replace(/sha256:[0-9a-f]{4}/, 'sha256:../')),
    6,
    /malformed/,
  ],
  [
    'an index that lists nothing',
    (f) => void f.set('index.json', Buffer.from('{"schemaVersion":2,"manifests":[]}')),
    3,
    /lists no image/,
  ],
  [
    'an index that is a manifest',
    (f) => void f.set('index.json', Buffer.from(manifest.bytes)),
    6,
    /ambiguous/,
  ],
  [
    'a layout of another version',
    (f) => void f.set('oci-layout', Buffer.from('{"imageLayoutVersion":"2.0.0"}')),
    6,
    /"2\.0\.0"; 1\.0\.0 is known/,
  ],
  ['no index', (f) => void f.delete('index.json'), 3, /holds no image in that form/],
];

for (const [name, damage, exitCode, message] of damages) {
  test(`${name} is an error, in a directory and in an archive`, async () => {
    using scratch = new Scratch();
    const files = layoutFiles([tagged(manifest, 'v1')]);
    damage(files);
    writeFiles(scratch.join('img'), files);
    writeFileSync(scratch.join('x.tar'), archiveOf(files));
    for (const text of [`oci:${scratch.join('img')}`, `oci-archive:${scratch.join('x.tar')}`]) {
      const error = await open(text, scratch)
        .then(readImage)
        .then(
          () => assert.fail('it was read'),
          (reason: unknown) => reason,
        );
      assert.ok(error instanceof DlrootfsError, String(error));
      assert.equal(error.exitCode, exitCode, error.message);
      assert.match(error.message, message);
    }
  });
}

test('an archive may be packed in all ways that a layer may', async () => {
  using scratch = new Scratch();
  const archive = archiveOf(layoutFiles([tagged(manifest, 'v1')]));
  const cut = archive.length >> 1;
  const parts = [archive.subarray(0, cut), archive.subarray(cut)] as const;
  const skippable = Buffer.from('502a4d180300000000ffff', 'hex');
  const packed = (program: string): Buffer =>
    execFileSync(program, ['-c'], { input: archive, maxBuffer: 2 * archive.length });
  const forms: Readonly<Record<string, Buffer>> = {
    'several zstd frames': Buffer.concat(parts.map((part) => zstdCompressSync(part))),
    'zstd frames to skip': Buffer.concat([
      skippable,
      ...parts.flatMap((part) => [zstdCompressSync(part), skippable]),
    ]),
    'several gzip members': Buffer.concat(parts.map((part) => gzipSync(part))),
    'gzip and zeros': Buffer.concat([gzipSync(archive), Buffer.alloc(3000)]),
    xz: packed('xz'),
    bzip2: packed('bzip2'),
  };
  for (const [form, bytes] of Object.entries(forms)) {
    writeFileSync(scratch.join('image'), bytes);
    for (const text of [`oci-archive:${scratch.join('image')}`, '-']) {
      const session = await openLayout(parseSource(text)!, {
        spoolDirectory: scratch.path,
        decompress,
        stdin: stdinOf(bytes),
        signal,
      });
      const { image, blobs } = await readImage(session);
      assert.equal(image.digest, manifest.digest, form);
      assert.deepEqual(
        gunzipped(blobs),
        manifest.layers.map((layer) => layer.digest),
        form,
      );
    }
  }
});

test('a missing file, or one of another type, is an error', async () => {
  using scratch = new Scratch();
  writeFileSync(scratch.join('x'), 'x');
  mkdirSync(scratch.join('d'));
  execFileSync('mkfifo', [scratch.join('fifo')]);
  writeFileSync(scratch.join('xz'), Buffer.from('fd377a585a0000', 'hex'));
  writeFileSync(
    scratch.join('cut.gz'),
    gzipSync(archiveOf(layoutFiles([tagged(manifest, 'v1')]))).subarray(0, 900),
  );
  const whole = gzipSync(archiveOf(layoutFiles([tagged(manifest, 'v1')])));
  writeFileSync(scratch.join('more.gz'), Buffer.concat([whole, Buffer.alloc(512), Buffer.from('x')]));
  writeFileSync(scratch.join('rootfs.tar'), tar(file('etc/passwd', 'x')));
  writeFileSync(scratch.join('old.tar'), tar(file('repositories', '{}')));
  const rows: readonly (readonly [string, number, RegExp, RegExp?])[] = [
    [`oci:${scratch.join('none')}`, 3, /does not exist/],
    [`oci:${scratch.join('x')}`, 3, /not a directory/, /oci-archive:/],
    [`oci:${scratch.join('d')}`, 3, /holds no image/],
    [`oci-archive:${scratch.join('none')}`, 3, /does not exist/],
    [`oci-archive:${scratch.join('d')}`, 3, /is a directory/, /oci:/],
    [`oci-archive:${scratch.join('fifo')}`, 3, /not a regular file/, /write - and/],
    ['docker-archive:/dev/zero', 3, /not a regular file/],
    [`oci-archive:${scratch.join('x')}`, 6, /ends within a header block/],
    [`docker-archive:${scratch.join('rootfs.tar')}`, 3, /holds no image/, /neither index\.json/],
    [`docker-archive:${scratch.join('old.tar')}`, 3, /holds no image/, /older than 1\.10/],
    [`oci-archive:${scratch.join('xz')}`, 6, /its compressed data ends too early/, /download it again/],
    [`oci-archive:${scratch.join('cut.gz')}`, 6, /cut\.gz: its compressed data ends too early/],
    [`oci-archive:${scratch.join('more.gz')}`, 6, /more\.gz: its compressed data is followed by extra bytes/],
  ];
  for (const [text, exitCode, message, hint] of rows) {
    await assert.rejects(open(text, scratch), (error) => {
      assert.ok(error instanceof DlrootfsError, String(error));
      assert.equal(error.exitCode, exitCode, error.message);
      assert.match(error.message, message);
      if (hint !== undefined) assert.match(error.hint ?? '', hint);
      return true;
    });
  }
  await assert.rejects(open('-', scratch), { exitCode: 2 });
  await assert.rejects(open('-', scratch, stdinOf(Buffer.from('x'))), { exitCode: 6 });
  await assert.rejects(open('-', scratch, stdinOf(Buffer.alloc(0))), { exitCode: 3 });
  assert.deepEqual(
    readdirSync(scratch.path).filter((name) => name.startsWith('.')),
    [],
  );
});

test('a spool directory that cannot be written is an error with a hint', async () => {
  using scratch = new Scratch();
  await assert.rejects(
    openLayout(
      { transport: 'stdin', path: '' },
      { spoolDirectory: scratch.join('none'), decompress, stdin: stdinOf(tars[0]!), signal },
    ),
    {
      exitCode: 7,
      message: /temporary file in .*none: no such file or directory \(ENOENT\)/,
      hint: /standard input/,
    },
  );
});

test('standard input that never ends is left at an abort', async () => {
  using scratch = new Scratch();
  const abort = new AbortController();
  const stdin = new PassThrough();
  stdin.write('x');
  const opening = openLayout(
    { transport: 'stdin', path: '' },
    { spoolDirectory: scratch.path, decompress, stdin, signal: abort.signal },
  );
  setTimeout(() => abort.abort(new Error('enough')), 50);
  await assert.rejects(opening, { message: 'enough' });
  assert.deepEqual(readdirSync(scratch.path), []);
});

interface Saved {
  readonly Config: string;
  readonly RepoTags: readonly string[] | null;
  readonly Layers: readonly string[];
}

function dockerFiles(
  images: readonly Saved[],
  files: Readonly<Record<string, Uint8Array>>,
): Map<string, Uint8Array> {
  return new Map([...Object.entries(files), ['manifest.json', Buffer.from(JSON.stringify(images))]]);
}

const config = manifest.blobs.get(manifest.configDigest)!;
const configName = `${manifest.configDigest.slice(7)}.json`;

test('an archive of an old docker save, its layers files and links, is read', async () => {
  using scratch = new Scratch();
  const twice = fakeManifest({ layers: [tars[0]!, tars[1]!, tars[0]!].map((bytes) => ({ tar: bytes })) });
  const name = `${twice.configDigest.slice(7)}.json`;
  const saved = { Config: name, RepoTags: ['a/b:1'], Layers: ['1/layer.tar', '2/layer.tar', '3/layer.tar'] };
  const files = dockerFiles([saved], {
    '1/layer.tar': tars[0]!,
    '2/layer.tar': tars[1]!,
    [name]: twice.blobs.get(twice.configDigest)!,
  });
  writeFileSync(scratch.join('x.tar'), archiveOf(files, symlink('3/layer.tar', '../1/layer.tar')));
  for (const session of [
    await open(`docker-archive:${scratch.join('x.tar')}`, scratch),
    await open('-', scratch, createReadStream(scratch.join('x.tar'))),
  ]) {
    const { image, blobs } = await readImage(session);
    assert.equal(image.id, twice.configDigest.slice(7));
    assert.equal(image.digest, undefined);
    assert.deepEqual(
      image.layers.map((layer) => layer.digest),
      twice.diffIDs,
    );
    assert.deepEqual(
      blobs.map((blob) => sha256(blob)),
      twice.diffIDs,
    );
  }
});

test('compressed layers, as crane and newer Docker save them, are known by their own digests', async () => {
  using scratch = new Scratch();
  const paths = manifest.layers.map((layer) => `${layer.digest.slice(7)}.tar.gz`);
  const crane = dockerFiles(
    [{ Config: manifest.configDigest, RepoTags: null, Layers: paths }],
    Object.fromEntries([
      [manifest.configDigest, config],
      ...manifest.layers.map((layer, place) => [paths[place]!, manifest.blobs.get(layer.digest)!]),
    ]) as Record<string, Uint8Array>,
  );
  const both = layoutFiles([tagged(manifest, 'v1')]);
  const listing = [
    {
      Config: blobName(manifest.configDigest),
      RepoTags: ['a:v1'],
      Layers: manifest.layers.map((layer) => blobName(layer.digest)),
    },
  ];
  both.set('manifest.json', Buffer.from(JSON.stringify(listing)));
  for (const files of [crane, both]) {
    writeFileSync(scratch.join('x.tar'), archiveOf(files));
    const { image, blobs } = await readImage(await open(`docker-archive:${scratch.join('x.tar')}`, scratch));
    assert.deepEqual(
      image.layers.map((layer) => layer.digest),
      manifest.layers.map((layer) => layer.digest),
    );
    assert.deepEqual(
      image.layers.map((layer) => layer.diffID),
      manifest.diffIDs,
    );
    for (const [place, blob] of blobs.entries()) verifyDigest(blob, image.layers[place]!.digest!, 'a layer');
  }
});

test('of several saved images one is chosen by name or place', async () => {
  using scratch = new Scratch();
  const layers = { '1.tar': tars[0]!, '2.tar': tars[1]! };
  const second = other.blobs.get(other.configDigest)!;
  const images = [
    { Config: configName, RepoTags: ['alpine:3', 'h.io/x:latest'], Layers: ['1.tar', '2.tar'] },
    { Config: 'config.json', RepoTags: null, Layers: ['1.tar'] },
  ];
  writeFileSync(
    scratch.join('x.tar'),
    archiveOf(dockerFiles(images, { ...layers, [configName]: config, 'config.json': second })),
  );
  const id = async (wanted: string) =>
    (await imageOf(await open(`docker-archive:${scratch.join('x.tar')}${wanted}`, scratch))).id;
  for (const wanted of [':alpine:3', ':docker.io/library/alpine:3', ':h.io/x', ':@0']) {
    assert.equal(await id(wanted), manifest.configDigest.slice(7), wanted);
  }
  assert.equal(await id(':@1'), other.configDigest.slice(7));
  await assert.rejects(id(''), { exitCode: 2, hint: /alpine:3, @1/ });
  await assert.rejects(id(':alpine'), { exitCode: 3, message: /no image "alpine"/ });
});

const saved = { Config: configName, RepoTags: null, Layers: ['1.tar', '2.tar'] };
const sound = { '1.tar': tars[0]!, '2.tar': tars[1]!, [configName]: config };
const brokenArchives: readonly (readonly [string, Map<string, Uint8Array>, number, RegExp])[] = [
  [
    'a config with a changed byte',
    dockerFiles([saved], {
      ...sound,
      [configName]: Buffer.from(Buffer.from(config).toString().replace('PATH', 'path')),
    }),
    6,
    /the config .* has digest/,
  ],
  [
    'fewer layers than diffIDs',
    dockerFiles([{ ...saved, Layers: ['1.tar'] }], sound),
    6,
    /lists 1 layers, but the config has 2/,
  ],
  [
    'a layer that is missing',
    dockerFiles([{ ...saved, Layers: ['1.tar', '../2.tar.gz'] }], sound),
    3,
    /\.\.\/2\.tar\.gz is missing/,
  ],
  [
    'a config that is missing',
    dockerFiles([{ ...saved, Config: '/etc/passwd' }], sound),
    3,
    /\/etc\/passwd is missing/,
  ],
  ['a list that is an object', new Map([['manifest.json', Buffer.from('{}')]]), 6, /not a list of images/],
  [
    'an image without config',
    new Map([['manifest.json', Buffer.from('[{}]')]]),
    6,
    /image 0 .* lacks its config/,
  ],
  [
    'layers that are no paths',
    new Map([['manifest.json', Buffer.from('[{"Config":"x","Layers":[1]}]')]]),
    6,
    /not a path/,
  ],
  ['no image', new Map([['manifest.json', Buffer.from('[]')]]), 3, /lists no image/],
];

for (const [name, files, exitCode, message] of brokenArchives) {
  test(`${name} in a saved archive is an error`, async () => {
    using scratch = new Scratch();
    writeFileSync(scratch.join('x.tar'), archiveOf(files));
    await assert.rejects(open(`docker-archive:${scratch.join('x.tar')}`, scratch).then(readImage), {
      exitCode,
      message,
    });
  });
}

test('links that lead in a circle are an error', async () => {
  using scratch = new Scratch();
  writeFileSync(scratch.join('x.tar'), tar(symlink('manifest.json', 'b'), symlink('b', 'manifest.json')));
  await assert.rejects(open(`docker-archive:${scratch.join('x.tar')}`, scratch), {
    exitCode: 6,
    message: /loop of links/,
  });
});

function hasSkopeo(t: TestContext): boolean {
  if (spawnSync('skopeo', ['--version']).status === 0) return true;
  t.skip('needs skopeo');
  return false;
}

test('what skopeo makes of a layout is the same image', async (t) => {
  if (!hasSkopeo(t)) return;
  using scratch = new Scratch();
  const copy = (from: string, to: string): void => {
    execFileSync('skopeo', ['--insecure-policy', 'copy', from, to], { stdio: 'pipe', cwd: scratch.path });
  };
  writeFiles(scratch.join('img'), layoutFiles([tagged(manifest, 'v1')]));
  copy('oci:img:v1', 'oci:copy:v2');
  copy('oci:img:v1', 'oci-archive:oci.tar:v1');
  copy('oci:img:v1', 'docker-archive:docker.tar:a/b:1');
  for (const text of [`oci:${scratch.join('copy')}:v2`, `oci-archive:${scratch.join('oci.tar')}:v1`]) {
    const { image, blobs } = await readImage(await open(text, scratch));
    assert.equal(image.digest, manifest.digest);
    assert.deepEqual(
      blobs.map((blob) => digestOf(blob)),
      manifest.layers.map((layer) => layer.digest),
    );
  }
  for (const wanted of ['', ':a/b:1']) {
    const { image, blobs } = await readImage(
      await open(`docker-archive:${scratch.join('docker.tar')}${wanted}`, scratch),
    );
    assert.deepEqual(
      blobs.map((blob) => digestOf(blob)),
      manifest.diffIDs,
    );
    assert.deepEqual(
      image.layers.map((layer) => layer.diffID),
      manifest.diffIDs,
    );
  }
});
