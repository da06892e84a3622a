import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { dir, file, symlink, tar, whiteout } from './support/archive.ts';
import type { FakeImage } from './support/fake-image.ts';
import { FakeRegistry } from './support/fake-registry.ts';
import { closedHost } from './support/local-server.ts';
import { noOtherUser } from './support/other-user.ts';
import { type ProgramResult, Scratch, runProgram } from './support/program.ts';

const image: FakeImage = {
  layers: [
    {
      tar: tar(
        dir('etc'),
        file('etc/motd', 'hello\n'),
        file('etc/gone', 'x'),
        symlink('bin', 'usr/bin'),
        dir('usr/bin'),
      ),
    },
    { tar: tar(whiteout('etc/gone'), file('usr/bin/tool', '#!/bin/sh\n', { mode: 0o755 })) },
  ],
};

const usage = `Usage: dlrootfs <image_name>:[<image_tag>] [-d <rootfs_destination>] [-u <username>:<password>] [-g]

Examples:
  dlrootfs ubuntu  #if no tag, use latest
  dlrootfs ubuntu:precise -d ubuntu_rootfs
  dlrootfs dockefile/elasticsearch:latest
  dlrootfs my_repo/my_image:latest -u username:password
  dlrootfs version
Default:
  -d="./rootfs": destination of the resulting rootfs directory
  -g=false: use git layering
  -u="": docker hub credentials: <username>:<password>
`;

test("cli: without arguments, the original's usage on stderr, a line about --help, and exit 0", async () => {
  const stderr = `${usage}All flags and commands: dlrootfs --help\n`;
  assert.deepEqual(await runProgram([]), { exitCode: 0, stdout: '', stderr });
});

test('cli: version', async () => {
  for (const argv of [['version'], ['-V'], ['--version'], ['ubuntu', '-V']]) {
    assert.deepEqual(await runProgram(argv), { exitCode: 0, stdout: '2.0.0\n', stderr: '' });
  }
});

test('cli: --help prints to stdout', async () => {
  for (const argv of [['--help'], ['-h'], ['help'], ['ubuntu', '-h']]) {
    const { exitCode, stdout, stderr } = await runProgram(argv);
    assert.deepEqual([exitCode, stderr], [0, '']);
    assert.match(stdout, /^Usage: dlrootfs IMAGE[^]*^ {2}dlrootfs ubuntu /m);
  }
});

test("cli: a pull prints the original's lines and nothing else", async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const { digest, layers, configDigest } = registry.push('lib/img', '1', image);
  const [first, second] = layers.map((layer) => layer.digest.slice(7, 19));
  const result = await runProgram([registry.reference('lib/img', '1'), '-d', './out'], { cwd: scratch.path });
  assert.equal(result.stderr, '');
  assert.equal(result.exitCode, 0);
  const lines = result.stdout.split('\n');
  assert.deepEqual(lines.slice(0, 3), [
    `Opening a session for ${registry.host}/lib/img ...`,
    `Image ID: ${configDigest.slice(7)}`,
    'Pulling 2 layers:',
  ]);
  assert.deepEqual(
    lines.slice(3, 7).toSorted(),
    [
      `\tDone ${first}`,
      `\tDone ${second}`,
      `\tPulling fs layer ${first}`,
      `\tPulling fs layer ${second}`,
    ].toSorted(),
  );
  assert.deepEqual(lines.slice(7), [
    'Downloading layers:',
    `\t${first} ... done`,
    `\t${second} ... done`,
    '',
    `Rootfs of ${registry.host}/lib/img:1 in ./out`,
    '',
  ]);
  assert.deepEqual(readdirSync(scratch.path), ['out']);
  assert.deepEqual(readdirSync(scratch.join('out')).toSorted(), ['bin', 'etc', 'json', 'usr']);
  assert.deepEqual(readdirSync(scratch.join('out/etc')), ['motd']);
  assert.equal(readFileSync(scratch.join('out/bin/tool'), 'utf8'), '#!/bin/sh\n');
  const byDigest = await runProgram([registry.reference('lib/img', digest), '-d', 'again'], {
    cwd: scratch.path,
  });
  assert.match(byDigest.stdout, new RegExp(`\nRootfs of ${registry.host}/lib/img@${digest} in again\n$`));
});

