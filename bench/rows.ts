import type { LinkSpeed } from './link.ts';
import { median, ratio, type Results } from './results.ts';

export type Compression = 'gzip' | 'zstd';

/** A command that is timed. */
export interface Candidate {
  readonly name: string;
  /** A bash script that runs after peers.sh; `dlrootfs` is the tool under test. */
  readonly script: string;
  /** The program that runs as `dlrootfs`; default: the tool under test. */
  readonly tool?: string;
  readonly image: string;
  /** Compression of the layers; default: gzip. */
  readonly compression?: Compression;
  /** A link that is slower than loopback. */
  readonly link?: LinkSpeed;
  /** The number of processors to use. A machine with fewer skips the candidate, and reports this. */
  readonly cores?: number;
  /** The script repeats the command this many times. */
  readonly repeat?: number;
  /** Programs that the candidate needs; without them it is skipped. */
  readonly needs?: readonly string[];
}

/** A limit for measurements of a row, printed on the line of `candidate`. */
export interface Goal {
  readonly candidate: string;
  readonly what: string;
  /** Undefined if a candidate that it needs was skipped. */
  readonly value: (results: Results) => number | undefined;
  readonly atMost: number;
  readonly unit?: string;
}

export interface Row {
  readonly name: string;
  readonly title: string;
  readonly candidates: readonly Candidate[];
  readonly goals: readonly Goal[];
}

/** The command that users type. Each run has an empty home directory, so the cache is cold. */
const pull = 'dlrootfs "$IMAGE" -d "$DEST"';

function dlrootfs(image: string, link?: LinkSpeed): Candidate {
  return { name: 'dlrootfs', script: pull, image, ...(link && { link }) };
}

function limit(image: string): Candidate {
  return { name: 'limit', script: 'limit', image };
}

/** Compares dlrootfs with the limit only. */
function againstLimit(
  name: string,
  title: string,
  image: string,
  most: number,
  compression: Compression = 'gzip',
): Row {
  return {
    name,
    title,
    candidates: [
      { ...dlrootfs(image), compression },
      { ...limit(image), compression },
    ],
    goals: [wall('limit', most), memory('dlrootfs', 128)],
  };
}

/** The same candidate with that many processors. */
function withCores(cores: number): readonly Candidate[] {
  return [dlrootfs('manyfiles'), limit('manyfiles')].map((candidate) => ({
    ...candidate,
    name: `${candidate.name}, ${cores} cores`,
    script: `cores ${cores}; ${candidate.script}`,
    cores,
  }));
}

function crane(image: string, link?: LinkSpeed): Candidate {
  return { name: 'crane', script: 'crane_export', image, needs: ['CRANE_EXPORT'], ...(link && { link }) };
}

function wall(candidate: string, atMost: number, against = 'dlrootfs'): Goal {
  return {
    candidate,
    what: 'wall',
    atMost,
    value: (results) => ratio(results, 'wallSeconds', against, candidate),
  };
}

function cpu(candidate: string, atMost: number): Goal {
  return {
    candidate,
    what: 'cpu',
    atMost,
    value: (results) => ratio(results, 'cpuSeconds', 'dlrootfs', candidate),
  };
}

function memory(candidate: string, atMost: number): Goal {
  return {
    candidate,
    what: 'rss',
    atMost,
    unit: 'MiB',
    value: (results) => median(results, 'rssMiB', candidate),
  };
}

/**
 * Compares an image as one file of each format with a directory, crane's tar, and the images of skopeo, umoci
 * and a mkfs.
 */
function disks(name: string, title: string, image: string): Row {
  const ours = ['tar', 'erofs', 'ext4', 'squashfs'].map((format) => ({
    name: `dlrootfs -o x.${format}`,
    script: `dlrootfs "$IMAGE" -o "$DEST/x.${format}"`,
    image,
    needs: { tar: [], erofs: [], ext4: ['mke2fs', 'debugfs'], squashfs: ['sqfstar'] }[format] ?? [],
  }));
  const theirs = [
    ['mkfs.erofs', 'umoci_erofs'],
    ['mke2fs', 'umoci_ext4'],
    ['mksquashfs', 'umoci_squashfs'],
  ].map(([program, script]) => ({
    name: `skopeo+umoci+${program}`,
    script: script!,
    image,
    needs: ['skopeo', 'umoci', program!],
  }));
  const tarOfCrane = { name: 'crane export', script: 'crane_tar', image, needs: ['CRANE_EXPORT'] };
  return {
    name,
    title,
    candidates: [dlrootfs(image), ...ours, tarOfCrane, ...theirs],
    goals: [
      wall('dlrootfs', 1.3, 'dlrootfs -o x.erofs'),
      memory('dlrootfs -o x.erofs', 160),
      wall('dlrootfs', 4, 'dlrootfs -o x.ext4'),
    ],
  };
}

