import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { PullSummary } from '../../src/commands/summary.ts';
import { noise, Setting } from '../faults/setting.ts';
import { character, dir, file, hardlink, type Metadata, sparse, symlink, tar } from '../support/archive.ts';
import { findProgram, missing } from '../support/debian.ts';
import { diskKinds, diskPrograms, mountDisk } from '../support/disk.ts';
import { noOtherUser } from '../support/other-user.ts';
import { printTree } from '../support/tree.ts';
import { until } from '../support/until.ts';

const created = '2024-05-06T07:08:09Z';
const image = {
  config: { created },
  layers: [
    {
      tar: tar(
        dir('.', { mode: 0o711, uid: 3, gid: 4, mtime: 86_400 }),
        dir('etc'),
        file('etc/motd', 'hello\n', { uid: 70_000, gid: 5, mode: 0o4750 }),
        hardlink('etc/issue', 'etc/motd'),
        symlink('lib', 'usr/lib'),
        character('null', 1, 3, { mode: 0o666 }),
        noise('noise', 300_000),
        file('attributes', '', { xattrs: { 'user.note': 'a"b\\c\n', 'trusted.x': Buffer.from([0, 255]) } }),
      ),
    },
  ],
};

const refused = /^error: .*\nhint: .*\n/m;

function magicOf(disk: string): string {
  const bytes = readFileSync(disk);
  if (bytes.readUInt16LE(1024 + 56) === 0xef53) return 'ext4';
  if (bytes.readUInt32LE(1024) === 0xe0f5_e1e2) return 'erofs';
  return bytes.toString('latin1', 0, 4) === 'hsqs' ? 'squashfs' : 'something else';
}

for (const [format, program, flags] of diskKinds) {
  const title = [`-o x.${format}`, ...flags].join(' ');
  describe(title, { skip: program === undefined ? false : missing(program) }, () => {
    test('has the same bytes at another time, and what the image has', async (t) => {
      await using setting = await Setting.open(image);
      for (const name of ['a', 'b']) {
        const result = await setting.pull(['-q', '-o', `${name}.${format}`, ...flags]);
        assert.equal(result.exitCode, 0, result.stderr);
        assert.equal(result.stdout, `${name}.${format}\n`);
        assert.equal(result.stderr, '');
        spawnSync('sleep', ['1.1']);
      }
      const disk = (name: string) => setting.scratch.join(`${name}.${format}`);
      assert.ok(readFileSync(disk('a')).equals(readFileSync(disk('b'))), 'the bytes differ');
      assert.equal(magicOf(disk('a')), format);
      assert.deepEqual(setting.names, [`a.${format}`, `b.${format}`]);
      const { stdout } = await setting.pullWell(['--json', '-o', `a.${format}`, ...flags]);
      const { destination, layers } = JSON.parse(stdout) as PullSummary;
      assert.equal(destination, `a.${format}`);
      assert.deepEqual(
        layers.map(({ entries }) => entries),
        [8],
      );
      if (process.getuid?.() !== 0) return t.skip('needs root, to mount it');
      const root = mountDisk(t, disk('a'), format);
      if (root === undefined) return;
      await setting.pullWell(['-d', 'tree', '--no-json']);
      const options = { root: true, without: ['lost+found'] };
      assert.equal(printTree(root, options), printTree(setting.scratch.join('tree'), options));
    });

    test('has the same bytes for a plain user', { skip: noOtherUser }, async () => {
      await using setting = await Setting.open(image);
      chmodSync(setting.scratch.path, 0o777);
      const [root, user] = [setting.scratch.join(`root.${format}`), setting.scratch.join(`user.${format}`)];
      for (const [disk, options] of [
        [root, {}],
        [user, { uid: 65_534 }],
      ] as const) {
        const result = await setting.pull(['-o', disk, '--no-cache', ...flags], options);
        assert.equal(result.exitCode, 0, result.stderr);
        assert.doesNotMatch(result.stderr, /not restored/);
      }
      assert.ok(readFileSync(root).equals(readFileSync(user)), 'the bytes differ');
      assert.equal(statSync(user).uid, 65_534);
    });

    test('replaces a file only when it is complete', async () => {
      await using setting = await Setting.open(image);
      const disk = setting.scratch.join(`x.${format}`);
      writeFileSync(disk, 'old', { mode: 0o640 });
      setting.registry.fault({
        path: new RegExp(setting.image.layers[0]!.digest),
        corruptAt: 1000,
        times: 9,
      });
      const failing = await setting.pull(['-o', disk, '--no-cache', ...flags]);
      assert.equal(failing.exitCode, 6, failing.stderr);
      assert.equal(readFileSync(disk, 'utf8'), 'old');
      assert.deepEqual(setting.names, [`x.${format}`]);
    });

    if (program === undefined) return;
    test('a program that is too old: an error before anything is fetched', async () => {
      await using setting = await Setting.open(image);
      const says = {
        ext4: 'mke2fs 1.46.5 (30-Dec-2021)',
        squashfs: 'sqfstar version 4.5.1',
        erofs: 'mkfs.erofs 1.5',
      };
      const bin = replace(setting, program, `echo '${says[format]}' >&2`);
      const result = await setting.pull(['-o', `x.${format}`, ...flags], { environment: { PATH: bin } });
      assert.equal(result.exitCode, 7, result.stderr);
      assert.match(
        result.stderr,
        new RegExp(
          `^error: cannot write ${format}: ${program} is \\S+, and \\S+ or newer is needed\\nhint: .*\\n$`,
        ),
      );
      assert.deepEqual(setting.registry.requests, []);
      assert.deepEqual(setting.names, ['bin']);
    });
  });
}

