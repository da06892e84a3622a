import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { configOf, type ImageConfig } from '../../src/oci/config.ts';
import { containerOf, signalName, type Container, type RootfsFacts } from '../../src/runtime/container.ts';
import { lxcConfig } from '../../src/runtime/lxc.ts';
import { nspawnConfig } from '../../src/runtime/nspawn.ts';
import { runcConfig } from '../../src/runtime/runc.ts';

const facts: RootfsFacts = {
  shell: true,
  init: false,
  getent: true,
  usr: true,
  osRelease: true,
  volumes: new Map(),
};
const user = { uid: 1000, gid: 1001, groups: [10, 44], name: 'app', home: '/srv/app' };
const place = { name: 'box', rootfs: '/var/lib/lxc/box/rootfs', hidden: [] };

function image(config: Record<string, unknown>): ImageConfig {
  return configOf({ os: 'linux', architecture: 'amd64', author: 'me', config });
}

function container(config: Record<string, unknown>, found: Partial<RootfsFacts> = {}): Container {
  return containerOf(image(config).config, user, { ...facts, ...found }, place);
}

function count(text: string): number {
  return text.split('\n').length;
}

/** Returns the settings of a text: values by key. */
function settings(text: string, separator: RegExp): Map<string, string[]> {
  const all = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#') || line.startsWith('[')) continue;
    const [, key = line, value = ''] = separator.exec(line) ?? [];
    all.set(key, [...(all.get(key) ?? []), value]);
  }
  return all;
}

const lxcKeys =
  /^lxc\.(include|rootfs\.path|uts\.name|execute\.cmd|init\.(cmd|cwd|uid|gid|groups)|environment|signal\.halt|net\.0\.type)$/;
const nspawnKeys = /^(Boot|Parameters|Environment|User|WorkingDirectory|KillSignal)$/;

const hostile: readonly (readonly [what: string, text: string])[] = [
  ['a line break and a key of LXC', 'x\nlxc.hook.pre-start = /bin/sh -c "touch /tmp/owned"'],
  ['a line break and a key of nspawn', 'x\nBind=/:/host'],
  ['a carriage return', 'x\rlxc.hook.start = /evil'],
  ['a section', 'x\n[Files]\nBind=/'],
  ['a trailing backslash', 'x\\'],
  ['quotes that end', `x" lxc.cap.keep = "all' Boot='yes`],
  ['a NUL', 'x\0lxc.rootfs.path = dir:/'],
  ['other line ends', 'x\u0085y\u2028z\u000by\u000c'],
  ['a comment', '# x'],
  ['shell substitutions', '$(touch /tmp/owned) `id` ${HOME} %n %(pwd)s'],
  ['printf formats', '%s%n\\x41\\c\\0101'],
  ['an escape sequence', '\u001b]0;title\u0007'],
];

