import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { commands, type FlagValues, options, spellings } from '../../src/command-line/commands.ts';
import type { CliContext } from '../../src/command-line/context.ts';
import { parseArguments, splitArguments } from '../../src/command-line/program.ts';
import { pullRequest } from '../../src/command-line/request.ts';
import { DlrootfsError, UsageError } from '../../src/errors.ts';
import { Secrets } from '../../src/sys/secrets.ts';

const accepted: readonly (readonly [sentence: string, argv: string, expected: Record<string, unknown>])[] = [
  ['image first, flags after it', 'ubuntu -d out -g', { destination: 'out', git: true }],
  ['flags before the image', '-d out ubuntu', { destination: 'out' }],
  ['an equals sign behind one dash', 'ubuntu -d=out', { destination: 'out' }],
  ['the short name behind two dashes', 'ubuntu --d out', { destination: 'out' }],
  ['the short name behind two dashes with an equals sign', 'ubuntu --d=out', { destination: 'out' }],
  ['the long name behind one dash', 'ubuntu -dest out', { destination: 'out' }],
  ['the long name', 'ubuntu --dest=out', { destination: 'out' }],
  ['a boolean with its value', 'ubuntu -g=true', { git: true }],
  ['a boolean that is switched off', 'ubuntu -g -g=false', { git: undefined }],
  ['a boolean that is switched off and on', 'ubuntu -g=F -g=T', { git: true }],
  ['the last one wins', 'ubuntu -d one -d two', { destination: 'two' }],
  ['a value that begins with a dash', 'ubuntu -d -x', { destination: '-x' }],
  ['a value with an equals sign in it', 'ubuntu -d=a=b', { destination: 'a=b' }],
  ['the defaults', 'ubuntu', { destination: './rootfs', git: undefined, user: undefined }],
  ['--creds for -u', 'ubuntu --creds a:b', { user: 'a:b' }],
  ['--no-json beside other flags', 'ubuntu --no-json', { layerInfo: false }],
  ['a repeated flag as a list', 'ubuntu --mirror a --mirror b', { mirrors: ['a', 'b'] }],
  ['--tls-verify without a value', 'ubuntu --tls-verify', { tlsVerify: true }],
  ['--tls-verify=false', 'ubuntu --tls-verify=false', { tlsVerify: false }],
];

for (const [sentence, line, expected] of accepted) {
  test(`flags: ${sentence}`, () => {
    const invocation = parseArguments(line.split(' '));
    assert.deepEqual([invocation.command, invocation.words], ['pull', ['ubuntu']]);
    for (const [name, value] of Object.entries(expected))
      assert.deepEqual(invocation.values[name as keyof FlagValues], value, name);
  });
}