test('disks of different files have different UUIDs, and those of the same files the same one', async () => {
  const programs = tar(
    dir('etc'),
    file('bin/sh', '', { mode: 0o755 }),
    file('usr/bin/env', '', { mode: 0o755 }),
  );
  await using setting = await Setting.open({ layers: [{ tar: programs }] });
  const { scratch } = setting;
  writeFileSync(scratch.join('key'), 'a');
  writeFileSync(scratch.join('other'), 'b');
  const disks: readonly (readonly string[])[] = [
    [],
    ['--add', 'key'],
    ['--add', 'key:/other'],
    ['--add', 'other:/key'],
    ['--exclude', 'etc'],
    ['--layers', '0'],
    ['--layers', '0', '--add', 'key'],
    ['--for', 'qemu', '--force'],
  ];
  const uuids = new Map<string, string>();
  for (const flags of [...disks, disks[1]!]) {
    await setting.pullWell(['-o', 'x.erofs', ...flags]);
    const uuid = readFileSync(scratch.join('x.erofs')).toString('hex', 1024 + 48, 1024 + 64);
    const shown = flags.join(' ');
    assert.equal(uuids.get(shown) ?? uuid, uuid, shown);
    uuids.set(shown, uuid);
  }
  assert.equal(new Set(uuids.values()).size, disks.length, JSON.stringify([...uuids]));
});