for (const [what, text] of hostile) {
  test(`a hostile value stays a value: ${what}`, () => {
    const config = {
      User: 'app',
      Env: [`A=${text}`, `${text}=B`, text],
      Entrypoint: ['/bin/x', text],
      Cmd: [text],
      WorkingDir: `/${text}`,
      StopSignal: text,
      Volumes: { [`/${text}`]: {} },
      ExposedPorts: { [text]: {} },
      Labels: { [text]: text },
    };
    for (const shell of [true, false]) {
      const lxc = lxcConfig(container(config, { shell }), {
        includes: ['/usr/share/lxc/config/common.conf'],
      });
      const lxcSettings = settings(lxc.text, /^([a-z0-9.]+) = (.*)$/);
      for (const key of lxcSettings.keys()) assert.match(key, lxcKeys);
      assert.deepEqual(lxcSettings.get('lxc.rootfs.path'), ['"dir:/var/lib/lxc/box/rootfs"']);
      assert.equal(
        lxcSettings.get('lxc.execute.cmd')?.length ?? 0,
        lxcSettings.get('lxc.init.cmd')?.length ?? 0,
      );

      const nspawn = nspawnConfig(container(config, { shell }));
      const nspawnSettings = settings(nspawn.text, /^([A-Za-z]+)=(.*)$/);
      for (const key of nspawnSettings.keys()) assert.match(key, nspawnKeys);
      assert.deepEqual(nspawnSettings.get('Boot'), ['no']);
      assert.equal(nspawn.text.match(/^\[/gm)?.length, 1);
      // eslint-disable-next-line no-control-regex
      for (const { text: all } of [lxc, nspawn])
        assert.doesNotMatch(all, /[^\t\n -~\u00a0-\uffff]|\u2028|\r|\\\n/);
    }
    const runc = JSON.parse(runcConfig(container(config), image(config), 'rootfs').text) as {
      process: { args: string[] };
    };
    assert.deepEqual(runc.process.args, ['/bin/x', text, text]);
  });
}

test('any text as argument, variable and directory adds no line to a configuration', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'binary', maxLength: 12 }), { minLength: 3, maxLength: 3 }),
      ([a, b, c]) => {
        const odd = container({ Entrypoint: ['/x', a], Env: [`V=${b}`], WorkingDir: `/${c}` });
        const plain = container({ Entrypoint: ['/x', 'a'], Env: ['V=b'], WorkingDir: '/c' });
        const includes: string[] = [];
        assert.ok(count(lxcConfig(odd, { includes }).text) <= count(lxcConfig(plain, { includes }).text));
        assert.ok(count(nspawnConfig(odd).text) <= count(nspawnConfig(plain).text));
      },
    ),
    { numRuns: 300 },
  );
});

test('prototype names among variables and labels are names like others', () => {
  const config = {
    Env: ['__proto__=x', 'constructor=y'],
    Labels: JSON.parse('{"__proto__": "z"}') as unknown,
  };
  const { process, annotations } = JSON.parse(
    runcConfig(container(config), image(config), 'rootfs').text,
  ) as {
    process: { env: string[] };
    annotations: object;
  };
  assert.deepEqual(process.env.slice(-2), ['__proto__=x', 'constructor=y']);
  assert.equal(Object.getOwnPropertyDescriptor(annotations, '__proto__')?.value, 'z');
});

test('runc: the image config by conversion.md', () => {
  const config = {
    Env: ['PATH=/bin', 'A=1', 'A=2', 'HOME=/h', 'NOEQUALS'],
    Entrypoint: ['/entry'],
    Cmd: ['cmd'],
    WorkingDir: '/work',
    StopSignal: 'SIGQUIT',
    Volumes: { '/data': {}, 'rel/ative': {} },
    ExposedPorts: { '80/tcp': {}, '53/udp': {} },
    Labels: { 'org.opencontainers.image.author': 'label', 'run.oci.handler': 'krun', a: 'b' },
  };
  const volumes = new Map([['/data', { uid: 999, gid: 998, mode: 0o2750 }]]);
  const { text, notices } = runcConfig(container(config, { volumes }), image(config), 'rootfs');
  const document = JSON.parse(text) as Record<string, Record<string, unknown>> & {
    mounts: { destination: string; options: string[] }[];
  };
  const { process } = document;
  assert.deepEqual(process?.['args'], ['/entry', 'cmd']);
  assert.deepEqual(process?.['env'], ['PATH=/bin', 'HOME=/h', 'A=2']);
  assert.deepEqual(process?.['user'], { uid: 1000, gid: 1001, additionalGids: [10, 44] });
  assert.equal(process?.['cwd'], '/work');
  assert.deepEqual(Object.keys(process?.['capabilities'] as object), ['bounding']);
  assert.deepEqual(document['annotations'], {
    'org.opencontainers.image.os': 'linux',
    'org.opencontainers.image.architecture': 'amd64',
    'org.opencontainers.image.author': 'label',
    'org.opencontainers.image.stopSignal': 'SIGQUIT',
    'org.opencontainers.image.exposedPorts': '80/tcp,53/udp',
    a: 'b',
  });
  const mounts = document.mounts.filter(({ options }) => options.includes('tmpcopyup'));
  assert.deepEqual(
    mounts.map(({ destination }) => destination),
    ['/data', '/rel/ative'],
  );
  assert.deepEqual(mounts[0]?.options.slice(-3), ['mode=2750', 'uid=999', 'gid=998']);
  assert.equal(notices.length, 2);
});

