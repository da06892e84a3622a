import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { archive, type ArchiveEntry } from './archive.ts';
import { mixture, noise, text } from './noise.ts';

const MiB = 1 << 20;

/** The images that are made without running anything in them: name to the tars of their layers, base layer first. */
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

/** About 1 GiB in eight layers, the last of which writes a file of the second again. */
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

/** 500 MB that gzip can do nothing about. */
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

/** Folders of 19 files of 40 to 2,000 bytes each, a hundred of them to a folder one level up. */
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
