import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import {
  acceptablePlatforms,
  formatPlatform,
  hostPlatform,
  parsePlatform,
  platformRank,
} from '../../src/oci/platform.ts';

const spellings: readonly (readonly [string, string])[] = [
  ['linux/amd64', 'linux/amd64'],
  ['Linux/AMD64', 'linux/amd64'],
  ['macos/x86_64', 'darwin/amd64'],
  ['linux/x86-64', 'linux/amd64'],
  ['linux/amd64/v1', 'linux/amd64'],
  ['linux/amd64/v3', 'linux/amd64/v3'],
  ['linux/aarch64', 'linux/arm64'],
  ['linux/arm64/v8', 'linux/arm64'],
  ['linux/arm64/8', 'linux/arm64'],
  ['linux/arm64/v8.0', 'linux/arm64'],
  ['linux/arm64/v9.0', 'linux/arm64/v9'],
  ['linux/arm64/9', 'linux/arm64/v9'],
  ['linux/arm64/v8.2', 'linux/arm64/v8.2'],
  ['linux/i386', 'linux/386'],
  ['linux/armhf', 'linux/arm/v7'],
  ['linux/armel', 'linux/arm/v6'],
  ['linux/arm', 'linux/arm/v7'],
  ['linux/arm/7', 'linux/arm/v7'],
  ['linux/arm/5', 'linux/arm/v5'],
  ['linux/arm/v6', 'linux/arm/v6'],
  ['linux/arm/8', 'linux/arm/v8'],
  ['linux/ppc64le', 'linux/ppc64le'],
  ['linux/constructor', 'linux/constructor'],
  ['linux/__proto__', 'linux/__proto__'],
  ['linux/arm/toString', 'linux/arm/tostring'],
  ['linux/arm/constructor', 'linux/arm/constructor'],
  ['windows/amd64', 'windows/amd64'],
];

for (const [text, normal] of spellings) {
  test(`${text} is ${normal}`, () => assert.equal(formatPlatform(parsePlatform(text)), normal));
}

for (const text of [
  '',
  'linux',
  'arm64',
  'linux/',
  '/amd64',
  'linux//v7',
  'a/b/c/d',
  'linux/amd64 ',
  'linux/\u001b[m',
]) {
  test(`${JSON.stringify(text)} is no platform`, () => {
    assert.throws(
      () => parsePlatform(text),
      (error) => error instanceof UsageError && error.hint !== undefined && !error.message.includes('\u001b'),
    );
  });
}

const orders: readonly (readonly [string, string])[] = [
  ['linux/amd64', 'linux/amd64 linux/386'],
  ['linux/amd64/v3', 'linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386'],
  ['linux/arm64', 'linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5'],
  [
    'linux/arm64/v8.2',
    'linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5',
  ],
  [
    'linux/arm64/v9.1',
    'linux/arm64/v9.1 linux/arm64/v9 linux/arm64/v8.6 linux/arm64/v8.5 linux/arm64/v8.4 linux/arm64/v8.3 ' +
      'linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5',
  ],
  ['linux/arm/v7', 'linux/arm/v7 linux/arm/v6 linux/arm/v5'],
  ['linux/arm/v5', 'linux/arm/v5'],
  ['linux/386', 'linux/386'],
  ['linux/s390x', 'linux/s390x'],
  ['windows/amd64', 'windows/amd64 windows/386'],
];

for (const [wanted, accepted] of orders) {
  test(`for ${wanted} these will do, best first: ${accepted}`, () => {
    assert.equal(acceptablePlatforms(parsePlatform(wanted)).map(formatPlatform).join(' '), accepted);
  });
}

test('a better processor than the wanted one does not do', () => {
  const wanted = parsePlatform('linux/amd64');
  assert.equal(platformRank(parsePlatform('linux/amd64/v2'), wanted), undefined);
  assert.equal(platformRank({ os: 'linux', architecture: 'x86_64', variant: 'v1' }, wanted), 0);
  assert.equal(platformRank({ os: 'linux', architecture: 'arm' }, parsePlatform('linux/arm/v6')), undefined);
});

test('the version of Windows counts when one is wanted', () => {
  const server = { os: 'windows', architecture: 'amd64', osVersion: '10.0.17763.1' };
  assert.equal(platformRank(server, parsePlatform('windows/amd64')), 0);
  assert.equal(
    platformRank(server, { os: 'windows', architecture: 'amd64', osVersion: '10.0.1' }),
    undefined,
  );
  assert.equal(formatPlatform(server), 'windows/amd64 (10.0.17763.1)');
});

const pi = 'processor\t: 0\nmodel name\t: ARMv6-compatible processor rev 7 (v6l)\nCPU architecture: 7\n';
const hosts: readonly (readonly [string, string, string | undefined, string])[] = [
  ['linux', 'x64', undefined, 'linux/amd64'],
  ['linux', 'arm64', undefined, 'linux/arm64'],
  ['linux', 'ia32', undefined, 'linux/386'],
  ['linux', 'ppc64', undefined, 'linux/ppc64le'],
  ['linux', 's390x', undefined, 'linux/s390x'],
  ['linux', 'riscv64', undefined, 'linux/riscv64'],
  ['linux', 'loong64', undefined, 'linux/loong64'],
  ['linux', 'arm', undefined, 'linux/arm/v7'],
  ['linux', 'arm', 'CPU architecture: 7\n', 'linux/arm/v7'],
  ['linux', 'arm', 'CPU architecture: 8\n', 'linux/arm/v8'],
  ['linux', 'arm', 'CPU architecture: AArch64\n', 'linux/arm/v8'],
  ['linux', 'arm', 'CPU architecture: 6TEJ\n', 'linux/arm/v6'],
  ['linux', 'arm', 'CPU architecture: 5TE\n', 'linux/arm/v5'],
  ['linux', 'arm', pi, 'linux/arm/v6'],
  ['darwin', 'arm64', undefined, 'linux/arm64'],
  ['freebsd', 'x64', undefined, 'freebsd/amd64'],
  ['win32', 'x64', undefined, 'windows/amd64'],
];

for (const [platform, arch, cpuinfo, expected] of hosts) {
  test(`Node's ${platform} on ${arch}${cpuinfo === undefined ? '' : ' with cpuinfo'} pulls ${expected}`, () => {
    assert.equal(formatPlatform(hostPlatform({ platform, arch, cpuinfo })), expected);
  });
}

test('any text is a platform that fits itself, or a UsageError', () => {
  const part = fc.constantFrom('linux', 'arm', 'arm64', 'amd64', 'v7', 'v8.2', 'v9', 'v99', '', ' ', 'x');
  fc.assert(
    fc.property(
      fc.oneof(
        fc.array(part, { maxLength: 4 }).map((parts) => parts.join('/')),
        fc.string(),
      ),
      (text) => {
        try {
          const platform = parsePlatform(text);
          assert.equal(platformRank(platform, platform), 0);
          assert.deepEqual(parsePlatform(formatPlatform(platform)), platform);
        } catch (error) {
          if (!(error instanceof UsageError)) throw error;
        }
      },
    ),
  );
});
