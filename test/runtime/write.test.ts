import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { DestinationError, UsageError } from '../../src/errors.ts';
import { configOf } from '../../src/oci/config.ts';
import { containerPlaceOf, startCommand } from '../../src/runtime/config-files.ts';
import { checkRuntimeConfigs } from '../../src/runtime/write.ts';
import { configure } from '../support/machine.ts';
import { Scratch } from '../support/program.ts';

const image = configOf({ config: { Cmd: ['/bin/true'] } });
const all = ['runc', 'lxc', 'nspawn'] as const;
const names = ['config.json', 'config', 'rootfs.nspawn'];

function rootfsIn(scratch: Scratch): string {
  const destination = scratch.join('rootfs');
  mkdirSync(`${destination}/etc`, { recursive: true });
  return destination;
}

test('three configurations stand beside the rootfs, and nothing is in it', async () => {
  using scratch = new Scratch();
  const destination = rootfsIn(scratch);
  const { files, next } = await configure(all, destination, image);
  assert.deepEqual(
    files,
    names.map((name) => scratch.join(name)),
  );
  assert.deepEqual(
    next.map((line) => line.split(' ')[0]),
    ['runc', 'lxc-execute', 'systemd-nspawn'],
  );
  assert.deepEqual(readdirSync(scratch.path).toSorted(), [
    'config',
    'config.json',
    'rootfs',
    'rootfs.nspawn',
  ]);
  assert.deepEqual(readdirSync(destination), ['etc']);
  for (const file of files) assert.equal(lstatSync(file).mode & 0o777, 0o644 & ~process.umask());
});

for (const [n, runtime] of all.entries()) {
  const name = names[n]!;

  test(`${name}: what is there is kept, and said before the pull`, async () => {
    using scratch = new Scratch();
    const destination = rootfsIn(scratch);
    writeFileSync(scratch.join(name), 'mine');
    assert.throws(() => checkRuntimeConfigs([runtime], destination, false), DestinationError);
    checkRuntimeConfigs([runtime], destination, true);
    await assert.rejects(configure([runtime], destination, image), DestinationError);
    assert.equal(readFileSync(scratch.join(name), 'utf8'), 'mine');
    assert.deepEqual(readdirSync(scratch.path).toSorted(), [name, 'rootfs'].toSorted());
  });

  test(`${name}: a symlink there is not followed, with --force it is replaced`, async () => {
    using scratch = new Scratch();
    const destination = rootfsIn(scratch);
    writeFileSync(scratch.join('target'), 'mine');
    symlinkSync('target', scratch.join(name));
    await assert.rejects(configure([runtime], destination, image), DestinationError);
    await configure([runtime], destination, image, { force: true });
    assert.equal(readFileSync(scratch.join('target'), 'utf8'), 'mine');
    assert.equal(lstatSync(scratch.join(name)).isFile(), true);
  });

  test(`${name}: a dangling symlink there makes no file where it points`, async () => {
    using scratch = new Scratch();
    const destination = rootfsIn(scratch);
    symlinkSync('target', scratch.join(name));
    await assert.rejects(configure([runtime], destination, image), DestinationError);
    assert.deepEqual(readdirSync(scratch.path).toSorted(), [name, 'rootfs'].toSorted());
  });
}

test('a rootfs that is a symlink: beside what was typed, and runc gets the real directory', async () => {
  using scratch = new Scratch();
  rootfsIn(scratch);
  mkdirSync(scratch.join('typed'));
  symlinkSync('../rootfs', scratch.join('typed', 'link'));
  const destination = scratch.join('typed', 'link');
  const { files } = await configure(['runc', 'lxc'], destination, image);
  assert.deepEqual(files, [scratch.join('typed', 'config.json'), scratch.join('typed', 'link.lxc')]);
  const { root } = JSON.parse(readFileSync(files[0]!, 'utf8')) as { root: { path: string } };
  assert.equal(root.path, scratch.join('rootfs'));
  assert.match(
    readFileSync(files[1]!, 'utf8'),
    new RegExp(`^lxc.rootfs.path = "dir:${scratch.join('rootfs')}"$`, 'm'),
  );
});

test('nothing can stand beside /, and no line break in a path can be written down', () => {
  assert.throws(() => checkRuntimeConfigs(['lxc'], '/', false), UsageError);
  assert.throws(() => checkRuntimeConfigs(['lxc'], '/tmp/a\nb/rootfs', false), UsageError);
});

const places: readonly (readonly [directory: string, name: string, next: readonly string[]])[] = [
  [
    '/var/lib/lxc/web/rootfs',
    'web',
    ['runc run -b /var/lib/lxc/web web', 'lxc-execute -n web', 'systemd-nspawn -D /var/lib/lxc/web/rootfs'],
  ],
  [
    '/var/lib/machines/web',
    'web',
    [
      'runc run -b /var/lib/machines web',
      'lxc-execute -n web -f /var/lib/machines/web.lxc',
      'systemd-nspawn -M web',
    ],
  ],
  [
    "/srv/it's here/my box",
    'my-box',
    [
      `runc run -b '/srv/it'\\''s here' my-box`,
      `lxc-execute -n my-box -f '/srv/it'\\''s here/mybox.lxc'`,
      `systemd-nspawn -D '/srv/it'\\''s here/my box'`,
    ],
  ],
  [
    '/rootfs',
    'dlrootfs',
    ['runc run -b / dlrootfs', 'lxc-execute -n dlrootfs -f /config', 'systemd-nspawn -D /rootfs'],
  ],
];

for (const [directory, name, next] of places) {
  test(`next to type for ${directory}`, () => {
    const place = containerPlaceOf(directory);
    assert.equal(place.name, name);
    assert.deepEqual(
      all.map((runtime) => startCommand(runtime, place, { boots: false })),
      next,
    );
  });
}

test('a system is started with lxc-start', () => {
  assert.equal(
    startCommand('lxc', containerPlaceOf('/var/lib/lxc/web/rootfs'), { boots: true }),
    'lxc-start -n web',
  );
});

test('in a user namespace LXC is told where its containers are', () => {
  const conditions = { boots: false, inNamespace: true };
  const start = (directory: string) => startCommand('lxc', containerPlaceOf(directory), conditions);
  assert.equal(start('/home/me/ct/web/rootfs'), 'lxc-execute -P /home/me/ct -n web');
  assert.equal(start('/home/me/ct/web'), 'lxc-execute -P /home/me/ct -n web -f /home/me/ct/web.lxc');
});

test('without systemd, nspawn has no bus to register with', () => {
  const rows = [
    ['/srv/web', 'systemd-nspawn --register=no --keep-unit -D /srv/web'],
    ['/var/lib/machines/web', 'systemd-nspawn --register=no --keep-unit -M web'],
  ] as const;
  for (const [directory, command] of rows) {
    const conditions = { boots: false, withoutSystemd: true };
    assert.equal(startCommand('nspawn', containerPlaceOf(directory), conditions), command);
  }
});

test('without XDG_RUNTIME_DIR a user gives runc a place for its state', () => {
  const place = containerPlaceOf("/home/me/it's/rootfs");
  assert.equal(
    startCommand('runc', place, { boots: false, needsState: true }),
    `runc --root '/home/me/it'\\''s/.runc' run -b '/home/me/it'\\''s' it-s`,
  );
});