const refused: readonly (readonly [sentence: string, argv: readonly string[], message: RegExp])[] = [
  ['an unknown flag is named', ['ubuntu', '-x'], /^unknown flag: -x$/],
  ['a letter of several that is no flag', ['ubuntu', '-gx'], /^unknown flag: -gx$/],
  ['a flag with a value before the last letter', ['ubuntu', '-dg'], /^unknown flag: -dg$/],
  ['the value of the last letter is missing', ['ubuntu', '-gd'], /^flag needs an argument: -d$/],
  ['an unknown flag is named without its value', ['ubuntu', '--pass=secret'], /^unknown flag: --pass$/],
  ['a stray word is named', ['ubuntu', 'stray', '-d', 'out'], /^unexpected word: stray$/],
  ['a value that is missing', ['ubuntu', '-d'], /^flag needs an argument: -d$/],
  ['three dashes', ['ubuntu', '---d'], /^bad flag syntax: ---d$/],
  ['a bad boolean', ['ubuntu', '-g=maybe'], /^invalid boolean value "maybe" for -g$/],
  ['`-g true` leaves a stray word', ['ubuntu', '-g', 'true'], /^unexpected word: true$/],
  ['an empty image', [''], /^no image is named$/],
  ['flags without an image', ['-d', 'x'], /^no image is named$/],
  ['a flag of pull only', ['version', '-d', 'x'], /^cannot use -d with version$/],
  ['control characters are never printed raw', ['ubuntu', '\u001b[31m'], /^unexpected word: \\x1b\[31m$/],
];

for (const [sentence, argv, message] of refused) {
  test(`flags: ${sentence}`, () => {
    assert.throws(
      () => parseArguments(argv),
      (error: unknown) => error instanceof UsageError && message.test(error.message),
    );
  });
}

test('flags: a command word wins over an image of that name', () => {
  assert.equal(parseArguments(['version']).command, 'version');
  assert.deepEqual(parseArguments(['library/version']).words, ['library/version']);
  assert.deepEqual(parseArguments(['library/pull']).words, ['library/pull']);
  assert.throws(() => parseArguments(['pull']), { hint: /; an image of that name is library\/pull$/ });
});

test('flags: -h, --help, -V and --version work anywhere', () => {
  for (const argv of [['-h'], ['ubuntu', '--help'], ['-d', 'x', 'ubuntu', '-help'], ['help']]) {
    assert.equal(parseArguments(argv).command, 'help', argv.join(' '));
  }
  for (const argv of [['-V'], ['ubuntu', '--version'], ['-d', 'x', '-V']]) {
    assert.equal(parseArguments(argv).command, 'version', argv.join(' '));
  }
});

test('flags: help explains each flag, with a value or without; --help and --all are those of help', () => {
  const flags = options.filter(({ long }) => long !== '--all' && long !== '--help');
  assert.ok(flags.length > 30);
  for (const option of flags) {
    for (const spelled of spellings(option))
      for (const typed of [[spelled], [`${spelled}=x`], ...(option.required ? [[spelled, 'x']] : [])]) {
        const { command, words } = parseArguments(['help', ...typed]);
        assert.deepEqual([command, words], ['help', [spelled]], typed.join(' '));
      }
  }
  assert.deepEqual(parseArguments(['help', '--creds']).words, ['--creds']);
  assert.deepEqual(parseArguments(['help', '-dest']).words, ['-dest']);
  assert.equal(parseArguments(['help', '--all']).values.all, true);
  assert.deepEqual(parseArguments(['help', '-h']).words, ['help']);
  for (const argv of [
    ['help', '-o', 'x', 'y'],
    ['help', '-g', 'x'],
    ['help', '--x'],
  ])
    assert.throws(() => parseArguments(argv), UsageError, argv.join(' '));
});

test('flags: letters may be one word, and a name wins over them', () => {
  const { values } = parseArguments(['-qgvd', 'out', 'ubuntu', '-dest=x']);
  const { quiet, git, verbose, destination } = values;
  assert.deepEqual([quiet, git, verbose, destination], [true, true, true, 'x']);
  assert.equal(parseArguments(['ubuntu', '-qd=out']).values.destination, 'out');
});

test('flags: -- ends the flags', () => {
  assert.deepEqual(splitArguments(['--', '-d', 'x']), { flags: [], words: ['-d', 'x'] });
});

test('flags: the hint names a similar flag', () => {
  assert.throws(() => parseArguments(['ubuntu', '--plaform=x']), { hint: 'did you mean --platform?' });
});

test('property: any argument list is a command or a usage error', () => {
  const argument = fc.oneof(
    fc.string(),
    fc.constantFrom('-d', '--dest=', '-g', '-u', '--', '-', 'version', '--mirror', '--jobs'),
  );
  fc.assert(
    fc.property(fc.array(argument, { maxLength: 6 }), (argv) => {
      try {
        parseArguments(argv);
      } catch (error) {
        assert.ok(error instanceof DlrootfsError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});

const without = 'has no effect';
const useless: readonly (readonly [argv: string, message: string])[] = [
  ['ubuntu --rootless', `--rootless ${without} without --for runc`],
  ['ubuntu --for lxc --rootless', `--rootless ${without} without --for runc`],
  ['ubuntu --force', `--force ${without} without --for`],
  ['ubuntu --all', `--all ${without} without --help`],
  ['ubuntu --dry-run --path etc', `--path ${without} with --dry-run`],
  ['ubuntu --dry-run --exclude etc', `--exclude ${without} with --dry-run`],
  ['verify ubuntu -q --json', `-q ${without} with --json`],
  ['inspect ubuntu -q --json', `-q ${without} with --json`],
  ['diff ubuntu debian -q --json', `-q ${without} with --json`],
  ['verify oci:x --tls-verify', `--tls-verify ${without} on an image of this machine`],
  ['cache size --cache-size 1G', `--cache-size ${without} on the size of the cache`],
  ['oci:dir -u a:b', `-u ${without} on an image of this machine`],
  ['inspect oci-archive:x --mirror m', `--mirror ${without} on an image of this machine`],
];

for (const [line, message] of useless) {
  test(`flags: ${line} is refused`, () => {
    assert.throws(() => parseArguments(line.split(' ')), { name: 'UsageError', message });
  });
}

test('flags: a flag with an effect is not refused', () => {
  for (const line of [
    'ubuntu --for runc,lxc --rootless',
    'ubuntu --for lxc --force',
    'diff ubuntu debian --layers 1 --layers 2',
    'cat ubuntu etc/passwd --layers 1',
    'verify ubuntu --layers 0a1b',
    'cache prune --cache-size 1G',
    'ubuntu --no-cache --cache-dir x',
    'oci:dir --platform linux/arm64 --no-cache',
    'help --all',
    'inspect ubuntu -q',
  ])
    parseArguments(line.split(' '));
});

const context: CliContext = {
  environment: {},
  stdin: new PassThrough(),
  stdout: new PassThrough(),
  stderr: new PassThrough(),
  isSharedOutput: () => false,
  workingDirectoryExists: () => true,
  secrets: new Secrets(),
  signal: new AbortController().signal,
};

const requestOf = (...argv: string[]) => pullRequest(parseArguments(['ubuntu', ...argv]), context);

/** Flags that the library does not have: those of output and of the process, and `--password-stdin`. */
const ofTheProgram = new Set(
  'output userns dry-run password-stdin quiet verbose json progress help version all'.split(' '),
);

/** Values for flags that do not accept any text. */
const samples: Readonly<Record<string, string>> = {
  '--user': 'me:x',
  '--add-owner': '1000:1000',
  '--size': '1G',
  '--compress': 'lz4',
  '--layers': '2',
  '--platform': 'linux/riscv64',
  '--for': 'lxc',
  '--registry-version': '1',
  '--retry': '8',
  '--retry-delay': '8s',
  '--jobs': '8',
  '--cache-size': '8G',
};

test('flags: the library gets each flag of a pull that is not of the program alone', async () => {
  const before = ['--for', 'runc'];
  const request = await requestOf(...before);
  const flags = commands['pull']!.options.filter(({ long }) => !ofTheProgram.has(long!.slice(2)));
  assert.ok(flags.length > 25);
  for (const { long, required } of flags) {
    const flag = long === '--tls-verify' ? '--tls-verify=false' : long!;
    const value = required ? [samples[long!] ?? 'text'] : [];
    assert.notDeepEqual(await requestOf(...before, flag, ...value), request, long);
  }
});

test('flags: a password or a token is in one place of what the library gets', async () => {
  const user = await requestOf('-u', 'me:hunter2');
  const token = await requestOf('--registry-token', 'hunter2');
  assert.equal(user.registry?.credentials?.password, 'hunter2');
  assert.deepEqual(token.registry?.registryToken, { token: 'hunter2', source: '--registry-token' });
  for (const request of [user, token]) assert.equal(JSON.stringify(request).split('hunter2').length, 2);
});
