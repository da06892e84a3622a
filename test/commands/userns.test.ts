import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { topics } from '../../src/command-line/topics.ts';
import { Setting } from '../faults/setting.ts';
import { netRawCapability } from '../rootfs/access-list.ts';
import { character, dir, file, hardlink, symlink, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { noOtherUser, noUserNamespace } from '../support/other-user.ts';
import { programCommand, runProgram, type ProgramResult } from '../support/program.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';
import { until } from '../support/until.ts';

const NOBODY = 65_534;
/**
 * Words that run a command as nobody, with a file for /etc/subuid and /etc/subgid that only this command
 * sees.
 */
const AS_NOBODY =
  'mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid && shift && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"';

const underNobody = (ids: string) => ['unshare', '--mount', '--', 'sh', '-c', AS_NOBODY, 'sh', ids];

const skip =
  noOtherUser ||
  noUserNamespace ||
  missing('newuidmap', 'unshare', 'setpriv', 'getcap') ||
  (existsSync('/etc/subuid') && existsSync('/etc/subgid') ? false : 'needs /etc/subuid and /etc/subgid');

const image = {
  layers: [
    {
      tar: tar(
        dir('.', { mode: 0o755 }),
        dir('home/me', { uid: 1000, gid: 1000, mode: 0o700 }),
        file('home/me/x', 'x', { uid: 1000, gid: 1000, mode: 0o600 }),
        file('su', 'x', { mode: 0o4755 }),
        file('wall', 'x', { gid: 5, mode: 0o2755 }),
        file('ping', 'x', { xattrs: { 'security.capability': netRawCapability } }),
        file('nobody', 'x', { uid: NOBODY, gid: NOBODY }),
        hardlink('home/me/y', 'home/me/x'),
        symlink('link', 'su', { uid: 33, gid: 33 }),
      ),
    },
  ],
};

async function open(ids = `nobody:100000:65536\n`): Promise<Setting & { readonly ids: string }> {
  const setting = await Setting.open(image);
  const name = setting.scratch.join('ids');
  writeFileSync(name, ids);
  chownSync(setting.scratch.path, NOBODY, NOBODY);
  return Object.assign(setting, { ids: name });
}

const pull = (setting: Setting & { ids: string }, flags: readonly string[]): Promise<ProgramResult> =>
  setting.pull(['--userns', '--progress', 'none', ...flags], { under: underNobody(setting.ids) });

const LIST = `cd "$0" && find . ! -path ./json -printf '%y %m %U:%G %n %s %T@ %p %l\\n' | sort; getcap -r .`;

test('userns: the tree of a plain user is that of root, seen from inside', { skip }, async () => {
  await using setting = await open();
  const { exitCode, stderr, stdout } = await pull(setting, []);
  assert.equal(exitCode, 0, stderr);
  assert.equal(stderr, '');
  assert.match(stdout, /^Rootfs of .* in out$/m);
  await setting.pullWell(['-d', 'model', '--no-cache']);
  const [command, ...words] = underNobody(setting.ids);
  const enter = ['unshare', '--user', '--map-auto', '--map-root-user'];
  const inside = execFileSync(command!, [...words, ...enter, 'sh', '-c', LIST, setting.scratch.join('out')], {
    encoding: 'utf8',
  });
  const model = execFileSync('sh', ['-c', LIST, setting.scratch.join('model')], { encoding: 'utf8' });
  assert.equal(inside, model);
  assert.match(model, /ping cap_net_raw/);
  // The README removes a tree by this command.
  execFileSync(command!, [...words, ...enter, 'rm', '-rf', setting.scratch.join('out')]);
  assert.ok(!existsSync(setting.scratch.join('out')));
});

test('userns: the recipe enters the tree, and deletes it', { skip: skip || missing('busybox') }, async () => {
  await using setting = await open();
  const { scratch, registry } = setting;
  const recipes = readFileSync(new URL('../../docs/recipes.md', import.meta.url), 'utf8');
  const commands = /^## True owners as a plain user\n\n```\n([^]*?)^```$/m.exec(recipes)![1]!;
  const tree = scratch.join('tree');
  mkdirSync(tree);
  busyboxTree(tree);
  writeFileSync(`${tree}/etc/motd`, 'hello');
  chownSync(`${tree}/etc/motd`, 7, 42);
  const layer = execFileSync('tar', ['-c', '-C', tree, '.'], { maxBuffer: 64 << 20 });
  registry.push('lib/img', '1', { layers: [{ tar: layer }] });
  const program = `dlrootfs() { shift; ${programCommand.join(' ')} ${setting.reference} "$@"; }`;
  const { exitCode, stdout, stderr } = await runProgram([], {
    program: ['sh', '-euc', `${program}\n${commands}`],
    under: underNobody(setting.ids),
    cwd: scratch.path,
    environment: { XDG_CACHE_HOME: scratch.join('cache') },
  });
  assert.equal(exitCode, 0, stderr);
  assert.match(stdout, /^-rw-r--r-- +1 7 +42 +5 .* \/etc\/motd$/m);
  assert.ok(!existsSync(scratch.join('rootfs')));
});

test(
  'userns: the commands of help rootless work, in both lists',
  { skip: skip || missing('busybox') },
  async (t) => {
    await using setting = await open();
    const { scratch, registry } = setting;
    const tree = scratch.join('tree');
    mkdirSync(tree);
    busyboxTree(tree);
    mkdirSync(`${tree}/srv/own`, { recursive: true });
    writeFileSync(`${tree}/srv/own/motd`, 'hello');
    for (const name of ['srv/own/motd', 'srv/own']) chownSync(`${tree}/${name}`, 7, 42);
    const layer = execFileSync('tar', ['-c', '-C', tree, '.'], { maxBuffer: 64 << 20 });
    registry.push('lib/img', '1', { layers: [{ tar: layer }] });
    const lists = topics['rootless']!.paragraphs.filter((paragraph) => typeof paragraph !== 'string');
    assert.equal(lists.length, 2);
    for (const [index, list] of lists.entries()) {
      const owners = index === 0 ? '0 0' : '7 42';
      for (const [command] of list) {
        await t.test(command, async () => {
          const named = `n=$#; for word; do [ "$word" != alpine ] || word=${setting.reference}; set -- "$@" "$word"; done; shift $n`;
          const script = `dlrootfs() { ${named}; ${programCommand.join(' ')} "$@"; }\n${command}`;
          const { exitCode, stdout, stderr } = await runProgram([], {
            program: ['sh', '-euc', script],
            under: underNobody(setting.ids),
            cwd: scratch.path,
            environment: { XDG_CACHE_HOME: scratch.join('cache') },
            stdin: 'stat -c "%u %g" /srv/own/motd\n',
          });
          assert.equal(exitCode, 0, stderr);
          if (command.includes('/bin/sh')) assert.equal(stdout, `${owners}\n`);
          if (command.includes('verify')) assert.equal(stdout, '');
        });
      }
      assert.ok(!existsSync(scratch.join('rootfs')));
    }
  },
);

test('userns: verify sees the owners inside, and one that was given to another', { skip }, async () => {
  await using setting = await open();
  assert.equal((await pull(setting, [])).exitCode, 0);
  const under = underNobody(setting.ids);
  const argv = ['verify', setting.reference, '-d', 'out', '--no-cache', '--userns', '--progress', 'none'];
  const verify = () => runProgram([...argv, '--contents'], { cwd: setting.scratch.path, under });
  const untouched = await verify();
  assert.deepEqual([untouched.exitCode, untouched.stdout, untouched.stderr], [0, '', '']);
  const [command, ...words] = under;
  const enter = ['unshare', '--user', '--map-auto', '--map-root-user'];
  execFileSync(command!, [...words, ...enter, 'chown', '0:0', setting.scratch.join('out/home/me/x')]);
  const touched = await verify();
  const lines = ['x', 'y'].map((name) => `changed /home/me/${name}: owner 1000:1000→0:0\n`);
  assert.deepEqual([touched.exitCode, touched.stdout], [9, lines.join('')]);
});

test('userns: only devices are not restored', { skip }, async () => {
  await using setting = await open();
  const device = { layers: [{ tar: tar(character('null', 1, 3), file('x', '', { uid: 7 })) }] };
  setting.registry.push('lib/img', '1', device);
  const { exitCode, stderr } = await pull(setting, []);
  assert.equal(exitCode, 0, stderr);
  assert.equal(stderr, 'notice: 1 device not restored\n');
  const plain = await setting.pull(['-d', 'plain', '--progress', 'none'], { uid: NOBODY });
  assert.match(
    plain.stderr,
    /^notice: 1 device, 1 owner not restored: run as root for the image as it is, or with --userns for all but devices$/m,
  );
});

test('userns: --for runc and lxc write the ids of the namespace', { skip }, async () => {
  await using setting = await open('nobody:100000:1000\n65534:200000:65000\nother:1:1\n');
  const { exitCode, stderr } = await pull(setting, ['--for', 'runc,lxc,nspawn', '-d', 'bundle/rootfs']);
  assert.equal(exitCode, 0, stderr);
  assert.match(stderr, /^notice: systemd-nspawn has no user namespace with these ids: pull as root for it$/m);
  const { linux } = JSON.parse(readFileSync(setting.scratch.join('bundle/config.json'), 'utf8')) as {
    linux: Record<string, unknown>;
  };
  const ids = [
    { containerID: 0, hostID: NOBODY, size: 1 },
    { containerID: 1, hostID: 100_000, size: 1000 },
    { containerID: 1001, hostID: 200_000, size: 65_000 },
  ];
  assert.deepEqual([linux['uidMappings'], linux['gidMappings']], [ids, ids]);
  const lines = readFileSync(setting.scratch.join('bundle/config'), 'utf8').match(/^lxc\.idmap.*$/gm);
  const map = (kind: string) =>
    ids.map(({ containerID, hostID, size }) => `lxc.idmap = ${kind} ${containerID} ${hostID} ${size}`);
  assert.deepEqual(lines, [...map('u'), ...map('g')]);
});

for (const [runtime, program, command] of [
  ['lxc', 'lxc-execute', /^lxc-execute -P \S+ -n box$/],
  ['runc', 'runc', /^runc --root \S+\/box\/\.runc run -b \S+ box$/],
] as const) {
  test(
    `userns: ${program} starts the container as that plain user`,
    { skip: skip || missing('busybox', program) },
    async () => {
      await using setting = await open();
      const { scratch, registry } = setting;
      const tree = scratch.join('tree');
      mkdirSync(tree);
      busyboxTree(tree);
      writeFileSync(`${tree}/etc/shadow`, 'secret\n', { mode: 0o640 });
      chownSync(`${tree}/etc/shadow`, 0, 42);
      chownSync(`${tree}/home/app`, 1000, 1001);
      chmodSync(`${tree}/home/app`, 0o700);
      const look =
        'id -u; id -G; stat -c "%u:%g" /etc/shadow; echo x >/home/app/new; cat /home/app/new; exit 7';
      registry.push('lib/img', '1', {
        layers: [{ tar: execFileSync('tar', ['-c', '-C', tree, '.'], { maxBuffer: 64 << 20 }) }],
        config: { config: { User: 'app', Cmd: ['/bin/sh', '-c', look] } },
      });
      const { exitCode, stderr } = await pull(setting, ['--for', runtime, '-d', 'box/rootfs']);
      assert.equal(exitCode, 0, stderr);
      const notices = stderr.match(/^notice: .*$/gm)!;
      const name = runtime === 'lxc' ? 'LXC' : 'runc';
      assert.deepEqual(notices, [
        `notice: without root, ${name} gives the user no further groups: 10, 44 are left out`,
      ]);
      const start = /; start it with: (.*)$/m.exec(stderr)![1]!;
      assert.match(start, command);
      const started = await runProgram([], {
        program: ['sh', '-c', start],
        under: underNobody(setting.ids),
        environment: { HOME: scratch.path, PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
      });
      assert.equal(started.exitCode, 7, started.stderr);
      assert.equal(started.stdout, '1000\n1001\n0:42\nx\n');
    },
  );
}

test('userns: -g keeps the owners, and takes no file of the host', { skip }, async () => {
  await using setting = await open();
  const { exitCode, stderr } = await pull(setting, ['-g']);
  assert.equal(exitCode, 0, stderr);
  assert.ok(existsSync(setting.scratch.join('out/.git/HEAD')));
});

/** Runs a command on `out`, which follows --userns without the flag. */
const follow = (setting: Setting & { ids: string }, argv: readonly string[], under: readonly string[] = []) =>
  runProgram([...argv, '-d', 'out', '--no-cache', '--progress', 'none'], {
    cwd: setting.scratch.path,
    under: [...under, ...underNobody(setting.ids)],
  });

const ownersOf = (setting: Setting) =>
  execFileSync('find', [setting.scratch.join('out'), '-printf', '%P %U:%G %m\n'], { encoding: 'utf8' });

test('userns: later commands on DIR need no --userns', { skip }, async () => {
  await using setting = await open();
  assert.equal((await pull(setting, [])).exitCode, 0);
  const verified = await follow(setting, ['verify', setting.reference, '--contents']);
  assert.deepEqual([verified.exitCode, verified.stdout, verified.stderr], [0, '', '']);
  const before = ownersOf(setting);
  assert.match(before, /^home\/me 100999:100999 700$/m);
  for (const flags of [['--replace=always'], ['--replace']]) {
    const replaced = await follow(setting, [setting.reference, ...flags]);
    assert.equal(replaced.exitCode, 0, replaced.stderr);
    assert.equal(ownersOf(setting), before);
  }
  // The earlier tree was removed, whatever its owners.
  assert.deepEqual(setting.names, ['ids', 'out']);
  // With --userns=false the command runs with the caller's ids, and reports unreadable directories.
  const plain = await follow(setting, ['verify', setting.reference, '--userns=false']);
  assert.equal(plain.exitCode, 9);
  assert.match(plain.stderr, /may not be read by this user/);
});

test(
  'userns: the reason that stops a later command is reported, and DIR is unchanged',
  { skip },
  async () => {
    await using setting = await open();
    assert.equal((await pull(setting, [])).exitCode, 0);
    const before = ownersOf(setting);
    const hide = 'mount --bind /dev/null "$(command -v newuidmap)" && exec "$@"';
    const without = ['unshare', '--mount', '--', 'sh', '-c', hide, 'sh'];
    const noProgram = await follow(setting, [setting.reference, '--replace'], without);
    assert.equal(noProgram.exitCode, 7);
    assert.equal(
      noProgram.stderr,
      'error: cannot use out without root: its owners are those of --userns: newuidmap was not found\n' +
        'hint: install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora)\n',
    );
    writeFileSync(setting.ids, 'nobody:300000:65536\n');
    const noRange = await follow(setting, [setting.reference, '--replace']);
    assert.equal(noRange.exitCode, 7);
    assert.equal(
      noRange.stderr,
      'error: cannot replace out: /home/me in it belongs to user 100999\n' +
        'hint: run as root, or, if it was made with --userns, give yourself the range of ids that has 100999 in /etc/subuid and /etc/subgid\n',
    );
    assert.equal(ownersOf(setting), before);
  },
);

test('userns: a DIR of a plain pull is not entered', { skip }, async () => {
  await using setting = await open();
  const plain = await setting.pull(['-q', '--progress', 'none', '--no-cache'], {
    under: underNobody(setting.ids),
  });
  assert.equal(plain.exitCode, 0, plain.stderr);
  const before = ownersOf(setting);
  const replaced = await follow(setting, [setting.reference, '--replace=always']);
  assert.equal(replaced.exitCode, 0, replaced.stderr);
  assert.match(replaced.stderr, /^notice: .* not restored/);
  assert.equal(ownersOf(setting), before);
});

test('userns: exit code, password, quiet and --json are those of the run inside', { skip }, async () => {
  await using setting = await open();
  const none = await setting.pull(
    ['--userns'],
    { under: underNobody(setting.ids) },
    `${setting.reference}none`,
  );
  assert.equal(none.exitCode, 3);
  assert.match(none.stderr, /^error: .*\nhint: .*\n$/);
  const quiet = await setting.pull(['--userns', '-q', '-u', 'me', '--password-stdin'], {
    under: underNobody(setting.ids),
    stdin: 'secret\n',
  });
  assert.deepEqual([quiet.exitCode, quiet.stdout], [0, 'out\n'], quiet.stderr);
  const json = await pull(setting, ['--json', '-d', 'again']);
  assert.equal((JSON.parse(json.stdout) as { destination: string }).destination, 'again');
});

for (const [signal, exitCode] of [
  ['SIGTERM', 143],
  ['SIGINT', 130],
  ['SIGKILL', 137],
] as const) {
  test(`userns: ${signal} ends both runs, and nothing is left`, { skip }, async () => {
    await using setting = await open();
    setting.registry.fault({ path: /\/blobs\//, skip: 1, rate: 10, times: 9 });
    const run = setting.start(['--userns', '--no-cache'], { under: underNobody(setting.ids) });
    await until('the layer', () => setting.registry.log(/\/blobs\//).length > 1);
    run.kill(signal);
    const result = await run.result;
    assert.equal(result.exitCode, exitCode, result.stderr);
    const isGone = () => !readdirSync(setting.scratch.path).some((name) => name.includes('dlrootfs-'));
    await until('the run inside to remove its stage', isGone);
  });
}

test('userns: what is missing is named, with what to do', { skip }, async () => {
  await using setting = await open('other:100000:65536\n');
  const noRange = await pull(setting, []);
  assert.deepEqual([noRange.exitCode, noRange.stdout], [2, '']);
  assert.equal(
    noRange.stderr,
    'error: cannot use --userns: nobody has no range of ids in /etc/subuid\n' +
      // The range is the next one after the other user's.
      'hint: add ranges as root: usermod --add-subuids 165536-231071 --add-subgids 165536-231071 nobody\n',
  );
  assert.deepEqual(setting.registry.log(), []);
  const noName = await setting.pull(['--userns'], {
    under: ['setpriv', '--reuid', '54321', '--regid', '54321', '--clear-groups'],
  });
  assert.equal(noName.exitCode, 2);
  assert.match(
    noName.stderr,
    /^error: cannot use --userns: user id 54321 has no name in \/etc\/passwd\nhint: add /,
  );
  writeFileSync(setting.ids, 'nobody:100000:65536\n');
  const noProgram = await setting.pull(['--userns'], {
    under: [...underNobody(setting.ids), 'env', '-i', 'PATH=/nonexistent'],
  });
  assert.equal(noProgram.exitCode, 0, 'the usual places are looked in, too');
  // For root, and with -o, owners are right without --userns.
  writeFileSync(setting.ids, 'other:100000:65536\n');
  await setting.pullWell(['--userns', '-o', 'x.tar'], { under: underNobody(setting.ids) });
  await setting.pullWell(['--userns', '-d', 'root']);
});
