import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { entryCredential, findEntry, findHelpers } from '../../src/registry/auth/credentials.ts';

const entry = { auth: Buffer.from('user:pass').toString('base64') };

type Case = readonly [
  what: string,
  keys: readonly string[],
  registry: string,
  repository: string,
  found: string | undefined,
];

const table: readonly Case[] = [
  ['nothing', [], 'quay.io', 'a/b', undefined],
  ['the host', ['quay.io'], 'quay.io', 'a/b', 'quay.io'],
  ['another host', ['quay.io'], 'ghcr.io', 'a/b', undefined],
  ['the most specific key', ['quay.io', 'quay.io/a', 'quay.io/a/b'], 'quay.io', 'a/b', 'quay.io/a/b'],
  ['a parent namespace', ['quay.io', 'quay.io/a'], 'quay.io', 'a/b/c', 'quay.io/a'],
  ['a sibling repository', ['quay.io/a/b'], 'quay.io', 'a/c', undefined],
  ['a name that only begins alike', ['quay.io/a'], 'quay.io', 'ab/c', undefined],
  ['a port', ['localhost:5000'], 'localhost:5000', 'a', 'localhost:5000'],
  ['another port', ['localhost:5000'], 'localhost:5001', 'a', undefined],
  ['no port for a port', ['localhost'], 'localhost:5000', 'a', undefined],
  ['an address of docker', ['https://quay.io/v1/'], 'quay.io', 'a/b', 'https://quay.io/v1/'],
  ['an address with another path', ['https://quay.io/a'], 'quay.io', 'b', undefined],
  [
    "Hub's key",
    ['https://index.docker.io/v1/'],
    'docker.io',
    'library/alpine',
    'https://index.docker.io/v1/',
  ],
  ["Hub's alias", ['index.docker.io'], 'docker.io', 'library/alpine', 'index.docker.io'],
  ["Hub's API host", ['registry-1.docker.io'], 'docker.io', 'library/alpine', 'registry-1.docker.io'],
  [
    "Hub's plain name before its address",
    ['https://index.docker.io/v1/', 'docker.io'],
    'docker.io',
    'a/b',
    'docker.io',
  ],
  ['a Hub namespace', ['docker.io', 'docker.io/team'], 'docker.io', 'team/app', 'docker.io/team'],
  [
    'a Hub namespace by an alias',
    ['index.docker.io/team', 'docker.io'],
    'docker.io',
    'team/app',
    'index.docker.io/team',
  ],
  ["Hub's key is not another registry's", ['https://index.docker.io/v1/'], 'quay.io', 'a', undefined],
  ['upper case in a host', ['Quay.IO'], 'quay.io', 'a', 'Quay.IO'],
];

for (const [what, keys, registry, repository, found] of table) {
  test(`auth file: ${what}`, () => {
    const file = { auths: Object.fromEntries(keys.map((key) => [key, entry])) };
    assert.equal(findEntry(file, registry, repository)?.key, found);
  });
}

test('auth file: an entry without content only marks a log-in', () => {
  const file = { auths: { 'quay.io': {}, 'quay.io/a': {}, 'https://quay.io': entry } };
  assert.equal(findEntry(file, 'quay.io', 'a/b')?.key, 'https://quay.io');
});

test('auth file: helpers are found by host, Hub by any of its names', () => {
  const file = {
    credHelpers: { 'quay.io': 'q', 'https://index.docker.io/v1/': 'hub', 'gcr.io': 7, 'ghcr.io': '' },
    credsStore: 'store',
  };
  const hub = 'https://index.docker.io/v1/';
  const [own, store] = findHelpers(file, 'quay.io');
  assert.deepEqual(own, { name: 'q', key: 'quay.io' });
  assert.deepEqual(store, { name: 'store', key: 'quay.io' });
  const [ownOfHub, storeOfHub] = findHelpers(file, 'docker.io');
  assert.deepEqual(ownOfHub, { name: 'hub', key: hub });
  assert.deepEqual(storeOfHub, { name: 'store', key: hub });
  assert.deepEqual(findHelpers(file, 'gcr.io'), [{ name: 'store', key: 'gcr.io' }]);
  assert.deepEqual(findHelpers(file, 'ghcr.io'), [{ name: 'store', key: 'ghcr.io' }]);
  assert.deepEqual(findHelpers({}, 'quay.io'), []);
});

test('auth file: the form of docker before 1.7', () => {
  assert.equal(findEntry({ auths: { 'quay.io': entry } }, 'quay.io', 'a')?.key, 'quay.io');
});

const base64 = (text: string) => Buffer.from(text).toString('base64');

const entries: readonly (readonly [what: string, entry: Record<string, unknown>, expected: unknown])[] = [
  [
    'user and password',
    { auth: base64('u:p') },
    { kind: 'password', username: 'u', password: 'p', source: 's' },
  ],
  [
    'a colon in the password',
    { auth: base64('u:p:q') },
    { kind: 'password', username: 'u', password: 'p:q', source: 's' },
  ],
  [
    'NUL bytes at the end',
    { auth: base64('u:p\0\0') },
    { kind: 'password', username: 'u', password: 'p', source: 's' },
  ],
  [
    'plain members',
    { username: 'u', password: 'p' },
    { kind: 'password', username: 'u', password: 'p', source: 's' },
  ],
  [
    'an identity token before auth',
    { auth: base64('u:'), identitytoken: 't' },
    { kind: 'identity-token', token: 't', source: 's' },
  ],
  [
    'a registry token first',
    { identitytoken: 'i', registrytoken: 'r' },
    { kind: 'registry-token', token: 'r', source: 's' },
  ],
  ['a mark', { email: 'a@b' }, undefined],
];

for (const [what, value, expected] of entries) {
  test(`auth entry: ${what}`, () => {
    assert.deepEqual(entryCredential(value, 's'), expected);
  });
}

for (const auth of ['', '%%%', base64('nocolon'), base64(':p')].filter(Boolean)) {
  test(`auth entry: ${auth} is refused without repeating it`, () => {
    assert.throws(
      () => entryCredential({ auth }, 's'),
      (error) => error instanceof Error && !error.message.includes(auth),
    );
  });
}

test('auth file: any JSON is read without an error', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.string(), fc.string(), (value, registry, repository) => {
      const document = { auths: value, credHelpers: value, credsStore: value };
      for (const file of [value, document, { auths: value }]) {
        findEntry(file, registry, repository);
        findHelpers(file, registry);
      }
    }),
    { numRuns: 300 },
  );
});

test('auth file: of keys that are prefixes of the name the longest wins, whatever their order', () => {
  const part = fc.stringMatching(/^[a-z]{1,3}$/);
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 1, maxLength: 4 }),
      fc.array(fc.nat(4), { minLength: 1 }),
      (parts, depths) => {
        const key = (depth: number) => ['quay.io', ...parts.slice(0, depth)].join('/');
        const keys = depths.map((depth) => key(Math.min(depth, parts.length)));
        const file = { auths: Object.fromEntries(keys.map((each) => [each, entry])) };
        const longest = keys.reduce((a, b) => (a.length >= b.length ? a : b));
        assert.equal(findEntry(file, 'quay.io', parts.join('/'))?.key, longest);
      },
    ),
    { numRuns: 200 },
  );
});
