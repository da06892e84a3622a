import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { archive, type ArchiveEntry } from './archive.ts';
import { mixture, type Noise, noise, text } from './noise.ts';

const MiB = 1 << 20;

/**
 * The images that are made without running a command in them, by name: the tars of their layers, base layer
 * first.
 */
export const generated: Readonly<Record<string, () => Iterable<Iterable<Uint8Array>>>> = {
  small: () => [archive(busybox())],
  bigfiles,
  onelayer: () => [archive(folderOf('data', oneLayer()))],
  file4g: () => [archive(folderOf('data', [hugeFile()]))],
  layers127: function* () {
    for (let n = 0; n < 127; n += 1) yield archive(folderOf(`layer${n}`, smallFiles(20, n)));
  },
  entries10k: () => [archive(manyEntries(10_000))],
  entries100k: () => [archive(manyEntries(100_000))],
  entries1m: () => [archive(manyEntries(1_000_000))],
  shapefat: function* () {
    const random = noise(11);
    const words = text(random, 12 * MiB);
    for (let n = 0; n < 3; n += 1) yield archive(folderOf(`srv${n}`, fatFiles(random, words)));
  },
  shapethin: function* () {
    for (let n = 0; n < 120; n += 1) yield archive(folderOf(`srv/part${n % 10}`, thinLayer(n)));
  },
  shapelinks: () => [archive(folderOf('usr', linkedFiles()))],
  shapereal: realistic,
  tenlayers: function* () {
    const random = noise(14);
    const words = text(random, 12 * MiB);
    for (let n = 0; n < 10; n += 1) yield archive(folderOf(`srv${n}`, heavyLayer(random, words)));
  },
};

function directory(path: string, mode = 0o755): ArchiveEntry {
  return { path: `${path}/`, type: 'Directory', mode };
}

function file(path: string, size: number, content: Iterable<Uint8Array>, mode = 0o644): ArchiveEntry {
  return { path, type: 'File', mode, size, content };
}

function* folderOf(path: string, files: Iterable<ArchiveEntry>): Generator<ArchiveEntry> {
  yield directory(path);
  for (const entry of files) yield { ...entry, path: `${path}/${entry.path}` };
}

/** Debian's static busybox and a link for each of its commands. */
function* busybox(): Generator<ArchiveEntry> {
  const program = execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim();
  const names = execFileSync(program, ['--list'], { encoding: 'utf8' }).trim().split('\n');
  const bytes = readFileSync(program);
  yield directory('bin');
  yield file('bin/busybox', bytes.length, [bytes], 0o755);
  for (const name of names)
    if (name !== 'busybox')
      yield { path: `bin/${name}`, type: 'SymbolicLink', mode: 0o777, target: 'busybox' };
  yield directory('etc');
  const passwd = Buffer.from('root:x:0:0:root:/root:/bin/sh\n');
  yield file('etc/passwd', passwd.length, [passwd]);
  yield directory('tmp', 0o1777);
}

/** About 1 GiB in eight layers. The last one replaces a file of the second one. */
function* bigfiles(): Generator<Iterable<Uint8Array>> {
  const random = noise(1);
  const words = text(random, 12 * MiB);
  const layers: Readonly<Record<string, number>>[] = [
    { 'model.safetensors.1': 160 },
    { 'model.safetensors.2': 160 },
    { 'libbig.so': 96, 'tokenizer.json': 24 },
    { 'model.safetensors.3': 256 },
    { 'index.bin': 64, 'vocab.txt': 32 },
    { 'model.safetensors.4': 160 },
    { 'model.safetensors.1': 64, 'weights.pt': 40 },
  ];
  yield archive(busybox());
  for (const files of layers) {
    yield archive(
      folderOf(
        'models',
        Object.entries(files).map(([name, sizeMiB]) =>
          file(
            name,
            sizeMiB * MiB,
            /json|txt/.test(name) ? repeatedText(words, sizeMiB) : mixture(random, words, sizeMiB),
          ),
        ),
      ),
    );
  }
}

function* repeatedText(words: Uint8Array, sizeMiB: number): Generator<Uint8Array> {
  for (let piece = 0; piece < sizeMiB / 4; piece += 1) {
    const cut = (piece * 1_234_567) % (8 * MiB);
    yield words.subarray(cut, cut + 4 * MiB);
  }
}

/** 500 MB that gzip cannot compress. */
function* oneLayer(): Generator<ArchiveEntry> {
  const random = noise(2);
  for (let n = 0; n < 10; n += 1)
    yield file(
      `part${n}`,
      50_000_000,
      pieces(50, () => random(1_000_000)),
    );
}

/** 4 GiB, nearly all zeros: the blob is a few MiB. */
function hugeFile(): ArchiveEntry {
  const random = noise(3);
  const piece = Buffer.alloc(MiB);
  const content = pieces(4096, () => {
    random(512).copy(piece);
    return Buffer.from(piece);
  });
  return file('huge', 4096 * MiB, content);
}

function* pieces(count: number, piece: () => Uint8Array): Generator<Uint8Array> {
  for (let n = 0; n < count; n += 1) yield piece();
}