test('without root, runc gets a user namespace, no devices and the host’s network', () => {
  const { text, notices } = runcConfig(container({}), image({}), 'rootfs', {
    rootless: { uid: 500, gid: 600 },
  });
  const { linux, process } = JSON.parse(text) as {
    linux: { namespaces: { type: string }[]; uidMappings: unknown; resources?: unknown };
    process: { user: { uid: number } };
  };
  assert.deepEqual(linux.uidMappings, [{ containerID: 0, hostID: 500, size: 1 }]);
  assert.deepEqual(linux.namespaces.map(({ type }) => type).toSorted(), [
    'cgroup',
    'ipc',
    'mount',
    'pid',
    'user',
    'uts',
  ]);
  assert.equal(linux.resources, undefined);
  assert.equal(process.user.uid, 0);
  assert.match(notices.join('\n'), /not as 1000:1001/);
});

const commands: readonly (readonly [
  what: string,
  config: object,
  init: boolean,
  args: string[],
  boots: boolean,
])[] = [
  ['nothing said and no init: a shell', {}, false, ['/bin/sh'], false],
  ['nothing said but an init: it boots', {}, true, ['/sbin/init'], true],
  [
    'a command that is an init boots',
    { Cmd: ['/lib/systemd/systemd', '--log-level=debug'] },
    true,
    ['/lib/systemd/systemd', '--log-level=debug'],
    true,
  ],
  ['s6’s /init is a program like others', { Entrypoint: ['/init'] }, true, ['/init'], false],
  ['an application with an init in its image', { Cmd: ['nginx'] }, true, ['nginx'], false],
];

for (const [what, config, init, args, boots] of commands) {
  test(`command: ${what}`, () => {
    const made = container({ ...config }, { init });
    assert.deepEqual(made.args, args);
    assert.equal(made.boots, boots);
    assert.match(nspawnConfig(made).text, boots ? /^Boot=yes$/m : /^Boot=no$/m);
    assert.doesNotMatch(nspawnConfig(made).text, boots ? /^(KillSignal|User)=/m : /^Parameters=$/m);
  });
}

const signals: readonly (readonly [text: string | undefined, name: string | undefined])[] = [
  ['SIGTERM', 'SIGTERM'],
  ['quit', 'SIGQUIT'],
  ['15', 'SIGTERM'],
  ['3', 'SIGQUIT'],
  ['SIGRTMIN+3', 'SIGRTMIN+3'],
  ['RTMAX-1', 'SIGRTMAX-1'],
  ['0', undefined],
  ['99', undefined],
  ['SIGNOTHING', undefined],
  ['SIGTERM\nBind=/', undefined],
  ['', undefined],
  [undefined, undefined],
];

for (const [text, name] of signals) {
  test(`stop signal ${JSON.stringify(text)} is ${name}`, () => assert.equal(signalName(text), name));
}

test('settings that a runtime cannot express are reported', () => {
  const config = { Env: ['A=1\n2'], Cmd: ['/x', 'a\nb'], WorkingDir: '/a\nb' };
  assert.deepEqual(lxcConfig(container(config), { includes: [] }).notices.length, 1);
  assert.deepEqual(lxcConfig(container(config, { shell: false }), { includes: [] }).notices.length, 3);
  assert.deepEqual(nspawnConfig(container(config)).notices.length, 1);
  assert.deepEqual(
    nspawnConfig(container(config, { shell: false, getent: false, usr: false })).notices.length,
    5,
  );
});
