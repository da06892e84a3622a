import { gzipSync, zstdCompressSync } from 'node:zlib';
import { dir, file, hardlink, symlink, tar, whiteout } from '../support/archive.ts';
import { fakeIndex, fakeManifest, sha256, type FakeManifest } from '../support/fake-image.ts';
import { fakeV1Images } from '../support/fake-v1-image.ts';
import { archiveOf, layoutFiles, tagged } from '../layout/build-layout.ts';
import { mutateTar, oddTar } from './archives.ts';
import { PASSWORD, specialFile, type Case, type Placed } from './case.ts';
import { bzip2OfNothing, oddMembers, xzOfNothing } from './members.ts';
import { mutateBytes, mutateJson, oddText } from './mutate.ts';
import type { Random } from './random.ts';
import { encode, mutateAnswer, PORT, type RawAnswer, type Response } from './site.ts';

const REFERENCE = `127.0.0.1:${PORT}/lib/img:1`;
const pullOf = (reference: string) => [
  reference,
  '-d',
  'out',
  '--no-cache',
  '--retry',
  '1',
  '--retry-delay',
  '1ms',
];

const simpleLayers: readonly Buffer[] = [
  tar(dir('etc'), file('etc/passwd', 'root:x:0:0::/:/bin/sh\n'), file('a', 'old'), symlink('l', 'etc')),
  tar(file('a', 'new'), hardlink('b', 'a'), whiteout('l'), file('big', Buffer.alloc(70_000, 'abc'))),
];

/** Returns a command for an image: mostly a pull, with one of the outputs of a pull. */
function commandFor(random: Random, reference = REFERENCE, pullOnly = false): string[] {
  // A flag without effect on a local source is an error.
  const patience = reference === REFERENCE ? ['--retry', '1', '--retry-delay', '1ms'] : [];
  if (!pullOnly && random.percent(15)) {
    const json = random.percent(50) ? ['--json'] : [];
    if (random.percent(50)) return ['inspect', reference, ...patience, ...json];
    if (random.percent(30)) return ['cat', reference, 'etc/passwd', '--no-cache', ...patience];
    if (random.percent(30)) return ['diff', reference, reference, '--no-cache', ...patience, ...json];
    return ['tags', reference.replace(/:1$/, ''), ...patience];
  }
  const cache = random.percent(80) ? ['--no-cache'] : ['--cache-dir', 'cache'];
  const way = random.pick([
    ['-d', 'out'],
    ['-d', 'out'],
    ['-d', 'out'],
    ['-d', 'out', '-g'],
    ['-o', 'out.tar'],
    ['-o', 'out.tar.gz'],
    ['-d', 'out', '--for', 'runc', '--for', 'lxc', '--for', 'nspawn', '--prepare', '--force'],
    ['-d', 'out', ...(reference === REFERENCE ? ['-j', '1'] : [])],
    ['-d', 'out', '--json'],
    ['-d', 'out', '--replace'],
    ['-d', 'out', '--path', 'etc'],
    ['-o', 'out.tar', '--exclude', 'etc/*'],
    ['-o', 'out.ext4'],
    ['-o', 'out.erofs'],
    ['-d', 'out', '--progress', 'json', '-v'],
  ]);
  return [reference, ...patience, ...cache, ...way];
}

const ok = (body: Uint8Array, headers: Readonly<Record<string, string>> = {}): Response => ({
  status: 200,
  headers,
  body,
});

type Responses = Record<string, Response>;

/** Returns the responses of a registry for one image with the tag 1. */
function registryOf(manifest: Pick<FakeManifest, 'mediaType' | 'bytes' | 'blobs'>): Responses {
  const at = '/v2/lib/img';
  const responses: Responses = {
    '/v2/': ok(Buffer.from('{}'), { 'docker-distribution-api-version': 'registry/2.0' }),
    [`${at}/tags/list`]: ok(Buffer.from('{"name":"lib/img","tags":["1"]}')),
  };
  for (const name of ['1', sha256(manifest.bytes)])
    responses[`${at}/manifests/${name}`] = ok(manifest.bytes, { 'content-type': manifest.mediaType });
  for (const [digest, blob] of manifest.blobs)
    responses[`${at}/blobs/${digest}`] = ok(blob, { 'accept-ranges': 'bytes', etag: '"x"' });
  return responses;
}

function siteOf(responses: Responses): Record<string, readonly RawAnswer[]> {
  return Object.fromEntries(Object.entries(responses).map(([path, each]) => [path, [encode(each)]]));
}

const compressions = ['none', 'gzip', 'zstd'] as const;

