import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  globSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { MalformedTarError } from '../../src/tar/entry.ts';
import { contentOf, readArchive, summary, type ReadEntry } from '../support/read-archive.ts';

const longName = `${'d'.repeat(90)}/${'f'.repeat(120)}`;
const latin1Name = Buffer.from([0x63, 0x61, 0x66, 0xe9]);
const holes = Buffer.concat([Buffer.alloc(1 << 20), Buffer.from('middle'), Buffer.alloc(1 << 20)]);

/** The tree that the tools archive. */
function makeTree(root: string): void {
  mkdirSync(join(root, 'd'.repeat(90)), { recursive: true });
  writeFileSync(join(root, longName), 'long');
  writeFileSync(Buffer.concat([Buffer.from(`${root}/`), latin1Name]), 'latin1');
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'block'), 'b'.repeat(512));
  writeFileSync(join(root, 'setuid'), 'x', { mode: 0o755 });
  execFileSync('chmod', ['4755', join(root, 'setuid')]);
  linkSync(join(root, 'block'), join(root, 'hard'));
  symlinkSync('t'.repeat(150), join(root, 'symlink'));
  execFileSync('mkfifo', [join(root, 'pipe')]);
  writeFileSync(join(root, 'holes'), holes);
  execFileSync('fallocate', ['--dig-holes', join(root, 'holes')]);
  utimesSync(join(root, 'empty'), 1_234_567.5, 1_234_567.5);
}

function have(t: TestContext, program: string, ...args: readonly string[]): boolean {
  if (spawnSync(program, args).status === 0) return true;
  t.skip(`needs ${program}`);
  return false;
}

