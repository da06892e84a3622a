import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { Ajv } from 'ajv';
import fc from 'fast-check';
import { IntegrityError, UsageError } from '../../src/errors.ts';
import { configOf } from '../../src/oci/config.ts';
import { ImageTree } from '../../src/rootfs/image-tree.ts';
import { containerOf } from '../../src/runtime/container.ts';
import {
  shellCommand,
  type Guest,
  type GuestDisk,
  guestOf,
  machineConfig,
} from '../../src/runtime/virtual-machine.ts';
import { OpenDirectory } from '../../src/sys/open-directory.ts';
import { namelessFile } from '../../src/sys/temp-file.ts';
import { dir, file, type Item, symlink, tar } from '../support/archive.ts';
import { findProgram } from '../support/debian.ts';
import { difficultTexts } from '../support/machine.ts';
import { Scratch } from '../support/program.ts';
import { probeScript, readProbe } from '../support/rootfs-trees.ts';

const noFacts = { shell: true, init: false, getent: false, usr: true, osRelease: false, volumes: new Map() };
const place = { name: 'box', rootfs: '/', hidden: [] };
const root = { uid: 0, gid: 0, groups: [], home: '/root', name: 'root' };

describe('the command line of the init', () => {
  const scratch = new Scratch();
  const probe = scratch.join(`a probe's name`);
  writeFileSync(probe, probeScript);
  chmodSync(probe, 0o755);
  const shells = [
    ['dash', []],
    ['bash', ['--posix']],
    ['busybox', ['sh']],
  ] as const;
  for (const [name, words] of shells) {
    const program = findProgram(name);
    test(`says every word and variable to ${name}`, { skip: program ? false : `needs ${name}` }, () => {
      const text = fc.oneof(
        fc.constantFrom(...difficultTexts),
        fc.string({
          unit: fc.constantFrom(...Array.from(`'"\\$\`!*?~#&|;<>(){}[] \n\t\r=-ab\u00e9`)),
          maxLength: 12,
        }),
        fc.string({ unit: 'binary', maxLength: 8 }).map((each) => each.replaceAll('\0', '').toWellFormed()),
      );
      const variable = fc.stringMatching(/^[a-zA-Z_. -][a-zA-Z0-9_. -]{0,6}$/).map((each) => `V${each}`);
      const property = fc.property(
        fc.array(text, { maxLength: 5 }),
        fc.dictionary(variable, text, { maxKeys: 4 }),
        (args, variables) => {
          const Env = Object.entries(variables).map(([key, value]) => `${key}=${value}`);
          const container = containerOf({ Entrypoint: [probe], Cmd: args, Env }, root, noFacts, place);
          const { stdout, status } = spawnSync(program!, [...words, '-c', shellCommand(container)], {
            encoding: 'utf8',
            env: { LEFT: 'over', PATH: process.env['PATH'] },
            // bash would read ~/.bashrc if its standard input were a socket.
            stdio: ['ignore', 'pipe', 'pipe'],
          });
          const seen = readProbe(stdout);
          assert.equal(status, 42);
          assert.deepEqual(seen.args, [probe, ...args]);
          const shellName = /^[A-Za-z_][A-Za-z0-9_]*$/;
          // The probe is a script; its shell adds variables, and ignores names that a shell cannot have.
          for (const [key, value] of Object.entries(variables))
            if (shellName.test(key)) assert.equal(seen.environment.get(key), value);
          assert.equal(seen.environment.get('LEFT'), undefined);
        },
      );
      fc.assert(property, { numRuns: 20 });
    });
  }

  test('runs a program with an equals sign in its name', () => {
    const odd = scratch.join('a=b');
    writeFileSync(odd, probeScript, { mode: 0o755 });
    const container = containerOf({ Entrypoint: [odd, 'word'] }, root, noFacts, place);
    const { stdout } = spawnSync('sh', ['-c', shellCommand(container)], { encoding: 'utf8' });
    assert.deepEqual(readProbe(stdout).args, [odd, 'word']);
  });
});

const shell = [dir('bin'), file('bin/sh', 'x', { mode: 0o755 }), file('bin/env', 'x', { mode: 0o755 })];