function layers(random: Random): Case {
  const tars = random.list(1, 3, () => {
    const bytes = random.percent(85) ? oddTar(random) : simpleLayers[0]!;
    return random.percent(35) ? mutateTar(random, bytes) : bytes;
  });
  const image = tars.map((each) => ({ tar: each, compression: random.pick(compressions) }));
  const old = random.percent(15) ? ([{ path: 'out/a', type: 'directory' }] as const) : [];
  const site = siteOf(registryOf(fakeManifest({ layers: image })));
  return { argv: old.length > 0 ? pullOf(REFERENCE) : commandFor(random), files: old, site };
}

function streams(random: Random): Case {
  const plain = random.percent(50) ? oddTar(random) : simpleLayers[1]!;
  const stream = random.pick([
    () => gzipSync(plain, { level: random.below(10) }),
    () => zstdCompressSync(plain),
    () => gzipSync(Buffer.alloc(random.pick([1, 30, 100]) * 2 ** 20)),
    () => bzip2OfNothing,
    () => xzOfNothing,
  ])();
  const blob = random.percent(90) ? mutateBytes(random, stream) : stream;
  const format = random.pick(['oci', 'docker', 'schema1'] as const);
  const site = siteOf(registryOf(fakeManifest({ layers: [blob], format })));
  return { argv: commandFor(random), site };
}

function members(random: Random): Case {
  const plain = random.percent(30) ? oddTar(random) : simpleLayers[random.below(2)]!;
  const image = random.list(1, 2, () => oddMembers(random, plain));
  const site = siteOf(registryOf(fakeManifest({ layers: image })));
  return { argv: commandFor(random), site };
}

/** Returns the registry with changed documents and their new digests. */
function documents(random: Random): Case {
  const format = random.pick(['oci', 'docker', 'schema1'] as const);
  const made = fakeManifest({ layers: simpleLayers.map((each) => ({ tar: each })), format });
  const blobs = new Map(made.blobs);
  let document = JSON.parse(Buffer.from(made.bytes).toString()) as Record<string, unknown>;
  if (format !== 'schema1' && random.percent(50)) {
    const config = mutateJson(random, JSON.parse(Buffer.from(blobs.get(made.configDigest)!).toString()), 5);
    blobs.set(sha256(config), config);
    const descriptor = document['config'] as object;
    document = { ...document, config: { ...descriptor, digest: sha256(config), size: config.length } };
  }
  const bytes = random.percent(60) ? mutateJson(random, document, 4) : Buffer.from(JSON.stringify(document));
  const manifest = { mediaType: made.mediaType, bytes, blobs };
  if (format === 'schema1' || random.percent(60)) {
    const site = siteOf(registryOf(manifest));
    return { argv: commandFor(random), site };
  }
  const index = fakeIndex(
    [
      {
        manifest: { ...made, bytes, digest: sha256(bytes) },
        platform: { os: 'linux', architecture: 'amd64' },
      },
    ],
    format,
  );
  const indexBytes = mutateJson(random, JSON.parse(Buffer.from(index.bytes).toString()), 4);
  const responses = registryOf(manifest);
  const at = '/v2/lib/img/manifests/';
  for (const name of ['1', sha256(indexBytes)])
    responses[`${at}${name}`] = ok(indexBytes, { 'content-type': index.mediaType });
  return { argv: commandFor(random), site: siteOf(responses) };
}

/** Changes some responses of the registry into invalid ones. */
function brokenAnswers(random: Random): Case {
  const image = { layers: simpleLayers.map((each) => ({ tar: each })) };
  const responses = random.percent(30) ? v1Responses(random, false) : registryOf(fakeManifest(image));
  const token = { token: 't', access_token: 't', expires_in: 60 };
  responses['/token'] = ok(Buffer.from(JSON.stringify(token)));
  const site = siteOf(responses);
  if (random.percent(25)) site['/v2/'] = [challenge(random), ...(site['/v2/'] ?? [])];
  if (random.percent(15)) site['/token'] = [encode(ok(mutateJson(random, token)))];
  for (let n = 0; n <= random.below(3); n += 1) {
    const path = random.pick(Object.keys(responses));
    const broken = random.list(1, 2, () => mutateAnswer(random, responses[path]!));
    site[path] = random.percent(60) ? [...broken, encode(responses[path]!)] : broken;
  }
  const credentials = random.percent(30) ? ['-u', `me:${PASSWORD}`] : [];
  return { argv: [...commandFor(random), ...credentials], site };
}

