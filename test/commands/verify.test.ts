import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { describe, test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { accessListBytes, netRawCapability } from '../rootfs/access-list.ts';
import {
  block,
  character,
  dir,
  fifo,
  file,
  hardlink,
  sparse,
  symlink,
  tar,
  whiteout,
  type Item,
} from '../support/archive.ts';
import { HANG } from '../support/hang.ts';
import { noOtherUser } from '../support/other-user.ts';
import { runProgram, Scratch, startProgram } from '../support/program.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { registryForAllTests } from '../support/pushed-images.ts';
import { randomLayers } from '../support/random-layers.ts';
import { runs } from '../support/runs.ts';
import { printTree } from '../support/tree.ts';
import { missing } from '../support/debian.ts';
import { until } from '../support/until.ts';

const needsRoot = missing('root');

const images = registryForAllTests();
const { pushed } = images;

/**
 * A scratch directory in which another user may write, but not rename files of root's. The program runs
 * there.
 */
class Place extends Scratch {
  readonly #uid: number | undefined;

  constructor(uid?: number) {
    super();
    this.#uid = uid;
    chmodSync(this.path, 0o1777);
  }

  async run(...argv: readonly string[]): Promise<{ exitCode: number; stdout: string; stderr: string }> {
    return await runProgram([...argv, '--cache-dir', 'cache'], {
      cwd: this.path,
      ...(this.#uid !== undefined && { uid: this.#uid }),
    });
  }

  async pull(image: string, ...flags: readonly string[]): Promise<void> {
    const { exitCode, stderr } = await this.run(image, ...flags);
    assert.equal(exitCode, 0, stderr);
  }

  /** Runs verify and returns its lines. The exit code must show if there are any. */
  async verify(image: string, ...flags: readonly string[]): Promise<string[]> {
    const { exitCode, stdout, stderr } = await this.run('verify', image, '--progress', 'none', ...flags);
    assert.equal(exitCode, stdout === '' ? 0 : 9, stderr);
    assert.equal(stderr, '');
    return stdout.split('\n').slice(0, -1);
  }

  override [Symbol.dispose](): void {
    execFileSync('chmod', ['-R', 'u+rwx', this.path], { stdio: 'ignore' });
    super[Symbol.dispose]();
  }
}

const accessList = accessListBytes({ owner: 7, user: [1000, 4], group: 5, mask: 5, others: 0 });
/** An access list of owner, group and others only. */
const plainList = Buffer.from('0200000001000600ffffffff04000400ffffffff20000400ffffffff', 'hex');
const deep = (levels: number): string => Array.from({ length: levels }, () => 'd').join('/');

/** Entries of most kinds that an image may have. */
const varied: readonly (readonly Item[])[] = [
  [
    dir('./', { mode: 0o711, mtime: [1_234_567_890, 123_456_789] }),
    dir('etc', { mode: 0o2755, gid: 8 }),
    file('etc/passwd', 'root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n', { mtime: [1, 2] }),
    file('etc/shadow', 'secret\n', { mode: 0, gid: 42 }),
    file('etc/gone', ''),
    file('etc/listed', 'x', { xattrs: { 'system.posix_acl_access': accessList } }),
    file('etc/named', 'x', {
      pax: { 'SCHILY.acl.access': 'user::rw-,user:web:rwx,group::r--,mask::rwx,other::---' },
    }),
    file('etc/unknown', 'x', {
      pax: { 'SCHILY.acl.access': 'user::rw-,user:nobody-has-it:rwx,group::r--,mask::rwx,other::---' },
    }),
    file('etc/plain', 'x', { mode: 0o644, xattrs: { 'system.posix_acl_access': plainList } }),
    dir('closed', { mode: 0, uid: 3 }),
    file('closed/inside', 'in', { xattrs: { 'user.a': 'b', 'security.capability': netRawCapability } }),
    dir('srv', { xattrs: { 'system.posix_acl_default': accessList, 'trusted.t': 'x' } }),
    file('srv/heir', 'x'),
    file('bin/su', 'x', { mode: 0o4755, uid: 0 }),
    file('bin/theirs', 'x', { mode: 0o6755, uid: 12, gid: 13 }),
    hardlink('bin/also-su', 'bin/su'),
    symlink('sbin', 'bin', { uid: 5, mtime: [1_600_000_000, 1] }),
    hardlink('sbin-too', 'sbin'),
    fifo('run/pipe', { mode: 0o620 }),
    character('dev/null', 1, 3, { mode: 0o666 }),
    hardlink('dev/zero', 'dev/null'),
    block('dev/loop', 7, 0),
    sparse('holes', 3_000_000, [[0, 'a'], [1_500_000, 'b'.repeat(5000)]], '1.0'), // prettier-ignore
    file(Buffer.from('caf\xe9\n', 'latin1'), 'latin1'),
    file('n'.repeat(255), 'long'),
    file('old', 'x', { mtime: -5 }),
    file('later', 'x', { mtime: [2 ** 33, 5] }),
    file('never', 'x', { mtime: 2 ** 36 }),
    file('owned', 'x', { uid: 4_000_000_000, gid: 4_000_000_001 }),
    ...[100, 500].map((levels) => file(`${deep(levels)}/f`, 'deep')),
  ],
  [whiteout('etc/gone'), file('bin/su', 'newer', { mode: 0o755 }), file('added/by/second', 'x')],
];

const notice = (count: string): string =>
  `notice: ${count} may not be read by this user and could not be compared: run as root\n`;

describe('verify reports nothing in a directory after a pull', () => {
  const kinds: Readonly<Record<string, readonly string[]>> = {
    'as it is': [],
    'without json': ['--no-json'],
    'with branches': ['-g'],
  };
  for (const [name, flags] of Object.entries(kinds)) {
    test(`${name}, as root`, { skip: needsRoot }, async () => {
      using place = new Place();
      const image = pushed(...varied);
      await place.pull(image, '-d', 'out', ...flags);
      const tree = printTree(place.join('out'), { root: true });
      assert.deepEqual(await place.verify(image, '-d', 'out'), []);
      assert.deepEqual(await place.verify(image, '-d', 'out', '--contents'), []);
      assert.equal(printTree(place.join('out'), { root: true }), tree, 'nothing is changed');
    });
  }

  test('as a plain user, who is told what could not be read', { skip: noOtherUser }, async () => {
    using place = new Place(65_534);
    const image = pushed(...varied);
    await place.pull(image, '-d', 'out');
    const quick = await place.run('verify', image, '-d', 'out', '--progress', 'none');
    assert.deepEqual([quick.exitCode, quick.stdout, quick.stderr], [0, '', notice('1 file or directory')]);
    const whole = await place.run('verify', image, '-d', 'out', '--progress', 'none', '--contents', '--json');
    const { differences, unread } = JSON.parse(whole.stdout) as Record<string, unknown>;
    assert.deepEqual([differences, unread], [[], ['/closed', '/etc/shadow']]);
    assert.equal(whole.stderr, notice('2 files or directories'));
  });

  test(
    'as a plain user of what root has pulled: only what may not be read',
    { skip: noOtherUser },
    async () => {
      using place = new Place();
      const image = pushed([
        dir('etc'),
        file('etc/shadow', 'x', { mode: 0 }),
        file('bin/su', 'x', { mode: 0o4755 }),
      ]);
      await place.pull(image, '-d', 'out');
      const result = await runProgram(['verify', image, '-d', 'out', '--contents', '--no-cache'], {
        cwd: place.path,
        uid: 65_534,
      });
      assert.deepEqual([result.exitCode, result.stdout], [0, '']);
      assert.match(result.stderr, /^notice: 1 file or directory may not be read/m);
    },
  );

  test('whose directory of the image is `json`, or is prepared', { skip: needsRoot }, async () => {
    using place = new Place();
    const own = pushed([dir('json'), file('json/x', 'y'), file('layersize', '7')]);
    await place.pull(own, '-d', 'own');
    assert.deepEqual(await place.verify(own, '-d', 'own', '--contents'), []);
    const image = pushed([dir('./'), file('etc/hosts', ''), file('usr/x', 'x')]);
    await place.pull(image, '-d', 'prepared', '--prepare');
    assert.deepEqual(await place.verify(image, '-d', 'prepared', '--prepare', '--contents'), []);
    const told = await place.verify(image, '-d', 'prepared');
    assert.deepEqual(
      told.map((line) => line.replace(/:.*/, '')).filter((line) => !line.includes('resolv.conf')),
      [
        'extra /dev/',
        'changed /etc/hosts',
        'extra /etc/hostname',
        'extra /proc/',
        'extra /run/',
        'extra /sys/',
        'extra /tmp/',
      ].toSorted((one, other) => (one.slice(one.indexOf('/')) < other.slice(other.indexOf('/')) ? -1 : 1)),
    );
  });

  test('2,047 levels deep, and with a TiB of nothing', async () => {
    using place = new Place();
    const levels = [1000, 2000, 2047].map((level) => file(`${deep(level)}/f`, 'deep'));
    const image = pushed([sparse('nothing', 2 ** 40, [], '1.0'), ...levels]);
    await place.pull(image, '-d', 'out');
    assert.deepEqual(await place.verify(image, '-d', 'out', '--contents'), []);
  });

  test('whatever layers it has', { skip: needsRoot, timeout: 600_000 }, async () => {
    using place = new Place();
    await fc.assert(
      fc.asyncProperty(randomLayers, async (items) => {
        const image = pushed(...items);
        const { exitCode } = await place.run(image, '-d', 'out', '-q');
        fc.pre(exitCode === 0);
        assert.deepEqual(await place.verify(image, '-d', 'out', '--contents'), []);
        rmSync(place.join('out'), { recursive: true });
      }),
      { numRuns: runs(4, 30) },
    );
  });
});

test('what is mounted in the directory is not compared', { skip: needsRoot }, async () => {
  using place = new Place();
  const image = pushed([
    dir('proc/sys'),
    dir('old'),
    file('etc/resolv.conf', ''),
    file('etc/motd', 'x'),
    file('a b', ''),
  ]);
  await place.pull(image, '-d', 'out');
  const points = ['proc', 'etc/resolv.conf', 'a b'].map((name) => place.join('out', name));
  try {
    // These are bind mounts of the same file system, which find -xdev would enter.
    mkdirSync(place.join('other/inside'), { recursive: true });
    writeFileSync(place.join('file'), 'mounted');
    execFileSync('mount', ['--bind', place.join('other'), points[0]!]);
    execFileSync('mount', ['--bind', place.join('file'), points[1]!]);
    execFileSync('mount', ['--bind', place.join('file'), points[2]!]);
    writeFileSync(place.join('out/etc/motd'), 'y');
    mkdirSync(place.join('out/work'));
    const text = await place.run('verify', image, '-d', 'out', '--contents', '--progress', 'none');
    assert.equal(text.exitCode, 9);
    assert.match(text.stdout, /^changed \/etc\/motd: mtime .*, content\nextra \/work\/\n$/);
    assert.equal(
      text.stderr,
      'notice: not compared, since something is mounted there in out: a b, etc/resolv.conf, proc\n',
    );
    const json = await place.run('verify', image, '-d', 'out', '--path', 'etc', '--json');
    assert.deepEqual((JSON.parse(json.stdout) as Record<string, unknown>)['mounted'], ['/etc/resolv.conf']);
  } finally {
    spawnSync('umount', points);
  }
});

/** Commands that mount a file system at `$0`, with file systems that keep less than an image has. */
const fileSystems: Readonly<Record<string, string>> = {
  tmpfs: 'mount -t tmpfs tmpfs "$0"',
  'ramfs, without extended attributes': 'mount -t ramfs ramfs "$0"',
  overlay: `mkdir base && mount -t tmpfs tmpfs base && mkdir base/lower base/upper base/work &&
    mount -t overlay overlay -o lowerdir=base/lower,upperdir=base/upper,workdir=base/work "$0"`,
  'ext4 with whole seconds until 2038': `truncate -s 64M image && mkfs.ext4 -q -I 128 image && mount -o loop image "$0"`,
  xfs: 'truncate -s 512M image && mkfs.xfs -q image && mount -o loop image "$0"',
  btrfs: 'truncate -s 256M image && mkfs.btrfs -q image && mount -o loop image "$0"',
};

for (const [name, mounting] of Object.entries(fileSystems)) {
  test(`verify reports nothing that ${name} cannot keep`, { skip: needsRoot }, async (t) => {
    using place = new Place();
    mkdirSync(place.join('mounted'));
    const { status } = spawnSync('sh', ['-c', mounting, place.join('mounted')], { cwd: place.path });
    try {
      if (status !== 0) return t.skip('needs the right and the programs to mount it');
      const image = pushed(...varied);
      await place.pull(image, '-d', 'mounted/out');
      assert.deepEqual(await place.verify(image, '-d', 'mounted/out', '--contents'), []);
    } finally {
      for (const mounted of ['mounted', 'base'])
        spawnSync('umount', ['-l', place.join(mounted)], { stdio: 'ignore' });
    }
  });
}

/** A change of a pulled directory, and the lines that report it. */
type Planted = readonly [
  what: string,
  plant: (out: (name: string) => string) => void,
  lines: readonly string[],
];

/** Time of the entries in test archives, in seconds. */
const ARCHIVE_TIME = 1_000_000_000;
const time = '2001-09-09T01:46:40Z';
const keepTime = (path: string, change: () => void): void => {
  const { atime, mtime } = statSync(path);
  change();
  utimesSync(path, atime, mtime);
};
const command = (...words: readonly string[]): void => {
  execFileSync(words[0]!, words.slice(1), { timeout: HANG });
};

const plantings: readonly Planted[] = [
  ['a file is gone', (out) => rmSync(out('etc/motd')), ['missing /etc/motd']],
  ['a directory is gone', (out) => rmSync(out('usr'), { recursive: true }), ['missing /usr/']],
  ['a file is new', (out) => writeFileSync(out('etc/new'), ''), ['extra /etc/new']],
  ['a tree is new', (out) => mkdirSync(out('opt/a/b/c'), { recursive: true }), ['extra /opt/a/']],
  ['a mode', (out) => chmodSync(out('etc/motd'), 0o777), ['changed /etc/motd: mode 0644→0777']],
  ['the mode of a directory', (out) => chmodSync(out('opt'), 0o1777), ['changed /opt: mode 0755→1777']],
  ['setuid', (out) => chmodSync(out('usr/bin/su'), 0o755), ['changed /usr/bin/su: mode 4755→0755']],
  ['an owner', (out) => chownSync(out('etc/motd'), 5, 6), ['changed /etc/motd: owner 0:0→5:6']],
  ['a group', (out) => chownSync(out('opt'), 0, 9), ['changed /opt: owner 0:0→0:9']],
  [
    'the owner of a link',
    (out) => command('chown', '-h', '7:7', out('link')),
    ['changed /link: owner 0:0→7:7'],
  ],
  [
    'a size',
    (out) => keepTime(out('etc/motd'), () => truncateSync(out('etc/motd'), 3)),
    ['changed /etc/motd: size 6→3'],
  ],
  [
    'content of the same size and time',
    (out) => keepTime(out('etc/motd'), () => writeFileSync(out('etc/motd'), 'hellO\n')),
    ['changed /etc/motd: content'],
  ],
  [
    'a byte in a hole',
    (out) =>
      keepTime(out('holes'), () =>
        command('sh', '-c', `printf x | dd of=${out('holes')} bs=1 seek=70000 conv=notrunc status=none`),
      ),
    ['changed /holes: content'],
  ],
  [
    'a time',
    (out) => utimesSync(out('etc/motd'), ARCHIVE_TIME, ARCHIVE_TIME + 1),
    [`changed /etc/motd: mtime ${time}→2001-09-09T01:46:41Z`],
  ],
  [
    'nanoseconds',
    (out) => command('touch', '-d', '@1000000000.000000001', out('etc/motd')),
    [`changed /etc/motd: mtime ${time}→2001-09-09T01:46:40.000000001Z`],
  ],
  [
    'the time of a link',
    (out) => lutimesSync(out('link'), 5, 5),
    [`changed /link: mtime ${time}→1970-01-01T00:00:05Z`],
  ],
  [
    'the time of a directory',
    (out) => utimesSync(out('opt'), 5, 5),
    [`changed /opt: mtime ${time}→1970-01-01T00:00:05Z`],
  ],
  [
    'the time of the root',
    (out) => utimesSync(out('.'), 5, 5),
    [`changed /: mtime ${time}→1970-01-01T00:00:05Z`],
  ],
  [
    'a target',
    (out) => command('sh', '-c', `ln -sfn /evil ${out('link')}; touch -h -d @1000000000 ${out('link')}`),
    ['changed /link: target etc→/evil'],
  ],
  [
    'another type',
    (out) => command('sh', '-c', `rm ${out('etc/motd')}; mkfifo ${out('etc/motd')}`),
    ['changed /etc/motd: type file→fifo'],
  ],
  [
    'a directory that is now a link',
    (out) => command('sh', '-c', `rm -r ${out('usr')}; ln -s etc ${out('usr')}`),
    ['changed /usr: type directory→symlink'],
  ],
  [
    'a device',
    (out) =>
      command(
        'sh',
        '-c',
        `rm ${out('null')}; mknod -m 600 ${out('null')} c 1 5; touch -d @1000000000 ${out('null')}`,
      ),
    ['changed /null: device 1:3→1:5'],
  ],
  [
    'an attribute',
    (out) => command('setfattr', '-n', 'user.a', '-v', 'c', out('etc/marked')),
    ['changed /etc/marked: xattr user.a'],
  ],
  [
    'an attribute less',
    (out) => command('setfattr', '-x', 'user.a', out('etc/marked')),
    ['changed /etc/marked: xattr user.a missing'],
  ],
  [
    'an attribute more',
    (out) => command('setfattr', '-n', 'trusted.b', '-v', 'c', out('etc')),
    ['changed /etc: xattr trusted.b extra'],
  ],
  [
    'a capability',
    (out) =>
      command(
        'setfattr',
        '-n',
        'security.capability',
        '-v',
        '0x0100000202200000000000000000000000000000',
        out('etc/motd'),
      ),
    ['changed /etc/motd: xattr security.capability extra'],
  ],
  [
    'an access list',
    (out) => command('setfacl', '-m', 'u:5:r', out('etc/motd')),
    ['changed /etc/motd: xattr system.posix_acl_access extra'],
  ],
  [
    'a link that is a copy',
    (out) =>
      command(
        'sh',
        '-c',
        `cp -p ${out('etc/motd')} ${out('etc/copy')}; mv ${out('etc/copy')} ${out('etc/motd-too')}`,
      ),
    ['changed /etc/motd-too: link /etc/motd→none'],
  ],
  [
    'a copy that is a link',
    (out) => command('ln', '-f', out('etc/one'), out('etc/two')),
    ['changed /etc/two: link none→/etc/one'],
  ],
  [
    'names that only look like those of dlrootfs',
    (out) =>
      command(
        'sh',
        '-c',
        `echo x >${out('layersize')}; touch ${out('.git')}; echo '{"id":"0"}' >${out('json')}`,
      ),
    ['extra /.git', 'extra /json', 'extra /layersize'],
  ],
  [
    'names that a terminal would obey',
    (out) => writeFileSync(out('etc/a\nb\u001b[31m'), ''),
    [String.raw`extra /etc/a\x0ab\x1b[31m`],
  ],
];

test('verify reports each difference, and nothing else', { skip: needsRoot }, async (t: TestContext) => {
  using place = new Place();
  const image = pushed([
    dir('./'),
    dir('etc'),
    file('etc/motd', 'hello\n'),
    hardlink('etc/motd-too', 'etc/motd'),
    file('etc/marked', 'x', { xattrs: { 'user.a': 'b' } }),
    file('etc/one', 'same'),
    file('etc/two', 'same'),
    dir('opt'),
    dir('usr'),
    dir('usr/bin'),
    file('usr/bin/su', 'x', { mode: 0o4755 }),
    symlink('link', 'etc'),
    character('null', 1, 3),
    sparse('holes', 100_000, [[0, 'a'], [90_000, 'b']], '1.0'), // prettier-ignore
  ]);
  await place.pull(image, '-d', 'out');
  for (const [what, plant, lines] of plantings) {
    await t.test(what, async () => {
      try {
        command('cp', '-a', place.join('out'), place.join('bad'));
        plant((name) => place.join('bad', name));
        const found = await place.verify(image, '-d', 'bad', '--contents');
        // A line about one name of a file may also name the file's other name.
        const also = new Set(lines.map((line) => line.replace('/etc/motd:', '/etc/motd-too:')));
        assert.deepEqual(
          found.filter((line) => lines.includes(line) || !also.has(line)),
          lines,
        );
      } finally {
        rmSync(place.join('bad'), { recursive: true, force: true });
      }
    });
  }
});

test('verify names the image that the directory holds, if it is another one', async () => {
  using place = new Place();
  const before = pushed([file('a', 'before')]);
  const now = pushed([file('a', 'now, and longer')]);
  await place.pull(before, '-d', 'out');
  const result = await place.run('verify', now, '-d', 'out');
  assert.equal(result.exitCode, 9);
  assert.match(result.stdout, /^changed \/a: size 15→6/m);
  assert.doesNotMatch(result.stdout, /json/);
  const holds = /^notice: out\/json says that out holds another image, with the top layer [0-9a-f]{12} for /m;
  assert.match(result.stderr, holds);
});

test(
  'verify: lost+found, as mke2fs makes it, is no difference; anything in it is',
  { skip: needsRoot },
  async () => {
    using place = new Place();
    const image = pushed([dir('d')]);
    mkdirSync(place.join('out/lost+found'), { recursive: true, mode: 0o700 });
    await place.pull(image, '-d', 'out');
    assert.deepEqual(await place.verify(image, '-d', 'out'), []);
    chmodSync(place.join('out/lost+found'), 0o755);
    assert.deepEqual(await place.verify(image, '-d', 'out'), ['extra /lost+found/']);
    chmodSync(place.join('out/lost+found'), 0o700);
    writeFileSync(place.join('out/lost+found/#1'), '');
    assert.deepEqual(await place.verify(image, '-d', 'out'), ['extra /lost+found/']);
  },
);

test('verify of the first layers: the same flag; without it a notice names them', async () => {
  using place = new Place();
  const image = pushed([dir('d'), file('d/f', 'x')], [file('g', 'y')], [whiteout('d/f')]);
  await place.pull(image, '-d', 'out', '--layers', '2');
  assert.deepEqual(await place.verify(image, '-d', 'out', '--contents', '--layers', '2'), []);
  const holds = `notice: out/json says that out holds 2 of the image's 3 layers: to compare with these use --layers 2\n`;
  const whole = await place.run('verify', image, '-d', 'out');
  assert.deepEqual([whole.exitCode, whole.stdout, whole.stderr], [9, 'extra /d/f\n', holds]);
  const one = await place.run('verify', image, '-d', 'out', '--layers', '1');
  assert.deepEqual([one.exitCode, one.stdout, one.stderr], [9, 'extra /g\n', holds]);
  await place.pull(image, '-d', 'out', '--replace');
  const less = await place.run('verify', image, '-d', 'out', '--layers', '2');
  assert.equal(less.exitCode, 9);
  assert.match(
    less.stderr,
    /^notice: out\/json says that out holds 3 of the image's 3 layers: .* leave out --layers$/m,
  );
});

describe('verify of a directory that somebody else makes', () => {
  test('follows no link, opens nothing but files, however deep it goes', async () => {
    using place = new Place();
    const image = pushed([dir('d'), file('d/f', 'x'), file('pipe', 'x'), file('dev', 'x')]);
    await place.pull(image, '-d', 'out');
    mkdirSync(place.join('secret'));
    writeFileSync(place.join('secret/f'), 'x');
    writeFileSync(place.join('secret/known'), 'x');
    const levels = `e/${deep(49)}`;
    const hostile = `cd ${place.join('out')}; rm -r d pipe dev; ln -s ../secret d; mkfifo pipe; ln -s /dev/zero dev
      for i in $(seq 80); do mkdir -p ${levels}; cd ${levels}; done`;
    execFileSync('bash', ['-c', hostile]);
    assert.deepEqual(await place.verify(image, '-d', 'out', '--contents'), [
      'changed /d: type directory→symlink',
      'changed /dev: type file→symlink',
      'extra /e/',
      'changed /pipe: type file→fifo',
    ]);
  });

  test('never reads what a directory is swapped with', async () => {
    using place = new Place();
    const image = pushed([
      dir('d'),
      ...Array.from({ length: 300 }, (_, n) => file(`d/${n % 20}/${n}`, 'x')),
      file('p', 'x'),
    ]);
    await place.pull(image, '-d', 'out');
    const swap = `cd ${place.path}; mkdir -p secret/1; echo stolen >secret/stolen; cp secret/stolen secret/1
      cd out; mkfifo q; while :; do mv d e; ln -s ../secret d; rm d; mv e d; mv p r; mv q p; mv p q; mv r p; done`;
    const swapper = spawn('bash', ['-c', swap], { stdio: 'ignore' });
    try {
      for (let turn = 0; turn < 5; turn += 1) {
        const { exitCode, stdout, stderr } = await place.run('verify', image, '-d', 'out', '--contents');
        assert.ok(exitCode === 0 || exitCode === 9, stderr);
        assert.doesNotMatch(stdout, /stolen/);
        assert.equal(stderr, '');
      }
    } finally {
      swapper.kill('SIGKILL');
    }
  });
});

test('verify by digest needs no network once the image is cached', async () => {
  using place = new Place();
  await using own = await FakeRegistry.start();
  const { digest } = own.push('lib/img', '1', { layers: [{ tar: tar(file('a', 'x')) }] });
  const image = own.reference('lib/img', digest);
  await place.pull(image, '-d', 'out');
  const asked = own.requests.length;
  assert.deepEqual(await place.verify(image, '-d', 'out', '--contents'), []);
  assert.equal(own.requests.length, asked);
});

test('verify says what it cannot compare', async () => {
  using place = new Place();
  const image = pushed([file('a', 'x')]);
  writeFileSync(place.join('file'), '');
  for (const [name, reason] of [
    ['missing', 'no such file or directory (ENOENT)'],
    ['file', 'not a directory (ENOTDIR)'],
  ] as const) {
    const asked = images.registry.requests.length;
    const { exitCode, stdout, stderr } = await place.run('verify', image, '-d', name);
    assert.deepEqual([exitCode, stdout], [7, '']);
    assert.equal(
      stderr,
      `error: cannot read ${name}: ${reason}\nhint: name the directory of a rootfs with -d\n`,
    );
    assert.equal(images.registry.requests.length, asked, 'nothing was asked of the registry');
  }
  mkdirSync(place.join('out'));
  const absent = await place.run('verify', images.registry.reference('lib/img', 'nowhere'), '-d', 'out');
  assert.deepEqual([absent.exitCode, absent.stdout], [3, '']);
});

test('verify ends at a signal, and leaves nothing behind', async () => {
  using place = new Place();
  await using slow = await FakeRegistry.start({
    faults: [{ path: /\/blobs\//, skip: 1, times: 9, rate: 1000 }],
  });
  slow.push('lib/img', '1', { layers: [{ tar: tar(file('a', 'x'.repeat(100_000))), compression: 'none' }] });
  mkdirSync(place.join('out'));
  const argv = ['verify', slow.reference('lib/img', '1'), '-d', 'out', '--no-cache'];
  const running = startProgram(argv, { cwd: place.path });
  await until('the blob to be asked for', () => slow.requests.some(({ path }) => path.includes('/blobs/')));
  running.kill('SIGINT');
  const { exitCode, stdout } = await running.result;
  assert.deepEqual([exitCode, stdout], [130, '']);
  assert.deepEqual(readdirSync(place.path), ['out']);
});