test('cli: a password in -u is warned about as the original did; elsewhere it is not', async () => {
  await using registry = await FakeRegistry.start({
    auth: { type: 'basic', users: { me: 'pass:word' } },
  });
  using scratch = new Scratch();
  registry.push('img', 'latest', image);
  const warning = "\nWARNING: don't forget to remove your docker hub credentials from your history !!\n";
  const withFlag = await runProgram([`${registry.host}/img`, '-u', 'me:pass:word'], { cwd: scratch.path });
  assert.equal(withFlag.exitCode, 0, withFlag.stderr);
  assert.ok(withFlag.stdout.endsWith(warning));
  const withVariable = await runProgram([`${registry.host}/img`, '-d', 'b'], {
    cwd: scratch.path,
    environment: { DLROOTFS_CREDS: 'me:pass:word' },
  });
  assert.equal(withVariable.exitCode, 0, withVariable.stderr);
  assert.ok(!withVariable.stdout.includes('WARNING'));
  const fromStdin = await runProgram([`${registry.host}/img`, '-d', 'c', '-u', 'me', '--password-stdin'], {
    cwd: scratch.path,
    stdin: 'pass:word\n',
  });
  assert.equal(fromStdin.exitCode, 0, fromStdin.stderr);
  assert.ok(!fromStdin.stdout.includes('WARNING'));
});

test('cli: -u with neither user name nor password is anonymous, as in the original, and that is said', async () => {
  await using registry = await FakeRegistry.start({ auth: { type: 'basic', users: { me: 'pass' } } });
  await using open = await FakeRegistry.start();
  using scratch = new Scratch();
  open.push('img', 'latest', image);
  const login = { auths: { [registry.host]: { auth: Buffer.from('me:pass').toString('base64') } } };
  for (const [argv, variable, source] of [
    [['-u', ':'], undefined, '-u'],
    [['-u='], ':', ''],
    [[], ':', 'DLROOTFS_CREDS'],
  ] as const) {
    const environment: Record<string, string> = {
      DOCKER_AUTH_CONFIG: JSON.stringify(login),
      ...(variable !== undefined && { DLROOTFS_CREDS: variable }),
    };
    const notice = `notice: ${source} has neither user name nor password; going on without credentials\n`;
    const pulled = await runProgram([`${open.host}/img`, '--no-cache', '--merge', ...argv], {
      cwd: scratch.path,
      environment,
    });
    assert.equal(pulled.exitCode, 0, pulled.stderr);
    assert.equal(pulled.stdout.includes('WARNING'), argv[1] === ':');
    assert.equal(pulled.stderr.includes('neither user name'), source !== '', pulled.stderr);
    if (source !== '') assert.ok(pulled.stderr.includes(notice), pulled.stderr);
    const refused = await runProgram([`${registry.host}/img`, '--merge', ...argv], {
      cwd: scratch.path,
      environment,
    });
    assert.equal(refused.exitCode, source === '' ? 3 : 4, refused.stderr);
  }
  const half = await runProgram([`${open.host}/img`, '--merge', '-u', ':pass'], { cwd: scratch.path });
  assert.equal(half.exitCode, 2, half.stderr);
});

test(
  'cli: neither HOME nor an entry in passwd(5): pulls without a cache',
  { skip: noOtherUser },
  async () => {
    await using registry = await FakeRegistry.start();
    using scratch = new Scratch();
    chmodSync(scratch.path, 0o777);
    registry.push('img', 'latest', image);
    const { exitCode, stderr } = await runProgram([`${registry.host}/img`], {
      cwd: scratch.path,
      uid: 54_321,
      under: ['env', '-u', 'HOME'],
    });
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(readdirSync(scratch.path), ['rootfs']);
  },
);