const failures = [
  [
    'fails before it has read',
    'echo "a first line" >&2; echo "PROGRAM: it went wrong" >&2; exit 3',
    /PROGRAM: it went wrong$/m,
  ],
  [
    'fails at the end',
    'cat >/dev/null; printf "no\\033[31m way\\n\\n" >&2; exit 1',
    /PROGRAM: no\\x1b\[31m way$/m,
  ],
  ['is killed', 'kill -9 $$', /PROGRAM was ended by SIGKILL$/m],
  ['says nothing', 'exit 1', /PROGRAM: it failed without a message$/m],
  [
    'finds the disk full',
    'cat >/dev/null; echo "write: No space left on device" >&2; exit 1',
    /no space left on device \(ENOSPC\)$/m,
  ],
] as const;

// Each failure is tested with one format only: all formats run their program by the same code.
for (const [index, [what, script, says]] of failures.entries()) {
  const [format, program, flags] = diskPrograms[index % diskPrograms.length]!;
  test(
    `a program that ${what}: an error in one line, and nothing left`,
    { skip: missing(program) },
    async () => {
      await using setting = await Setting.open(image);
      const bin = replace(setting, program, script.replaceAll('PROGRAM', program), true);
      const result = await setting.pull(['-o', `x.${format}`, ...flags], { environment: { PATH: bin } });
      assert.equal(result.exitCode, 7, result.stderr);
      assert.match(result.stderr, refused);
      assert.match(result.stderr, new RegExp(says.source.replaceAll('PROGRAM', program), 'm'));
      assert.match(result.stderr, new RegExp(`^error: cannot write x\\.${format}: `, 'm'));
      assert.deepEqual(setting.names, ['bin']);
    },
  );
}

test('a signal: the program is killed, and nothing left', { skip: missing('sqfstar') }, async () => {
  const [format, program] = diskPrograms[1];
  await using setting = await Setting.open(image);
  const bin = replace(setting, program, `echo $$ >'${setting.scratch.join('pid')}'; exec sleep 600`, true);
  const environment = { PATH: bin };
  const running = setting.start(['-o', `x.${format}`], { environment });
  const pidFile = setting.scratch.join('pid');
  await until(
    'the program to run',
    () => existsSync(pidFile) && readFileSync(pidFile, 'utf8').endsWith('\n'),
  );
  const pid = Number(readFileSync(pidFile, 'utf8'));
  running.kill('SIGTERM');
  const { exitCode, stderr } = await running.result;
  assert.equal(exitCode, 143, stderr);
  assert.throws(() => process.kill(pid, 0), /ESRCH/);
  assert.deepEqual(setting.names, ['bin', 'pid']);
});

/**
 * Makes a directory for PATH in which a script replaces the program. With `afterCheck` the script runs the
 * real program until it gets the image.
 */
function replace(setting: Setting, program: string, script: string, afterCheck = false): string {
  const bin = setting.scratch.join('bin');
  mkdirSync(bin);
  const check = afterCheck
    ? `case "$*" in -V|-version|*256k) exec ${findProgram(program)} "$@" ;; esac\n`
    : '';
  writeFileSync(`${bin}/${program}`, `#!/bin/sh\n${check}${script}\n`, { mode: 0o755 });
  return bin;
}

describe('ext4', { skip: missing('mke2fs', 'debugfs') }, () => {
  test(
    'names and values that debugfs could take for something else',
    { skip: missing('root') },
    async (t) => {
      const name = fc.string({
        unit: fc.constantFrom(...Array.from('"\\<>!#;|&$ \t\'`~*-12ab\u00e9')),
        minLength: 1,
        maxLength: 12,
      });
      const bytes = fc.uint8Array({ minLength: 0, maxLength: 300 }).map((value) => Buffer.from(value));
      const property = fc.string({
        unit: fc.constantFrom(...Array.from('a"\\ $<>')),
        minLength: 1,
        maxLength: 8,
      });
      const wanted = fc.dictionary(property, bytes, { minKeys: 1, maxKeys: 2 });
      const time = fc.tuple(fc.integer({ min: -(2 ** 31), max: 2 ** 34 - 2 ** 31 - 1 }), fc.nat(999_999_999));
      const files = fc.sample(fc.tuple(name, wanted, time), { numRuns: 300, seed: 1 });
      const special = [
        '<12>',
        '!touch x',
        '"',
        '""',
        '\\"',
        '#a',
        '-f',
        'a;quit',
        'a|b',
        '~',
        '%s',
        'é'.repeat(100),
      ];
      const all = new Map(
        [...files, ...special.map((each) => [each, { a: Buffer.from('"') }, [1, 5]] as const)].map((each) => [
          each[0],
          each,
        ]),
      );
      const items = [...all.values()].map(([each, values, mtime]) =>
        file(`d/${each}`, '', {
          mtime,
          xattrs: Object.fromEntries(Object.entries(values).map(([key, value]) => [`user.${key}`, value])),
        }),
      );
      const holes = sparse(`d/${'ü'.repeat(99)}`, 1_000_000, [[500_000, 'data']], '1.0');
      await using setting = await Setting.open({ layers: [{ tar: tar(dir('d'), ...items, holes) }] });
      const { stderr } = await setting.pullWell(['-q', '-o', 'x.ext4', '--size', '64M']);
      assert.equal(stderr, '');
      await setting.pullWell(['-d', 'tree', '--no-json']);
      assert.deepEqual(setting.names, ['tree', 'x.ext4']);
      const root = mountDisk(t, setting.scratch.join('x.ext4'), 'ext4');
      if (root === undefined) return;
      assert.equal(printTree(`${root}/d`), printTree(setting.scratch.join('tree/d')));
    },
  );

  test('a directory of thousands of names, which gets an index', { skip: missing('root') }, async (t) => {
    const odd = ['a b', '"', '<12>', '-f', 'caf\u00e9', 'n\ne', 'r\re', 'x'.repeat(255)].map(
      (name) => `wide/${name}`,
    );
    const items = Array.from({ length: 2500 }, (_, index) => {
      const metadata: Metadata = {
        mtime: [1000 + index, index],
        ...(index % 100 === 0 && { xattrs: { 'user.a': 'b' } }),
      };
      const name = `wide/name-${index}`;
      if (index % 5 === 1) return symlink(name, `${index}`, { mtime: [1000 + index, index] });
      if (index % 5 === 2) return hardlink(name, `wide/name-${index - 2}`);
      return index % 5 === 3 ? character(name, 1, 3, metadata) : file(name, `${index}`, metadata);
    });
    const archive = tar(
      dir('wide', { mtime: [5, 7], mode: 0o1775, uid: 3 }),
      ...items,
      ...odd.map((name) => file(name, name)),
      dir('wide/inner'),
      file('wide/inner/x', 'x'),
      hardlink('other', 'wide/name-2490'),
      dir('.dlrootfs-parts'),
    );
    await using setting = await Setting.open({ layers: [{ tar: archive }] });
    for (const name of ['x', 'y']) {
      const { stderr } = await setting.pullWell(['-q', '-o', `${name}.ext4`]);
      assert.equal(stderr, '');
    }
    const disk = setting.scratch.join('x.ext4');
    assert.ok(readFileSync(disk).equals(readFileSync(setting.scratch.join('y.ext4'))), 'the bytes differ');
    const checked = spawnSync('e2fsck', ['-fn', disk], { encoding: 'utf8' });
    assert.equal(checked.status, 0, checked.stdout);
    const { stdout } = spawnSync('debugfs', ['-R', 'stat /wide', disk], { encoding: 'utf8' });
    const flags = Number(/Flags: (0x[0-9a-f]+)/.exec(stdout)?.[1]);
    assert.equal(flags & 0x1000, 0x1000, 'EXT4_INDEX_FL');
    await setting.pullWell(['-d', 'tree', '--no-json']);
    const root = mountDisk(t, disk, 'ext4');
    if (root === undefined) return;
    const options = { without: ['lost+found'] };
    assert.equal(printTree(root, options), printTree(setting.scratch.join('tree'), options));
  });

  test('progress counts the entries that a slow program has taken', async () => {
    const items = Array.from({ length: 10_000 }, (_, index) => dir(`wide/${index}`));
    await using setting = await Setting.open({ layers: [{ tar: tar(dir('wide'), ...items) }] });
    const bin = replace(setting, 'mke2fs', 'sleep 1.2; cat >/dev/null; exit 1', true);
    const flags = ['-q', '-o', 'x.ext4', '--progress', 'json'];
    const { stderr } = await setting.pull(flags, { environment: { PATH: `${bin}:/usr/bin:/bin` } });
    const lines = stderr.trim().split('\n');
    const events = lines.map(
      (line) => JSON.parse(line) as { type: string; entries?: number; total?: number },
    );
    const written = events.filter(({ type }) => type === 'disk-entries');
    assert.ok(written.length > 0, stderr);
    for (const { entries = 0, total } of written) {
      assert.equal(total, 10_001);
      assert.ok(entries > 0 && entries <= 10_001, String(entries));
    }
  });

  test('a directory of many directories: a notice says that it takes long', async () => {
    const items = Array.from({ length: 10_001 }, (_, index) => dir(`wide/${index}`));
    await using setting = await Setting.open({ layers: [{ tar: tar(dir('wide'), ...items) }] });
    const bin = replace(setting, 'mke2fs', 'exit 1', true);
    const { stderr } = await setting.pull(['-q', '-o', 'x.ext4'], { environment: { PATH: bin } });
    assert.match(
      stderr,
      /^notice: x\.ext4 takes about 9 seconds more: mke2fs searches wide for each of its 10001 directories\n/,
    );
  });

  test('names and values that debugfs cannot take are counted, and have no other effect', async () => {
    const xattrs = { 'user.a': 'x' };
    await using setting = await Setting.open({
      layers: [
        {
          tar: tar(
            file('one\nea_set <2> user.evil x', '', { xattrs, mtime: [5, 5] }),
            file('two\r!touch evil', '', { xattrs }),
            file('long', '', { xattrs: { 'user.long': Buffer.alloc(3000, 1) } }),
            file('large', '', { xattrs: { 'user.large': Buffer.alloc(4090, 0x61) } }),
            file('odd', '', { xattrs: { 'other.a': 'x', 'user.=': 'x' } }),
            file('good', '', { xattrs }),
          ),
        },
      ],
    });
    const { stderr } = await setting.pullWell(['-q', '-o', 'x.ext4']);
    assert.equal(stderr, 'notice: 6 extended attributes, 1 exact time not restored\n');
    assert.deepEqual(setting.names, ['x.ext4']);
    const asked = (inside: string) =>
      spawnSync('debugfs', ['-R', `ea_list ${inside}`, setting.scratch.join('x.ext4')], { encoding: 'utf8' })
        .stdout;
    assert.match(asked('/good'), /user\.a \(1\) = "x"/);
    assert.equal(asked('/').trim(), '');
  });

  test('its size: by the content, or as asked for; too small is said', async () => {
    await using setting = await Setting.open({ layers: [{ tar: tar(noise('big', 40_000_000)) }] });
    await setting.pullWell(['-o', 'x.ext4']);
    const size = statSync(setting.scratch.join('x.ext4')).size;
    assert.ok(size > 56_000_000 && size < 72_000_000, `${size}`);
    assert.equal(spawnSync('e2fsck', ['-fn', setting.scratch.join('x.ext4')]).status, 0);
    await setting.pullWell(['-o', 'large.ext4', '--size', '1.5G']);
    assert.equal(statSync(setting.scratch.join('large.ext4')).size, 1.5 * 2 ** 30);
    assert.ok(
      statSync(setting.scratch.join('large.ext4')).blocks * 512 < 2 ** 27,
      'free room takes none on disk',
    );
    for (const small of ['20M', '100k']) {
      const { exitCode, stderr } = await setting.pull(['-o', 'small.ext4', '--size', small]);
      assert.equal(exitCode, 7, stderr);
      assert.match(
        stderr,
        /^error: cannot write small\.ext4: the image does not fit into .*\nhint: give a larger --size, or leave it out\n/m,
      );
    }
    assert.deepEqual(setting.names, ['large.ext4', 'x.ext4']);
  });

  test('an empty image, and one with a file lost+found', async () => {
    await using empty = await Setting.open({ layers: [{ tar: tar() }] });
    await empty.pullWell(['-o', 'x.ext4']);
    assert.equal(spawnSync('e2fsck', ['-fn', empty.scratch.join('x.ext4')]).status, 0);
    await using odd = await Setting.open({ layers: [{ tar: tar(file('lost+found')) }] });
    const { exitCode, stderr } = await odd.pull(['-o', 'x.ext4']);
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, /^error: .*lost\+found.*\nhint: .*\n/m);
    assert.deepEqual(odd.names, []);
  });
});