async function guest(config: object, ...items: readonly Item[]): Promise<Guest> {
  async function* open(): AsyncGenerator<Uint8Array, void, void> {
    yield tar(...items);
  }
  const tree = await ImageTree.build([{ name: 'layer', open }], {
    name: 'image',
    temporaryDirectory: '/tmp',
    temporaryFile: async () => {
      using directory = OpenDirectory.open('/tmp');
      return await namelessFile(directory);
    },
  });
  try {
    return guestOf(tree, configOf({ os: 'linux', architecture: 'amd64', config }), 'box', false);
  } finally {
    await tree.close();
  }
}

const filesOf = ({ files: all }: Guest) => all.map(({ path, mode }) => `${path} ${mode.toString(8)}`);

describe('what is added to a disk', () => {
  test('an init, and the directories that are missing', async () => {
    const made = await guest(
      { Cmd: ['/app'], WorkingDir: '/srv/a/b' },
      ...shell,
      dir('proc'),
      symlink('run', 'var/run'),
      dir('opt/srv'),
      symlink('srv', 'opt/srv'),
    );
    assert.equal(made.init, '/.dlrootfs-init');
    assert.deepEqual(filesOf(made), [
      'dev 755',
      'sys 555',
      'tmp 1777',
      '.dlrootfs-init 755',
      'opt/srv/a 755',
      'opt/srv/a/b 755',
    ]);
    const { stderr, status } = spawnSync('sh', ['-n'], {
      input: made.files[3]!.content,
      encoding: 'utf8',
    });
    assert.deepEqual([status, stderr], [0, '']);
  });

  test('an init of another name where the image has that one', async () => {
    const made = await guest({ Cmd: ['/app'] }, ...shell, file('.dlrootfs-init'), dir('.dlrootfs-init-'));
    assert.equal(made.init, '/.dlrootfs-init--');
  });

  test('no init where the command is one, or none is given and the image has one', async () => {
    for (const config of [{ Entrypoint: ['/sbin/init'], Cmd: ['--a b'] }, { Cmd: ['init', '--a b'] }]) {
      const made = await guest(config, dir('sbin'), file('sbin/init', 'x'));
      assert.deepEqual([made.init, made.words], ['/sbin/init', ['--a b']]);
      assert.ok(!made.files.some(({ content }) => content !== undefined));
    }
    assert.equal((await guest({}, file('sbin/init', 'x'))).init, '/sbin/init');
  });

  test('refuses an image without a shell or env, a NUL, and a user that is not there', async () => {
    await assert.rejects(guest({ Cmd: ['/app'] }, file('app')), UsageError);
    await assert.rejects(guest({ Cmd: ['/app'] }, file('bin/sh')), /no \/bin\/sh and env/);
    await assert.rejects(guest({ Cmd: ['/app', 'a\0b'] }, ...shell), /NUL byte/);
    await assert.rejects(guest({ Cmd: ['/app'], User: 'who' }, ...shell), IntegrityError);
    // No mount point is made for any of these.
    for (const WorkingDir of ['/bin/sh/x', '/loop/x', `/${'n'.repeat(256)}`, '/a/../b'])
      assert.ok(
        !filesOf(await guest({ WorkingDir }, ...shell, symlink('loop', 'loop'))).some(
          (each) => each.endsWith(' 755') && !/^(dev|run|\.dl)/.test(each),
        ),
        WorkingDir,
      );
  });

  test('the user is found in the accounts of the image, by a symlink too', async () => {
    const made = await guest(
      { Cmd: ['/app'], User: 'app' },
      ...shell,
      dir('etc'),
      file('etc/passwd', 'app:x:7:8::/home/app:/bin/sh\n'),
      file('etc/group', 'app:x:8:\nmore:x:9:app\n'),
    );
    const script = made.files.find(({ content }) => content !== undefined)!.content!;
    assert.match(script, /setpriv --reuid=7 --regid=8 --groups=9 /);
    assert.match(script, /HOME=\/home\/app/);
  });
});

const plain: Guest = { init: '/.dlrootfs-init', words: [], files: [] };
const disk: GuestDisk = {
  file: '/x/a.ext4',
  fileSystem: 'ext4',
  isReadOnly: false,
  architecture: 'amd64',
  guest: plain,
};

const scriptWith = (...words: readonly string[]) =>
  machineConfig({ ...disk, guest: { ...plain, words } }).text;

