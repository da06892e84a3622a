import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cache, diff, exportArchive, inspect, pull, UsageError, verify } from '../src/index.ts';

const NOWHERE = 'nowhere.invalid/app';

const calls: readonly (readonly [what: string, call: (options: object) => Promise<unknown>])[] = [
  ['pull', (options) => pull(NOWHERE, options)],
  ['verify', (options) => verify(NOWHERE, options)],
  ['diff', (options) => diff(NOWHERE, NOWHERE, options)],
  ['inspect', (options) => inspect(NOWHERE, options)],
  ['exportArchive', (options) => exportArchive(NOWHERE, 'x.tar', options)],
  ['cache.add', (options) => cache.add(NOWHERE, options)],
  ['cache.size', (options) => cache.size(options)],
];

for (const [what, call] of calls) {
  test(`${what} refuses an option that no command has`, async () => {
    for (const [options, named] of [
      [{ plattform: 'linux/arm64' }, 'plattform'],
      [{ registry: { plainHTTP: true } }, 'registry.plainHTTP'],
      [{ registry: { credentials: { user: 'bob', password: '' } } }, 'registry.credentials.user'],
      [{ registry: { timeouts: { idle: 1 } } }, 'registry.timeouts.idle'],
      [{ signers: { verifyKey: ['cosign.pub'] } }, 'signers.verifyKey'],
      [{ platform: { os: 'linux', arch: 'arm64' } }, 'platform.arch'],
      [{ addOwner: { uid: 0, gid: 0, user: 0 } }, 'addOwner.user'],
      [{ idMappings: { uids: [], gids: [], ranges: [] } }, 'idMappings.ranges'],
      [{ environment: {}, 'no-cache': undefined }, 'no-cache'],
    ] as const) {
      await assert.rejects(call(options), (error) => {
        assert.ok(error instanceof UsageError, String(error));
        assert.deepEqual(
          [error.message, error.hint],
          [`unknown option: ${named}`, 'docs/library.md lists the options'],
        );
        return true;
      });
    }
  });
}