const fastLink = { rateMbit: 200, rttMs: 20 };
const officeLink = { rateMbit: 1000, rttMs: 5, shared: true };
const slowLink = { rateMbit: 100, rttMs: 20 };
const STARTS = 20;

/**
 * Seconds per entry in the image of `thousands` thousand entries, divided by those in the image of ten
 * thousand.
 */
function perEntry(results: Results, thousands: number): number | undefined {
  const many = median(results, 'wallSeconds', `${thousands}k entries`);
  const few = median(results, 'wallSeconds', '10k entries');
  return many === undefined || few === undefined ? undefined : many / thousands / (few / 10);
}

/** All rows of the benchmark. */
export const rows: readonly Row[] = [
  {
    name: 'manyfiles',
    title: 'many files: 12 layers, 100,000 entries',
    candidates: [
      dlrootfs('manyfiles'),
      {
        name: 'dlrootfs --no-cache',
        script: 'dlrootfs --no-cache "$IMAGE" -d "$DEST"',
        image: 'manyfiles',
      },
      limit('manyfiles'),
      { name: 'skopeo+umoci', script: 'skopeo_umoci', image: 'manyfiles', needs: ['skopeo', 'umoci'] },
      { name: 'podman', script: 'podman_export', image: 'manyfiles', needs: ['podman'] },
      crane('manyfiles'),
    ],
    goals: [
      wall('limit', 0.65),
      cpu('limit', 1.3),
      wall('skopeo+umoci', 0.35),
      wall('podman', 0.25),
      wall('crane', 0.75),
      memory('dlrootfs', 128),
    ],
  },
  {
    name: 'bigfiles',
    title: 'big files: 8 layers, 1 GiB',
    candidates: [
      dlrootfs('bigfiles'),
      limit('bigfiles'),
      { name: 'limit with sha256sum', script: 'limit_sha256', image: 'bigfiles' },
    ],
    goals: [wall('limit', 0.75), wall('limit with sha256sum', 0.7), memory('dlrootfs', 128)],
  },
  againstLimit('debian', 'Debian without documents: 4 layers, 5,500 entries', 'debian', 0.9),
  againstLimit('manyzstd', 'many files, zstd', 'manyfiles', 0.7, 'zstd'),
  againstLimit('bigzstd', 'big files, zstd', 'bigfiles', 0.9, 'zstd'),
  againstLimit('fat', 'a few fat layers: 3 of 200 MiB', 'shapefat', 0.75),
  againstLimit('thin', 'many thin layers: 120 of 40 files', 'shapethin', 0.65),
  againstLimit('files', 'one layer of 100,000 files', 'entries100k', 0.65),
  againstLimit('links', 'mostly links: 2,000 files, 18,000 hard links, 10,000 symlinks', 'shapelinks', 0.9),
  againstLimit(
    'realistic',
    'a base, an interpreter, an application, and small layers above',
    'shapereal',
    0.75,
  ),
  {
    name: 'cores',
    title: 'many files on 2, 4 and 8 processors',
    candidates: [2, 4, 8].flatMap(withCores),
    goals: [2, 4, 8].map((cores) => wall(`limit, ${cores} cores`, 0.65, `dlrootfs, ${cores} cores`)),
  },
  {
    name: 'office',
    title: 'many files from a registry on a link of 1 Gbit/s in all, 5 ms',
    candidates: [
      dlrootfs('manyfiles', officeLink),
      crane('manyfiles', officeLink),
      { name: 'transfer alone', script: 'transfer', image: 'manyfiles', link: officeLink },
      { ...limit('manyfiles'), link: officeLink },
    ],
    goals: [wall('limit', 0.75), wall('crane', 0.6)],
  },
  {
    name: 'link',
    title: 'many files over a link of 200 Mbit/s per connection, 20 ms',
    candidates: [
      dlrootfs('manyfiles', fastLink),
      crane('manyfiles', fastLink),
      { name: 'transfer alone', script: 'transfer', image: 'manyfiles', link: fastLink },
      { ...limit('manyfiles'), name: 'limit on loopback' },
    ],
    goals: [
      wall('crane', 0.65),
      {
        candidate: 'dlrootfs',
        what: 'wall against the larger of transfer and limit',
        atMost: 1.1,
        value: (results) => ratio(results, 'wallSeconds', 'dlrootfs', 'transfer alone', 'limit on loopback'),
      },
    ],
  },
  {
    name: 'onelayer',
    title: 'one layer of 500 MB over a link of 100 Mbit/s per connection, 20 ms',
    candidates: [
      dlrootfs('onelayer', slowLink),
      {
        name: 'curl',
        script: 'curl -fsS -o "$SCRATCH/blob" "$blobs/$(layers)"',
        image: 'onelayer',
        link: slowLink,
      },
    ],
    goals: [wall('curl', 0.4)],
  },
  {
    name: 'memory',
    title: 'peak memory',
    candidates: [
      { ...dlrootfs('entries100k'), name: '100k entries' },
      { ...dlrootfs('file4g'), name: 'a file of 4 GiB' },
      { ...dlrootfs('layers127'), name: '127 layers' },
      { ...dlrootfs('entries1m'), name: '1000k entries' },
    ],
    goals: [
      memory('100k entries', 128),
      memory('a file of 4 GiB', 128),
      memory('127 layers', 128),
      memory('1000k entries', 200),
    ],
  },
  {
    name: 'entries',
    title: 'time per entry',
    candidates: [
      { ...dlrootfs('entries10k'), name: '10k entries' },
      { ...dlrootfs('entries100k'), name: '100k entries' },
      { ...dlrootfs('entries1m'), name: '1000k entries' },
    ],
    goals: [100, 1000].map((thousands) => ({
      candidate: `${thousands}k entries`,
      what: 'wall per entry against 10k',
      atMost: 1.15,
      value: (results: Results) => perEntry(results, thousands),
    })),
  },
  {
    name: 'start',
    title: 'start',
    candidates: [
      {
        name: 'dlrootfs version',
        script: `for ((n = 0; n < ${STARTS}; n += 1)); do dlrootfs version; done`,
        image: 'small',
        repeat: STARTS,
      },
      {
        name: 'node -e 0',
        script: `for ((n = 0; n < ${STARTS}; n += 1)); do "$NODE" -e 0; done`,
        image: 'small',
        repeat: STARTS,
      },
    ],
    goals: [wall('node -e 0', 1, 'dlrootfs version')],
  },
  {
    name: 'cached',
    title: 'many files, blobs in the cache',
    candidates: [
      {
        name: 'dlrootfs',
        script: 'dlrootfs --cache-dir "$CACHE" "$IMAGE" -d "$DEST"',
        image: 'manyfiles',
      },
      { name: 'limit from local files', script: 'limit_local', image: 'manyfiles' },
    ],
    goals: [wall('limit from local files', 1)],
  },
  {
    name: 'small',
    title: 'a small image: 1 layer, a few hundred links',
    candidates: [dlrootfs('small'), crane('small')],
    goals: [wall('crane', 2)],
  },
  disks('disks', 'many files as one file of each format', 'manyfiles'),
  disks('tenlayers', 'ten layers of 55 MiB as one file of each format', 'tenlayers'),
  {
    name: 'git',
    title: 'many files, a git branch per layer',
    candidates: [
      { name: 'dlrootfs -g', script: `${pull} -g`, image: 'manyfiles', needs: ['git'] },
      dlrootfs('manyfiles'),
      {
        name: 'limit, git add -A and commit per layer',
        script: 'git_add_all',
        image: 'manyfiles',
        needs: ['git'],
      },
    ],
    goals: [
      wall('dlrootfs', 1.4, 'dlrootfs -g'),
      memory('dlrootfs -g', 200),
      wall('limit, git add -A and commit per layer', 1, 'dlrootfs -g'),
    ],
  },
];