test('cli: --registry-token is sent, with a warning; DLROOTFS_REGISTRY_TOKEN without; none is shown', async () => {
  await using registry = await FakeRegistry.start({
    auth: { type: 'bearer', registryTokens: ['s3cret.token'], private: /./ },
  });
  using scratch = new Scratch();
  registry.push('img', 'latest', image);
  const run = async (argv: readonly string[], environment: Readonly<Record<string, string>> = {}) => {
    const result = await runProgram([`${registry.host}/img`, '--no-cache', '-v', ...argv], {
      cwd: scratch.path,
      environment,
    });
    assert.doesNotMatch(result.stdout + result.stderr, /s3cret|^\s+at /m);
    return result;
  };
  const withFlag = await run(['--registry-token', 's3cret.token', '-d', 'a']);
  assert.equal(withFlag.exitCode, 0, withFlag.stderr);
  assert.match(withFlag.stdout, /\nWARNING: .* history !!\n$/);
  const withVariable = await run(['-d', 'b'], { DLROOTFS_REGISTRY_TOKEN: 's3cret.token' });
  assert.equal(withVariable.exitCode, 0, withVariable.stderr);
  assert.doesNotMatch(withVariable.stdout, /WARNING/);
  assert.deepEqual(registry.log(/^\/token/), []);
  const overCreds = await run(['--registry-token=s3cret.token', '-d', 'c'], { DLROOTFS_CREDS: 'me:word' });
  assert.equal(overCreds.exitCode, 0, overCreds.stderr);
  const wrong = await run(['-d', 'd'], { DLROOTFS_REGISTRY_TOKEN: 's3cretly-wrong' });
  assert.equal(wrong.exitCode, 4);
  assert.match(wrong.stderr, /the registry token from DLROOTFS_REGISTRY_TOKEN/);
  for (const [token, more] of [
    ['s3cret\r\nx: y', []],
    ['s3crät', []],
    ['s3cret.token', ['-u', 'me:word']],
    ['s3cret.token', ['--no-creds']],
  ] as const) {
    const refused = await run(['-d', 'e', '--registry-token', token, ...more]);
    assert.equal(refused.exitCode, 2, refused.stderr);
    assert.match(refused.stderr, /^error: .*registry.token/m);
  }
  // Flags win over the environment.
  const flagFirst = await run(['-d', 'f', '--no-creds'], { DLROOTFS_REGISTRY_TOKEN: 's3cret.token' });
  assert.equal(flagFirst.exitCode, 4);
});

interface Failing {
  readonly sentence: string;
  readonly exitCode: number;
  readonly says: RegExp;
  readonly run: (registry: FakeRegistry, scratch: Scratch) => Promise<ProgramResult>;
}

const pull = (registry: FakeRegistry, scratch: Scratch, ...more: readonly string[]) =>
  runProgram(
    [registry.reference('lib/img', '1'), '-d', 'out', '--no-cache', '--retry-delay', '1ms', ...more],
    { cwd: scratch.path },
  );