/** Returns the entries by path without `./` and trailing slashes, to compare tools. */
function byPath(entries: readonly ReadEntry[]): Map<string, ReadEntry> {
  return new Map(entries.map((entry) => [entry.path.replace(/^\.\//, '').replace(/\/$/, ''), entry]));
}

function checkTree(
  entries: readonly ReadEntry[],
  options: { readonly sparse?: boolean; readonly fraction?: boolean },
): void {
  const found = byPath(entries);
  assert.equal(found.get(longName)?.data.toString(), 'long');
  assert.equal(found.get(latin1Name.toString('latin1'))?.data.toString(), 'latin1');
  assert.equal(found.get('empty')?.size, 0);
  assert.equal(found.get('setuid')?.mode, 0o4755);
  assert.equal(found.get('symlink')?.linkPath, 't'.repeat(150));
  assert.equal(found.get('pipe')?.type, 'fifo');
  assert.equal(found.get('empty')?.mtimeSeconds, 1_234_567);
  assert.equal(found.get('empty')?.mtimeNanoseconds, options.fraction === true ? 500_000_000 : 0);
  const links = [found.get('block')!, found.get('hard')!];
  assert.deepEqual(links.map((entry) => entry.type).toSorted(), ['file', 'hardlink']);
  assert.equal(links.find((entry) => entry.type === 'file')?.data.toString(), 'b'.repeat(512));
  const sparse = found.get('holes')!;
  assert.ok(contentOf(sparse).equals(holes));
  if (options.sparse === true) assert.ok(sparse.data.length < 100_000, 'the holes are no data');
}

describe('archives of other tools', () => {
  let work = '';
  let tree = '';
  before(() => {
    work = mkdtempSync(join(tmpdir(), 'dlrootfs-tar-'));
    tree = join(work, 'tree');
    mkdirSync(tree);
    makeTree(tree);
  });
  after(() => rmSync(work, { recursive: true, force: true }));

  const gnu: [title: string, args: readonly string[], options: Parameters<typeof checkTree>[1]][] = [
    ['gnu', ['--format=gnu'], {}],
    ['oldgnu', ['--format=oldgnu'], {}],
    ['gnu with sparse files', ['--format=gnu', '--sparse'], { sparse: true }],
    ['pax', ['--format=pax'], { fraction: true }],
    [
      'pax with sparse files 0.0',
      ['--format=pax', '--sparse', '--sparse-version=0.0'],
      { sparse: true, fraction: true },
    ],
    [
      'pax with sparse files 0.1',
      ['--format=pax', '--sparse', '--sparse-version=0.1'],
      { sparse: true, fraction: true },
    ],
    [
      'pax with sparse files 1.0',
      ['--format=pax', '--sparse', '--sparse-version=1.0'],
      { sparse: true, fraction: true },
    ],
    [
      'pax with a global header',
      ['--format=pax', '--pax-option=comment=x,mtime:=1234567.5'],
      { fraction: true },
    ],
    ['gnu, incremental', ['--format=gnu', '--incremental'], {}],
    ['gnu with a label', ['--format=gnu', '--label=backup'], {}],
    ['gnu with one block at a time', ['--format=gnu', '--blocking-factor=1'], {}],
  ];
  for (const [title, args, options] of gnu) {
    it(`GNU tar: ${title}`, (t) => {
      if (!have(t, 'tar', '--version')) return;
      const archive = execFileSync('tar', ['-C', tree, ...args, '-cf', '-', '.'], { maxBuffer: 1 << 26 });
      checkTree(readArchive(archive, 1000), options);
    });
  }

  it('GNU tar: owners and times of every size', (t) => {
    if (!have(t, 'tar', '--version')) return;
    for (const format of ['gnu', 'pax']) {
      const archive = execFileSync('tar', [
        '-C',
        tree,
        `--format=${format}`,
        '--owner=:4294967294',
        '--group=:2097152',
        '--mtime=@-86400',
        '-cf',
        '-',
        'empty',
      ]);
      assert.deepEqual(readArchive(archive).map(summary), ['-0644 4294967294:2097152 0 empty']);
      assert.equal(readArchive(archive)[0]!.mtimeSeconds, -86_400);
    }
  });

  for (const program of ['tar', 'bsdtar']) {
    it(`${program}: extended attributes`, (t) => {
      if (!have(t, 'setfattr', '--version') || !have(t, program, '--version')) return;
      const path = join(work, 'attributes');
      writeFileSync(path, 'x');
      if (spawnSync('setfattr', ['-n', 'user.bytes', '-v', '0x000a3dff', path]).status !== 0) {
        t.skip('needs a file system with user attributes');
        return;
      }
      execFileSync('setfattr', ['-n', 'user.=NAME%3D=', '-v', 'x', path]);
      execFileSync('setfattr', ['-n', 'user.empty', path]);
      const archive = execFileSync(program, [
        '-C',
        work,
        '--format=pax',
        '--xattrs',
        '-cf',
        '-',
        'attributes',
      ]);
      const found = [...readArchive(archive)[0]!.xattrs!].map(([name, value]) => [name, [...value]] as const);
      assert.deepEqual(Object.fromEntries(found), {
        'user.bytes': [0, 0x0a, 0x3d, 0xff],
        'user.=NAME%3D=': [0x78],
        'user.empty': [],
      });
    });
  }

  for (const format of ['ustar', 'pax', 'paxr', 'gnutar', 'v7']) {
    it(`bsdtar: ${format}`, (t) => {
      if (!have(t, 'bsdtar', '--version')) return;
      // v7 and ustar cannot represent the whole tree; bsdtar reports and skips these entries.
      const whole = format === 'pax' || format === 'paxr' || format === 'gnutar';
      const args = [
        '-C',
        tree,
        `--format=${format}`,
        '-cf',
        '-',
        ...(whole ? ['.'] : ['empty', 'block', 'hard', 'setuid']),
      ];
      const { stdout } = spawnSync('bsdtar', args, { maxBuffer: 1 << 26 });
      const entries = readArchive(stdout, 1000);
      if (whole) checkTree(entries, { fraction: format === 'pax' });
      else {
        const uid = process.getuid!();
        const gid = process.getgid!();
        assert.deepEqual(entries.map(summary), [
          `-0644 ${uid}:${gid} 0 empty`,
          `-0644 ${uid}:${gid} 512 block`,
          `h0644 ${uid}:${gid} hard -> block`,
          `-4755 ${uid}:${gid} 1 setuid`,
        ]);
      }
    });
  }

  for (const format of ['USTAR_FORMAT', 'GNU_FORMAT', 'PAX_FORMAT']) {
    it(`Python’s tarfile: ${format}`, (t) => {
      if (!have(t, 'python3', '-c', 'import tarfile')) return;
      const script = [
        'import sys, tarfile',
        `t = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.${format}, errors="surrogateescape", encoding="utf-8")`,
        format === 'USTAR_FORMAT' ? 't.add("empty"); t.add("block"); t.add("hard")' : 't.add(".")',
        't.close()',
      ].join('\n');
      const archive = execFileSync('python3', ['-c', script], { cwd: tree, maxBuffer: 1 << 26 });
      const entries = readArchive(archive, 1000);
      if (format === 'USTAR_FORMAT')
        assert.deepEqual(
          entries.map(({ path }) => path),
          ['empty', 'block', 'hard'],
        );
      else checkTree(entries, { fraction: format === 'PAX_FORMAT' });
    });
  }
});

/**
 * Results for Go's test archives, where Go's reader does not read them (go/src/archive/tar/reader_test.go).
 */
const goExpectations: ReadonlyMap<string, 'refused' | readonly string[]> = new Map<
  string,
  'refused' | readonly string[]
>([
  ['gnu.tar', ['-0640 73025:5000 5 small.txt', '-0640 73025:5000 11 small2.txt']],
  ['star.tar', ['-0640 73025:5000 5 small.txt', '-0640 73025:5000 11 small2.txt']],
  ['v7.tar', ['-0444 73025:5000 5 small.txt', '-0444 73025:5000 11 small2.txt']],
  ['nil-uid.tar', ['-0664 0:0 14 P1050238.JPG.log']],
  ['pax-pos-size-file.tar', ['-0640 319973:5000 999 foo']],
  ['gnu-multi-hdrs.tar', ['l0000 0:0 GNU2/GNU2/long-path-name -> GNU4/GNU4/long-linkpath-name']],
  ['pax-multi-hdrs.tar', ['l0000 0:0 bar -> PAX4/PAX4/long-linkpath-name']],
  ['gnu-long-nul.tar', ['-0644 1000:1000 0 0123456789']],
  [
    'gnu-incremental.tar',
    ['d0755 1000:1000 test2/', '-0644 1000:1000 64 test2/foo', '-0644 1000:1000 536870912 test2/sparse'],
  ],
  ['invalid-go17.tar', [`-0000 2097152:0 0 ${'a'.repeat(97)}/foo`]],
  ['gnu-sparse-big.tar', ['-0000 0:0 60000000000 gnu-sparse']],
  ['pax-sparse-big.tar', ['-0000 0:0 60000000000 pax-sparse']],
  ['hardlink.tar', ['-0644 1000:100 15 file.txt', 'h0644 1000:100 hard.txt -> file.txt']],
  ['pax-bad-hdr-file.tar', 'refused'],
  ['pax-bad-mtime-file.tar', 'refused'],
  ['pax-nul-xattrs.tar', 'refused'],
  ['pax-nul-path.tar', 'refused'],
  ['neg-size.tar', 'refused'],
  ['issue10968.tar', 'refused'],
  ['issue11169.tar', 'refused'],
  ['issue12435.tar', 'refused'],
  // These archives lack the data of their 16 GiB files on purpose.
  ['writer-big.tar', 'refused'],
  ['writer-big-long.tar', 'refused'],
  // A pax header alone is an end for Go, and damage for us.
  ['pax-path-hdr.tar', 'refused'],
  // Go ignores a global path, GNU tar applies it; we refuse it.
  ['pax-global-records.tar', 'refused'],
]);

describe('the test archives of Go’s archive/tar', () => {
  const archives = globSync('/usr/share/go-*/src/archive/tar/testdata/*.tar');
  if (archives.length === 0) it('are read', (t) => t.skip('needs Go’s sources (Debian: golang-src)'));
  for (const path of archives) {
    const name = basename(path);
    const expected = goExpectations.get(name);
    it(`${name} is ${expected === 'refused' ? 'refused' : 'read'}`, () => {
      const archive = readFileSync(path);
      if (expected === 'refused') assert.throws(() => readArchive(archive, 100), MalformedTarError);
      else if (expected === undefined) assert.ok(readArchive(archive, 100).length > 0);
      else assert.deepEqual(readArchive(archive, 100).map(summary), expected);
    });
  }

  it('have four sparse formats of one content', (t) => {
    const path = archives.find((name) => basename(name) === 'sparse-formats.tar');
    if (path === undefined) {
      t.skip('needs Go’s sources (Debian: golang-src)');
      return;
    }
    const [first, ...others] = readArchive(readFileSync(path)).slice(0, 4).map(contentOf);
    assert.equal(first!.length, 200);
    for (const content of others) assert.ok(content.equals(first!));
  });
});