const comparisons: readonly (Pick<Candidate, 'script' | 'image' | 'compression' | 'repeat'> & {
  readonly name: string;
  readonly title: string;
})[] = [
  { name: 'manyfiles', title: 'many files', image: 'manyfiles', script: pull },
  { name: 'bigfiles', title: 'big files', image: 'bigfiles', script: pull },
  {
    name: 'small',
    title: 'a small image',
    image: 'small',
    script: `for ((n = 0; n < ${STARTS}; n += 1)); do HOME="$SCRATCH/$n" dlrootfs "$IMAGE" -d "$DEST/$n"; done`,
    repeat: STARTS,
  },
  { name: 'git', title: 'many files, a git branch per layer', image: 'manyfiles', script: `${pull} -g` },
  {
    name: 'archive',
    title: 'many files, as one archive',
    image: 'manyfiles',
    script: 'dlrootfs "$IMAGE" -o "$DEST/out.tar"',
  },
  { name: 'zstd', title: 'many files, zstd', image: 'manyfiles', compression: 'zstd', script: pull },
  {
    name: 'start',
    title: 'start',
    image: 'small',
    script: `for ((n = 0; n < ${STARTS}; n += 1)); do dlrootfs version; done`,
    repeat: STARTS,
  },
];

/** Compares the tool with another build of it, `against`, on the same work in turn. */
export function comparedRows(against: string): readonly Row[] {
  return comparisons.map(({ name, title, ...what }) => ({
    name,
    title,
    candidates: [
      { name: 'dlrootfs', ...what },
      { name: 'the other', tool: against, ...what },
    ],
    goals: [wall('the other', 1.03), cpu('the other', 1.03), memory('dlrootfs', name === 'git' ? 256 : 128)],
  }));
}