const failing: readonly Failing[] = [
  {
    sentence: 'an unknown tag',
    exitCode: 3,
    says: /lib\/img has no tag nope \(/,
    run: (registry, { path }) => runProgram([registry.reference('lib/img', 'nope')], { cwd: path }),
  },
  {
    sentence: 'a wrong password',
    exitCode: 4,
    says: /error: /,
    run: async (_, scratch) => {
      await using locked = await FakeRegistry.start({
        auth: { type: 'basic', users: { me: 'right' } },
      });
      locked.push('lib/img', '1', image);
      const result = await pull(locked, scratch, '-u', 'me:wrongpassword');
      assert.ok(!`${result.stdout}${result.stderr}`.includes('wrongpassword'));
      return result;
    },
  },
  {
    sentence: 'a closed port',
    exitCode: 5,
    says: /127\.0\.0\.1:\d+/,
    run: async (_, { path }) => {
      return await runProgram([`${await closedHost()}/lib/img`, '--retry', '1', '--retry-delay', '1ms'], {
        cwd: path,
      });
    },
  },
  {
    sentence: 'a manifest that is not what its digest says',
    exitCode: 6,
    says: /sha256:/,
    run: (registry, { path }) => {
      const digest = registry.putManifest('lib/img', undefined, {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        bytes: Buffer.from('{}'),
        digest: `sha256:${'0'.repeat(64)}`,
      });
      return runProgram([registry.reference('lib/img', digest), '--retry-delay', '1ms'], { cwd: path });
    },
  },
  {
    sentence: 'a blob that is cut short every time',
    exitCode: 5,
    says: /error: /,
    run: (registry, scratch) => {
      registry.fault({ path: /\/blobs\//, skip: 1, times: 1000, cutAfter: 10, ignoreRange: true });
      return pull(registry, scratch, '--retry', '2');
    },
  },
  {
    sentence: 'a blob with a wrong byte every time',
    exitCode: 6,
    says: /sha256:/,
    run: (registry, scratch) => {
      registry.fault({ path: /\/blobs\//, skip: 1, times: 1000, corruptAt: 20 });
      return pull(registry, scratch, '--retry', '2');
    },
  },
  {
    sentence: 'DIR is a file',
    exitCode: 7,
    says: /out/,
    run: (registry, scratch) => {
      writeFileSync(scratch.join('out'), 'mine');
      return pull(registry, scratch);
    },
  },
  {
    sentence: 'too many requests',
    exitCode: 8,
    says: /rate limit/i,
    run: (registry, scratch) => {
      registry.fault({
        path: /\/manifests\//,
        times: 1000,
        status: 429,
        headers: { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '0;w=21600' },
      });
      return pull(registry, scratch, '--retry', '1');
    },
  },
];

for (const { sentence, exitCode, says, run } of failing) {
  test(`cli: ${sentence}: exit ${exitCode}, an error and a hint, nothing left behind`, async () => {
    await using registry = await FakeRegistry.start();
    using scratch = new Scratch();
    registry.push('lib/img', '1', image);
    const result = await run(registry, scratch);
    assert.equal(result.exitCode, exitCode, result.stderr);
    assert.match(result.stderr, says);
    const last = result.stderr.trimEnd().split('\n').slice(-2);
    assert.ok(last[0]!.startsWith('error: ') && last[1]!.startsWith('hint: '), result.stderr);
    assert.doesNotMatch(result.stderr, /^\s+at /m);
    assert.doesNotMatch(result.stdout, /^Rootfs of/m);
    const mine = exitCode === 7 ? ['out'] : [];
    assert.deepEqual(readdirSync(scratch.path), mine);
  });
}

test('cli: an unknown tag prints no image id', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('lib/img', '1', image);
  const { stdout } = await runProgram([registry.reference('lib/img', 'nope')]);
  assert.equal(stdout, `Opening a session for ${registry.host}/lib/img ...\n`);
});

test('cli: --merge: files that were in DIR stay, and the image is laid over them', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', image);
  mkdirSync(scratch.join('out/etc'), { recursive: true });
  writeFileSync(scratch.join('out/etc/keep'), 'mine');
  writeFileSync(scratch.join('out/etc/motd'), 'old');
  const result = await pull(registry, scratch, '--merge');
  assert.equal(result.exitCode, 0, result.stderr);
  assert.match(result.stderr, /^notice: .*not empty/m);
  assert.equal(readFileSync(scratch.join('out/etc/motd'), 'utf8'), 'hello\n');
  assert.equal(readFileSync(scratch.join('out/etc/keep'), 'utf8'), 'mine');
  assert.ok(!existsSync(scratch.join('out/etc/gone')));
});