describe('the script for QEMU', () => {
  test('gives QEMU the disk beside it, from any directory, under any name', () => {
    using scratch = new Scratch();
    const bin = scratch.join('bin');
    mkdirSync(bin);
    writeFileSync(
      `${bin}/qemu-system-x86_64`,
      '#!/bin/sh\nfor word; do printf "<%s>\\n" "$word"; done; pwd\n',
      { mode: 0o755 },
    );
    for (const name of ['a.ext4', `it's, "a" $x.ext4`, 'a:b,c.ext4', '-o.ext4']) {
      const beside = scratch.join(`dir ${name.length}`);
      mkdirSync(beside);
      const { file: script, text, mode } = machineConfig({ ...disk, file: `${beside}/${name}` });
      writeFileSync(script, text, { mode });
      const { stdout, stderr, status } = spawnSync(script, ['-extra', 'a b'], {
        cwd: scratch.path,
        env: { PATH: `${bin}:/usr/bin:/bin`, KERNEL: 'my kernel', INITRD: '/i', APPEND: 'debug' },
        encoding: 'utf8',
      });
      assert.deepEqual([status, stderr], [0, '']);
      const words = stdout.split('\n');
      const after = (word: string) => words[words.indexOf(`<${word}>`) + 1];
      assert.equal(after('-kernel'), `<${scratch.path}/my kernel>`);
      assert.equal(after('-initrd'), '</i>');
      assert.ok(after('-blockdev')!.endsWith(`,file.filename=./${name.replaceAll(',', ',,')}>`), stdout);
      assert.match(after('-append')!, /^<root=\/dev\/vda rw .* init=\/\.dlrootfs-init debug>$/);
      assert.deepEqual(words.slice(-4), ['<-extra>', '<a b>', beside, '']);
    }
    const { stderr, status } = spawnSync('sh', ['-c', machineConfig(disk).text], {
      env: { PATH: '/usr/bin:/bin' },
      encoding: 'utf8',
    });
    assert.notEqual(status, 0);
    assert.match(stderr, /KERNEL: is the path of a Linux kernel/);
  });

  test('is for the architecture of the image', () => {
    for (const [architecture, says] of [
      ['arm64', /qemu-system-aarch64 .*console=ttyAMA0/s],
      ['riscv64', /qemu-system-riscv64/],
    ] as const)
      assert.match(machineConfig({ ...disk, architecture }).text, says);
    assert.throws(() => machineConfig({ ...disk, architecture: 'vax' }), UsageError);
    assert.throws(() => machineConfig({ ...disk, architecture: 'constructor' }), UsageError);
  });

  test('gives the words of an init to the kernel, where they can be said', () => {
    assert.match(scriptWith('--unit=x', 'a b'), /init=\/\.dlrootfs-init -- --unit=x "a b"'/);
    for (const bad of ['"', 'a\nb']) assert.throws(() => scriptWith(bad), UsageError);
  });
});

/** The used part of Firecracker's API (its firecracker.yaml). */
const firecracker = {
  type: 'object',
  additionalProperties: false,
  required: ['boot-source', 'drives', 'machine-config'],
  properties: {
    'boot-source': {
      type: 'object',
      additionalProperties: false,
      required: ['kernel_image_path'],
      properties: {
        kernel_image_path: { type: 'string' },
        boot_args: { type: 'string' },
        initrd_path: { type: 'string' },
      },
    },
    drives: {
      type: 'array',
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['drive_id', 'is_root_device'],
        properties: {
          drive_id: { type: 'string', pattern: '^[A-Za-z0-9_]+$' },
          path_on_host: { type: 'string' },
          is_root_device: { type: 'boolean' },
          is_read_only: { type: 'boolean' },
        },
      },
    },
    'machine-config': {
      type: 'object',
      additionalProperties: false,
      required: ['vcpu_count', 'mem_size_mib'],
      properties: {
        vcpu_count: { type: 'integer', minimum: 1, maximum: 32 },
        mem_size_mib: { type: 'integer', minimum: 1 },
      },
    },
  },
};

test('the configuration for Firecracker in its recipe is one of its API', () => {
  const recipes = readFileSync(new URL('../../docs/recipes.md', import.meta.url), 'utf8');
  const [, text] = /^## Disk for Firecracker\n[^]*?^```json\n([^]*?)^```$/m.exec(recipes)!;
  const validate = new Ajv().compile(firecracker);
  assert.ok(validate(JSON.parse(text!)), JSON.stringify(validate.errors));
});