function* smallFiles(count: number, seed: number): Generator<ArchiveEntry> {
  const random = noise(seed);
  for (let n = 0; n < count; n += 1) {
    const bytes = Buffer.from(random(600).toString('base64'));
    yield file(`file${n}.txt`, bytes.length, [bytes]);
  }
}

/** 54 files of 1 MiB that gzip cannot compress, and 400 small ones: 55 MiB compressed. */
function* heavyLayer(random: Noise, words: Uint8Array): Generator<ArchiveEntry> {
  for (let n = 0; n < 54; n += 1) yield file(`data${n}`, MiB, [random(MiB)]);
  for (let n = 0; n < 400; n += 1) {
    const size = 100 + ((n * 7919) % 9900);
    yield file(`module${n}.js`, size, [words.subarray(n * 1000, n * 1000 + size)]);
  }
}

/** 25 files of 8 MiB. */
function* fatFiles(random: Noise, words: Uint8Array): Generator<ArchiveEntry> {
  for (let n = 0; n < 25; n += 1) yield file(`part${n}`, 8 * MiB, mixture(random, words, 8));
}

/** 40 files, which replace those of an earlier layer, and from the tenth layer on a whiteout. */
function* thinLayer(layer: number): Generator<ArchiveEntry> {
  yield* smallFiles(40, layer % 250);
  if (layer < 10) return;
  yield file('.wh.file7.txt', 0, []);
}

/** 2,000 files, and 18,000 hard links and 10,000 symlinks to them, in 200 folders. */
function* linkedFiles(): Generator<ArchiveEntry> {
  const words = text(noise(12), MiB);
  for (let folder = 0; folder < 200; folder += 1) {
    yield directory(`d${folder}`);
    for (let n = 0; n < 10; n += 1) {
      const size = 200 + (((folder * 10 + n) * 7919) % 9800);
      yield file(`d${folder}/f${n}`, size, [words.subarray(n * 1000, n * 1000 + size)]);
      for (let m = 0; m < 9; m += 1)
        yield {
          path: `d${folder}/f${n}-link${m}`,
          type: 'Link',
          mode: 0o644,
          target: `usr/d${folder}/f${n}`,
        };
      for (let m = 0; m < 5; m += 1)
        yield {
          path: `d${folder}/f${n}-soft${m}`,
          type: 'SymbolicLink',
          mode: 0o777,
          target: `../d${(folder + m) % 200}/f${n}`,
        };
    }
  }
}

/**
 * A base with libraries, an interpreter, an application's modules, and small layers that change and remove a
 * few of them.
 */
function* realistic(): Generator<Iterable<Uint8Array>> {
  const random = noise(13);
  const words = text(random, 12 * MiB);
  yield archive(folderOf('usr', sizedFiles(6000, random, words, MiB)));
  yield archive(folderOf('opt', sizedFiles(1500, random, words, 8 * MiB)));
  yield archive(folderOf('srv', sizedFiles(16_000, random, words, 64 * 1024)));
  for (let n = 0; n < 6; n += 1)
    yield archive(
      folderOf('srv', [
        directory(`d${n}`),
        file(`d${n}/.wh.f${n}`, 0, []),
        ...Array.from({ length: 30 }, (_, m) => file(`d${n}/new${m}`, 3000, [words.subarray(m, m + 3000)])),
      ]),
    );
}

/**
 * Files of many sizes: as many between 100 bytes and 1 KB as between 1 and 10 KB, and so on, up to `largest`.
 */
function* sizedFiles(
  count: number,
  random: Noise,
  words: Uint8Array,
  largest: number,
): Generator<ArchiveEntry> {
  for (let n = 0; n < count; n += 1) {
    if (n % 20 === 0) yield directory(`d${n / 20}`);
    const folder = `d${Math.floor(n / 20)}`;
    const fraction = ((n * 7919) % 10_007) / 10_007;
    const size = Math.floor(100 * (largest / 100) ** (fraction ** 4));
    const cut = (n * 104_729) % MiB;
    const bytes = n % 3 === 0 ? random(size) : words.subarray(cut, cut + size);
    yield file(`${folder}/f${n}`, bytes.length, [bytes], n % 9 === 0 ? 0o755 : 0o644);
    if (n % 12 === 0) yield { path: `${folder}/l${n}`, type: 'SymbolicLink', mode: 0o777, target: `f${n}` };
  }
}

/** Folders of 19 files of 40 to 2,000 bytes each, a hundred folders in each parent. */
function* manyEntries(count: number): Generator<ArchiveEntry> {
  const words = text(noise(4), MiB);
  yield directory('srv');
  let made = 1;
  for (let group = 0; made < count; group += 1) {
    yield directory(`srv/group${group}`);
    made += 1;
    for (let n = 0; n < 100 && made < count; n += 1) {
      yield directory(`srv/group${group}/package${n}`);
      made += 1;
      for (let m = 0; m < 19 && made < count; m += 1, made += 1) {
        const size = 40 + ((made * 7919) % 1961);
        const cut = (made * 104_729) % (words.length - 2000);
        yield file(`srv/group${group}/package${n}/module${m}.js`, size, [words.subarray(cut, cut + size)]);
      }
    }
  }
}