function challenge(random: Random): RawAnswer {
  const realm = random.percent(80) ? `http://127.0.0.1:${PORT}/token` : oddText(random);
  const header = random.percent(70)
    ? `Bearer realm="${realm}",service="s",scope="repository:lib/img:pull"`
    : `${random.pick(['Basic', 'Bearer', 'Digest', ''])} realm="${oddText(random)}"${oddText(random)}`;
  const value = header.replaceAll(/[\r\n\0]/g, '').slice(0, 10_000);
  return encode({ status: 401, headers: { 'www-authenticate': value }, body: Buffer.from('{}') });
}

function v1Responses(random: Random, mutated: boolean): Responses {
  const images = fakeV1Images({ layers: simpleLayers.map((each) => ({ tar: each })) });
  const top = images.at(-1)!;
  const json = (value: unknown) =>
    mutated && random.percent(30) ? mutateJson(random, value) : Buffer.from(JSON.stringify(value));
  const index = {
    'x-docker-token': 'signature=abc,repository="lib/img",access=read',
    'x-docker-endpoints': `127.0.0.1:${PORT}`,
  };
  const responses: Responses = {
    '/v1/_ping': ok(Buffer.from('true'), { 'x-docker-registry-version': '0.6.0' }),
    '/v1/repositories/lib/img/images': ok(json(images.map(({ id, checksum }) => ({ id, checksum }))), index),
    '/v1/repositories/lib/img/tags': ok(json({ '1': top.id })),
    '/v1/repositories/lib/img/tags/1': ok(json(top.id)),
    [`/v1/images/${top.id}/ancestry`]: ok(json(top.ancestry)),
  };
  for (const { id, blob, json: document } of images) {
    const changed = mutated && random.percent(40);
    responses[`/v1/images/${id}/json`] = ok(
      changed ? mutateJson(random, JSON.parse(Buffer.from(document).toString())) : document,
      { 'x-docker-size': String(blob.length) },
    );
    responses[`/v1/images/${id}/layer`] = ok(
      changed && random.percent(20) ? mutateBytes(random, blob) : blob,
    );
  }
  return responses;
}

function version1(random: Random): Case {
  const version = random.percent(50) ? ['--registry-version', '1'] : [];
  const site = siteOf(v1Responses(random, true));
  return { argv: [...commandFor(random), ...version], site };
}

function localSources(random: Random): Case {
  const made = fakeManifest({ layers: simpleLayers.map((each) => ({ tar: each })), format: 'docker' });
  const files = new Map(layoutFiles([tagged(made, '1')]));
  const names = [...files.keys()];
  const broken = random.pick(names);
  const bytes = Buffer.from(files.get(broken)!);
  const isJson = bytes[0] === 0x7b;
  files.set(
    broken,
    isJson && random.percent(70)
      ? mutateJson(random, JSON.parse(bytes.toString()), 5)
      : mutateBytes(random, bytes),
  );
  const command = (source: string) => commandFor(random, source, true);
  if (random.percent(40)) {
    const special = random.percent(40) ? [specialFile(random, `layout/${random.pick(names)}`)] : [];
    const placed = [...files].map(([path, content]) => ({
      path: `layout/${path}`,
      type: 'file' as const,
      content: Buffer.from(content),
    }));
    return { argv: command(`oci:layout${random.pick(['', ':1', ':@0'])}`), files: [...placed, ...special] };
  }
  const docker = random.percent(50);
  const archive = docker ? dockerArchive(random, made) : archiveOf(files);
  const content = random.percent(60) ? mutateTar(random, archive) : archive;
  const packed = random.percent(20) ? gzipSync(content) : content;
  if (random.percent(30)) return { argv: command('-'), stdin: packed };
  const kind = docker ? 'docker-archive' : 'oci-archive';
  return {
    argv: command(`${kind}:file.tar`),
    files: [{ path: 'file.tar', type: 'file', content: packed }],
  };
}

function dockerArchive(random: Random, made: FakeManifest): Buffer {
  const layerNames = simpleLayers.map((_, n) => `${n}/layer.tar`);
  const manifest = [{ Config: 'config.json', RepoTags: ['lib/img:1'], Layers: layerNames }];
  return tar(
    file('manifest.json', random.percent(50) ? mutateJson(random, manifest, 5) : JSON.stringify(manifest)),
    file('config.json', made.blobs.get(made.configDigest)),
    file('repositories', '{}'),
    ...simpleLayers.map((layer, n) => file(layerNames[n]!, layer)),
    ...random.list(0, 2, () => symlink(random.pick(layerNames), oddText(random).slice(0, 90))),
  );
}

