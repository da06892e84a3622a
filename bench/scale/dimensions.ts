import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import {
  dir,
  file,
  hardlink,
  type Item,
  opaque,
  sparse,
  symlink,
  tar,
  whiteout,
} from '../../test/support/archive.ts';
import { fakeIndex, fakeManifest, type FakeImage, type FakeLayer } from '../../test/support/fake-image.ts';
import type { FakeRegistry } from '../../test/support/fake-registry.ts';

/** The inputs of one run of a row. */
export interface Setting {
  readonly registry: FakeRegistry;
  /** The image with that count. */
  readonly image: string;
  /** Another image in the registry, for diff. */
  readonly other: string;
  /** An empty directory that the command runs in. */
  readonly directory: string;
  readonly count: number;
}

/** A command, with the command that prepares it and is not timed. */
export interface Command {
  readonly name: string;
  readonly before?: (setting: Setting) => readonly string[];
  readonly argv: (setting: Setting) => readonly string[];
}

/** A dimension that an image, a registry or a host can have many of. */
export interface Dimension {
  readonly name: string;
  /** The commands run with this count and with four times this count. */
  readonly count: number;
  /** The image with `count` of them, 0 included. */
  readonly image: (count: number) => FakeImage;
  readonly commands: readonly Command[];
  /** Makes inputs outside the image: files in the directory, or documents in the registry. */
  readonly prepare?: (setting: Setting) => void;
  readonly environment?: (setting: Setting) => Readonly<Record<string, string>>;
}

const noCache = '--no-cache';

const pull: Command = { name: '-d', argv: ({ image }) => [image, '-d', 'out', noCache] };
const branches: Command = { name: '-g', argv: ({ image }) => [image, '-d', 'out', '-g', noCache] };
const archive: Command = { name: '-o', argv: ({ image }) => [image, '-o', 'out.tar', noCache] };
const verify: Command = {
  name: 'verify',
  before: pull.argv,
  argv: ({ image }) => ['verify', image, '-d', 'out', noCache],
};
const replace: Command = {
  name: '--replace',
  before: pull.argv,
  argv: ({ image }) => [image, '-d', 'out', '--replace=always', noCache],
};
const diff: Command = { name: 'diff', argv: ({ image, other }) => ['diff', image, other, noCache] };
const cat: Command = { name: 'cat', argv: ({ image }) => ['cat', image, 'etc/release', noCache] };
const part: Command = {
  name: '--path',
  argv: ({ image }) => [image, '-d', 'out', '--path', 'etc', noCache],
};
const inspect: Command = { name: 'inspect', argv: ({ image }) => ['inspect', image] };
const add: Command = {
  name: 'cache add',
  argv: ({ image }) => ['cache', 'add', image, '--cache-dir', 'cache'],
};

const ofBytes = [pull, archive, cat];
const ofFiles = [pull, branches, archive, verify, replace, diff, part];
const ofConfig = [inspect, pull, archive];

const many = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

const etc: readonly Item[] = [dir('etc'), file('etc/release', 'one\n')];

/** Returns an image of these layers on top of a few files. */
const layered = (...layers: readonly (readonly Item[])[]): FakeImage => ({
  layers: [{ tar: tar(...etc) }, ...layers.map((items): FakeLayer => ({ tar: tar(...items) }))],
});

/** Returns an image whose layer is a tar in that many members of 64 bytes each. */
function inMembers(count: number, member: (bytes: Uint8Array) => Buffer, kind: 'gzip' | 'zstd'): FakeImage {
  const size = 64;
  const content = tar(...etc, file('content', randomBytes(Math.max(0, count * size - 4096))));
  const members = many(Math.ceil(content.length / size), (index) =>
    member(content.subarray(index * size, (index + 1) * size)),
  );
  return { layers: [{ tar: content, compression: kind, blob: Buffer.concat(members) }] };
}

const emptySkippable = Buffer.from('502a4d1800000000', 'hex');

/** Spreads the items over a hundred directories, so that no directory is wide. */
const spread = (count: number, make: (name: string, index: number) => Item): Item[] => [
  ...many(100, (index) => dir(`d${index}`)),
  ...many(count, (index) => make(`d${index % 100}/e${index}`, index)),
];

const config = (members: Readonly<Record<string, unknown>>): FakeImage => ({
  ...layered(),
  config: { architecture: 'amd64', os: 'linux', ...members },
});

const forRuntimes: Command = {
  name: '--for',
  argv: ({ image }) => [image, '-d', 'out', '--for', 'runc', '--for', 'lxc', '--for', 'nspawn', noCache],
};