test('contradicting flags are an error before anything is fetched', async () => {
  await using setting = await Setting.open(image);
  for (const [flags, says] of [
    [['-o', 'x.squashfs', '--size', '1G'], /--size is the size of an ext4/],
    [['-o', 'x.ext4', '--compress', 'lz4'], /--compress is for an erofs, not for ext4/],
    [['-o', 'x.tar', '--compress', 'lz4'], /--compress is for an erofs, not for an archive/],
    [['--compress', 'zstd'], /--compress is for an erofs, not for a directory/],
    [['-o', 'x.erofs', '--compress', 'zip'], /--compress takes one of lz4, .*, not "zip"/],
    [['-o', 'x.tar', '--size', '1G'], /--size is the size of a disk image, not of an archive/],
    [['--size', '1G'], /--size/],
    [['-o', 'x.img'], /cannot tell the format of x\.img/],
  ] as const) {
    const { exitCode, stderr } = await setting.pull(flags);
    assert.equal(exitCode, 2, stderr);
    assert.match(stderr, says);
  }
  assert.deepEqual(setting.registry.requests, []);
  spawnSync('mkfifo', [setting.scratch.join('pipe.ext4')]);
  const { exitCode, stderr } = await setting.pull(['-o', 'pipe.ext4']);
  assert.equal(exitCode, 7, stderr);
  assert.deepEqual(setting.names, ['pipe.ext4']);
});

test('a full disk', { skip: missing('root', ...diskPrograms.map(([, program]) => program)) }, async (t) => {
  await using setting = await Setting.open(image);
  const small = mkdtempSync(path.join(tmpdir(), 'dlrootfs-test-'));
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', small]).status !== 0)
    return t.skip('needs the right to mount a tmpfs');
  t.after(() => {
    spawnSync('umount', [small]);
    rmdirSync(small);
  });
  for (const [format, , flags] of diskKinds) {
    const { exitCode, stderr } = await setting.pull(['-o', `${small}/x.${format}`, ...flags]);
    assert.equal(exitCode, 7, stderr);
    assert.match(
      stderr,
      /^error: cannot write (\S+)\/x\.\w+: the disk of \1 is full: no space left on device \(ENOSPC\)\nhint: free some space, or name another file, on another disk/m,
    );
    assert.deepEqual(readdirSync(small), []);
  }
});