const host = `127.0.0.1:${PORT}`;
const auth = Buffer.from(`me:${PASSWORD}`).toString('base64');
const authDocument = {
  auths: { [host]: { auth, email: 'x' }, 'https://index.docker.io/v1/': { identitytoken: 'x' } },
  credHelpers: { 'example.com': 'none' },
  HttpHeaders: { 'X-Y': 'z' },
};
const registriesText = `unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "docker.io/library"
location = "${host}/lib"
insecure = true
blocked = false
[[registry.mirror]]
location = "${host}/mirror"
pull-from-mirror = "all"
[aliases]
"img" = "${host}/lib/img"
`;

function settings(random: Random): Case {
  const responses = registryOf(fakeManifest({ layers: simpleLayers.map((each) => ({ tar: each })) }));
  const site = { ...siteOf(responses), '/v2/': [challenge(random), encode(responses['/v2/']!)] };
  const certificate = Buffer.from(`-----BEGIN CERTIFICATE-----\n${auth}\n-----END CERTIFICATE-----\n`);
  const [path, content, flags, environment] = random.pick([
    ['auth.json', mutateJson(random, authDocument, 5), ['--authfile', 'auth.json'], {}],
    ['config.json', mutateJson(random, authDocument, 5), [], { DOCKER_CONFIG: '@WORK@' }],
    ['auth.json', Buffer.from(''), [], { DOCKER_AUTH_CONFIG: mutateJson(random, authDocument).toString() }],
    [
      'r.conf',
      mutateBytes(random, Buffer.from(registriesText)),
      [],
      { CONTAINERS_REGISTRIES_CONF: '@WORK@/r.conf' },
    ],
    ['ca.pem', mutateBytes(random, certificate), ['--ca-file', 'ca.pem'], {}],
    ['certs/ca.crt', mutateBytes(random, certificate), ['--cert-dir', 'certs'], {}],
    ['cert.pem', certificate, ['--cert-file', 'cert.pem', '--key-file', 'cert.pem'], {}],
    ['extra.pem', mutateBytes(random, certificate), [], { NODE_EXTRA_CA_CERTS: '@WORK@/extra.pem' }],
  ] as const);
  const usable = Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, value.replaceAll('\0', '').slice(0, 60_000)]),
  );
  const placed: Placed = random.percent(12) ? specialFile(random, path) : { path, type: 'file', content };
  const reference = random.pick([REFERENCE, 'docker.io/library/img:1', 'img:1']);
  const argv = [...commandFor(random, reference, true), ...flags];
  return { argv, environment: usable, files: [placed], site };
}

const words = (random: Random) =>
  random.pick([
    () => oddText(random),
    () => mutateBytes(random, Buffer.from(REFERENCE)).toString('utf8'),
    () => mutateBytes(random, Buffer.from(`oci:layout:1`)).toString('utf8'),
    () => mutateBytes(random, Buffer.from(`lib/img@sha256:${'a'.repeat(64)}`)).toString('utf8'),
    () => random.pick(['inspect', 'tags', 'cache', 'completion', 'help', 'version', 'prune', 'bash']),
    () =>
      random.pick(['-d', '-o', '-g', '-u', '-j', '--platform', '--retry', '--retry-delay', '--cache-size']),
    () => random.pick(['--for', '--progress', '--mirror', '--tls-verify', '--registry-version', '--prepare']),
    () =>
      random.pick([
        'out',
        '1',
        '0',
        '-1',
        '1e9',
        '10G',
        '2s',
        'linux/arm64',
        'runc',
        'tty',
        `me:${PASSWORD}`,
      ]),
  ])();

function commandLine(random: Random): Case {
  const responses = registryOf(fakeManifest({ layers: simpleLayers.map((each) => ({ tar: each })) }));
  const argv = [
    ...random.list(0, 5, () => words(random)),
    ...['--retry', '0', '--no-cache', '--authfile', 'none.json'].slice(0, random.pick([2, 3, 3, 5])),
    ...(random.percent(40) ? ['-d', 'out', REFERENCE] : []),
  ].map((word) => word.replaceAll('\0', '').slice(0, 100_000));
  return { argv, site: siteOf(responses) };
}

interface Kind {
  readonly share: number;
  readonly make: (random: Random) => Case;
}

/** Every kind of case, and its share in percent. */
export const kinds: Readonly<Record<string, Kind>> = {
  layers: { share: 28, make: layers },
  streams: { share: 10, make: streams },
  members: { share: 8, make: members },
  documents: { share: 14, make: documents },
  answers: { share: 14, make: brokenAnswers },
  v1: { share: 7, make: version1 },
  local: { share: 8, make: localSources },
  settings: { share: 6, make: settings },
  arguments: { share: 5, make: commandLine },
};