const cached: Command = {
  name: 'cache',
  before: add.argv,
  argv: () => ['cache', '--cache-dir', 'cache'],
};
const prune: Command = {
  name: 'cache prune',
  before: add.argv,
  argv: () => ['cache', 'prune', '--cache-dir', 'cache'],
};
const pullCached: Command = {
  name: '-d --offline',
  before: add.argv,
  argv: ({ image }) => [image, '-d', 'out', '--cache-dir', 'cache', '--offline'],
};

export const dimensions: readonly Dimension[] = [
  {
    name: 'zstd frames',
    count: 50_000,
    image: (count) => inMembers(count, (bytes) => zstdCompressSync(bytes), 'zstd'),
    commands: ofBytes,
  },
  {
    name: 'skippable frames',
    count: 200_000,
    image: (count) => ({
      layers: [
        {
          tar: tar(...etc),
          compression: 'zstd',
          blob: Buffer.concat([zstdCompressSync(tar(...etc)), ...many(count, () => emptySkippable)]),
        },
      ],
    }),
    commands: ofBytes,
  },
  {
    name: 'gzip members',
    count: 50_000,
    image: (count) => inMembers(count, (bytes) => gzipSync(bytes), 'gzip'),
    commands: ofBytes,
  },
  {
    name: 'layers',
    count: 400,
    image: (count) => layered(...many(count, (index) => [file(`f${index}`, 'x')])),
    commands: [pull, branches, archive, verify, diff, inspect, add],
  },
  {
    name: 'entries',
    count: 5000,
    image: (count) => layered(spread(count, (name) => file(name, 'x'))),
    commands: ofFiles,
  },
  {
    name: 'entries of one directory',
    count: 5000,
    image: (count) => layered([dir('wide'), ...many(count, (index) => file(`wide/${index}`, 'x'))]),
    commands: ofFiles,
  },
  {
    name: 'directories',
    count: 2000,
    image: (count) => layered(many(count, (index) => [dir(`d${index}`), file(`d${index}/f`)]).flat()),
    commands: ofFiles,
  },
  {
    name: 'levels',
    // Four times as many is about the limit of 2,047.
    count: 500,
    image: (count) => layered([file(`${'d/'.repeat(count)}f`, 'x')]),
    commands: ofFiles,
  },
  {
    name: 'hard links',
    count: 6000,
    image: (count) => layered([file('target', 'x'), ...spread(count, (name) => hardlink(name, 'target'))]),
    commands: ofFiles,
  },
  {
    name: 'symlinks',
    count: 6000,
    image: (count) => layered(spread(count, (name) => symlink(name, '../etc/release'))),
    commands: ofFiles,
  },
  {
    name: 'whiteouts',
    count: 2000,
    image: (count) =>
      layered(
        spread(count, (name) => file(name, 'x')),
        many(count, (index) => whiteout(`d${index % 100}/e${index}`)),
      ),
    commands: ofFiles,
  },
  {
    name: 'opaque directories',
    count: 1500,
    image: (count) =>
      layered(
        many(count, (index) => [dir(`d${index}`), file(`d${index}/f`)]).flat(),
        many(count, (index) => [dir(`d${index}`), opaque(`d${index}`)]).flat(),
      ),
    commands: ofFiles,
  },
  {
    name: 'files that become directories',
    count: 1500,
    image: (count) =>
      layered(
        spread(count, (name) => file(name, 'x')),
        many(count, (index) => dir(`d${index % 100}/e${index}`)),
      ),
    commands: ofFiles,
  },
  {
    name: 'directories that become files',
    count: 1500,
    image: (count) =>
      layered(
        spread(count, (name) => dir(name)),
        many(count, (index) => file(`d${index % 100}/e${index}`, 'x')),
      ),
    commands: ofFiles,
  },
  {
    name: 'entries for one path',
    count: 10_000,
    image: (count) => layered(many(count, (index) => file('same', `${index}`))),
    commands: ofFiles,
  },
  {
    name: 'extended attributes',
    count: 2000,
    image: (count) =>
      layered(spread(count, (name) => file(name, 'x', { xattrs: { 'user.a': 'one', 'user.b': 'two' } }))),
    commands: ofFiles,
  },
  {
    name: 'pax records of one entry',
    count: 10_000,
    image: (count) =>
      layered([
        file('f', 'x', { pax: Object.fromEntries(many(count, (index) => [`vendor.${index}`, 'value'])) }),
      ]),
    commands: ofBytes,
  },
  {
    name: 'index entries',
    count: 2000,
    image: () => layered(),
    prepare: ({ registry, count }) => {
      const manifest = fakeManifest(layered());
      const others = many(count, (index) => ({
        manifest,
        platform: { os: 'linux', architecture: `cpu${index}` },
      }));
      const index = fakeIndex([...others, { manifest, platform: { os: 'linux', architecture: 'amd64' } }]);
      registry.putManifest('lib/image', '1', index);
    },
    commands: [inspect, pull],
  },
  {
    name: 'history entries',
    count: 15_000,
    image: (count) => ({
      layers: layered().layers,
      config: {
        history: [
          { created_by: 'base' },
          ...many(count, (index) => ({ created_by: `RUN ${index}`, empty_layer: true })),
        ],
      },
    }),
    commands: ofConfig,
  },
  {
    name: 'labels',
    count: 25_000,
    image: (count) =>
      config({
        config: { Labels: Object.fromEntries(many(count, (index) => [`org.example.${index}`, 'value'])) },
      }),
    commands: [...ofConfig, forRuntimes],
  },
  {
    name: 'environment variables',
    count: 30_000,
    image: (count) => config({ config: { Env: many(count, (index) => `VARIABLE_${index}=value`) } }),
    commands: [...ofConfig, forRuntimes],
  },
  ...(['gnu', '0.0', '0.1', '1.0'] as const).map((format): Dimension => ({
    name: `segments of a sparse file (${format})`,
    // The map of format 0.0 has a record for each offset and each length, within 1 MiB.
    count: format === '0.0' ? 4000 : 20_000,
    image: (count) =>
      layered([
        sparse(
          'f',
          (count + 1) * 8192,
          many(count, (index) => [index * 8192, 'data']),
          format,
        ),
      ]),
    commands: ofBytes,
  })),
  {
    name: 'tags',
    count: 50_000,
    image: () => layered(),
    prepare: ({ registry, count }) => {
      const manifest = fakeManifest(layered());
      for (let index = 0; index < count; index += 1) registry.putManifest('lib/image', `t${index}`, manifest);
    },
    commands: [{ name: 'tags', argv: ({ image }) => ['tags', image.replace(/:1$/, '')] }],
  },
  {
    name: 'registries and mirrors',
    count: 2000,
    image: () => layered(),
    prepare: ({ registry: { host }, directory, count }) => {
      const others = many(
        count,
        (index) => `[[registry]]\nprefix = "r${index}.example.com"\nlocation = "m${index}.example.com"\n`,
      );
      const mirror = `[[registry.mirror]]\nlocation = "${host}/lib"\ninsecure = true\n`;
      const ours = `[[registry]]\nprefix = "${host}/lib"\nlocation = "${host}/lib"\ninsecure = true\n`;
      const text = [...others, ours, mirror.repeat(count)].join('');
      writeFileSync(path.join(directory, 'registries.conf'), text);
    },
    environment: ({ directory }) => ({
      CONTAINERS_REGISTRIES_CONF: path.join(directory, 'registries.conf'),
    }),
    commands: [inspect, pull],
  },
  {
    name: 'logins of an auth file',
    count: 15_000,
    image: () => layered(),
    prepare: ({ directory, count }) => {
      const auth = Buffer.from('user:password').toString('base64');
      const auths = Object.fromEntries(many(count, (index) => [`r${index}.example.com/a/b`, { auth }]));
      writeFileSync(path.join(directory, 'auth.json'), JSON.stringify({ auths }));
    },
    commands: [pull, inspect].map(({ name, argv }) => ({
      name,
      argv: (setting) => [...argv(setting), '--authfile', 'auth.json'],
    })),
  },
  {
    name: 'blobs in the cache',
    count: 500,
    image: (count) => layered(...many(count, (index) => [file(`f${index}`, 'x')])),
    commands: [cached, prune, pullCached],
  },
  {
    name: 'patterns of --exclude',
    count: 250,
    image: () => layered(spread(2000, (name) => file(name, 'x'))),
    commands: [pull, archive, diff].map(({ name, argv }) => ({
      name,
      argv: (setting) => [
        ...argv(setting),
        ...many(setting.count, (index) => ['--exclude', `d${index}/*.pyc`]).flat(),
      ],
    })),
  },
  {
    name: 'paths of --path',
    count: 250,
    image: () => layered(spread(2000, (name) => file(name, 'x'))),
    commands: [pull, archive].map(({ name, argv }) => ({
      name,
      argv: (setting) => [
        ...argv(setting),
        ...many(Math.max(1, setting.count), (index) => ['--path', `d${index % 100}/e${index}`]).flat(),
      ],
    })),
  },
];
