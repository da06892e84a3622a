import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { UsageError } from '../../src/errors.ts';
import { Reference } from '../../src/oci/reference.ts';
import {
  findTable,
  locationsOf,
  readRegistriesConf,
  registryTables,
} from '../../src/registry/config/registries-conf.ts';
import { Scratch } from '../support/program.ts';

function tables(...registry: readonly Record<string, unknown>[]) {
  return registryTables({ registry });
}

function places(
  text: string,
  mirrors: readonly string[],
  ...registry: readonly Record<string, unknown>[]
): string[] {
  return locationsOf(Reference.parse(text), mirrors, tables(...registry)).map(
    ({ registry: host, repository, insecure, plainHttp, mirrorOf }) =>
      [
        `${host}/${repository}`,
        insecure && 'insecure',
        plainHttp && 'http',
        mirrorOf !== undefined && 'mirror',
      ]
        .filter(Boolean)
        .join(' '),
  );
}

const digest = `sha256:${'a'.repeat(64)}`;

test('without configuration there is the registry alone', () => {
  assert.deepEqual(places('alpine', []), ['docker.io/library/alpine']);
});

test('mirrors of the command line come first, in order', () => {
  assert.deepEqual(
    places('alpine', ['mirror.example.com', 'http://localhost:5000/hub/', 'https://m.example.com/v2/']),
    [
      'mirror.example.com/library/alpine mirror',
      'localhost:5000/hub/library/alpine http mirror',
      'm.example.com/library/alpine mirror',
      'docker.io/library/alpine',
    ],
  );
});

for (const mirror of ['', 'ftp://a', 'https://', 'https://user:secret@a', 'a?b', 'a b']) {
  test(`the mirror "${mirror}" is a usage error without its text`, () => {
    assert.throws(
      () => places('alpine', [mirror]),
      (error) => error instanceof UsageError && !error.message.includes('secret'),
    );
  });
}

test('the longest prefix wins, and location stands for it', () => {
  const conf = [
    { prefix: 'quay.io', location: 'a.example.com' },
    { prefix: 'quay.io/team', location: 'b.example.com/x', insecure: true },
  ];
  assert.deepEqual(places('quay.io/team/app:1', [], ...conf), ['b.example.com/x/app insecure']);
  assert.deepEqual(places('quay.io/teams/app:1', [], ...conf), ['a.example.com/teams/app']);
  assert.deepEqual(places('quay.io.example.com/app', [], ...conf), ['quay.io.example.com/app']);
});

test('a prefix may name one repository, one tag or all hosts of a domain', () => {
  assert.deepEqual(places('quay.io/a/b', [], { prefix: 'quay.io/a/b', location: 'c.io/d' }), ['c.io/d']);
  assert.deepEqual(places('quay.io/a/b:1', [], { prefix: 'quay.io/a/b:1', insecure: true }), [
    'quay.io/a/b insecure',
  ]);
  assert.deepEqual(
    places('x.corp.example:5000/a', [], { prefix: '*.corp.example', location: 'hub.example' }),
    ['hub.example/a'],
  );
  assert.deepEqual(places('corp.example/a', [], { prefix: '*.corp.example', insecure: true }), [
    'corp.example/a',
  ]);
});

test('mirrors of the table come before its location, and may be for tags or digests only', () => {
  const conf = {
    location: 'quay.io',
    mirror: [
      { location: 'all.example.com/q' },
      { location: 'tags.example.com', 'pull-from-mirror': 'tag-only', insecure: true },
      { location: 'digests.example.com', 'pull-from-mirror': 'digest-only' },
      { insecure: true },
    ],
  };
  assert.deepEqual(places('quay.io/a', [], conf), [
    'all.example.com/q/a mirror',
    'tags.example.com/a insecure mirror',
    'quay.io/a',
  ]);
  assert.deepEqual(places(`quay.io/a@${digest}`, [], conf), [
    'all.example.com/q/a mirror',
    'digests.example.com/a mirror',
    'quay.io/a',
  ]);
  assert.deepEqual(places('quay.io/a', [], { ...conf, 'mirror-by-digest-only': true }), ['quay.io/a']);
});

test('what is blocked is a usage error that names the prefix', () => {
  assert.throws(
    () => places('docker.io/library/alpine', [], { prefix: 'docker.io', blocked: true }),
    (error) => error instanceof UsageError && /docker\.io is blocked/.test(error.message),
  );
});

test('a location that leaves no repository is a usage error', () => {
  assert.throws(() => places('quay.io/a', [], { prefix: 'quay.io/a', location: 'host' }), UsageError);
});

for (const [name, table] of Object.entries<Readonly<Record<string, unknown>>>({
  'a port follows the prefix': { prefix: 'quay.io', location: 'example.com/mirror' },
  'dots in the location': { prefix: 'quay.io:443', location: 'example.com/../mirror' },
  'a mirror': { prefix: 'quay.io', mirror: [{ location: 'example.com/mirror' }] },
}))
  test(`a location that leaves a name no repository can have is a usage error: ${name}`, () => {
    assert.throws(() => places('quay.io:443/a', [], table), UsageError);
  });

for (const location of ['1.2.3.4.5', 'me:secret@host', 'host?x', 'host#x', 'ho st', 'host:99999']) {
  test(`a location that is no registry is a usage error: "${location}"`, () => {
    assert.throws(
      () => places('quay.io/a', [], { prefix: 'quay.io', location }),
      (error) => error instanceof UsageError && !error.message.includes('secret'),
    );
  });
}

test('any document is read without an error', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      findTable(registryTables(value), Reference.parse('alpine'));
      findTable(
        registryTables({ registry: [value, { prefix: value, location: value, mirror: value }] }),
        Reference.parse('a.b/c'),
      );
    }),
    { numRuns: 300 },
  );
});

test('the table that is found has a prefix of the name, and none that matches is longer', () => {
  const name = fc.constantFrom(
    'quay.io',
    'quay.io/a',
    'quay.io/a/b',
    'quay.io/ab',
    '*.io',
    'docker.io',
    'quay.io/a/b:1',
  );
  fc.assert(
    fc.property(fc.array(name, { maxLength: 6 }), (prefixes) => {
      const reference = Reference.parse('quay.io/a/b:1');
      const found = findTable(tables(...prefixes.map((prefix) => ({ prefix }))), reference);
      const fitting = prefixes.filter((prefix) => !['quay.io/ab', 'docker.io'].includes(prefix));
      assert.equal(found?.prefix.length ?? 0, Math.max(0, ...fitting.map((prefix) => prefix.length)));
    }),
    { numRuns: 200 },
  );
});

function write(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    writeFileSync(path.join(directory, name), text);
  }
}

const table = (prefix: string, location: string) =>
  `[[registry]]\nprefix = "${prefix}"\nlocation = "${location}"\n`;

test('files: the user’s instead of the system’s, drop-ins of both, later ones win', async () => {
  using scratch = new Scratch();
  write(scratch.path, {
    'etc/containers/registries.conf': table('a.io', 'system'),
    'etc/containers/registries.conf.d/10-x.conf': table('b.io', 'first') + table('c.io', 'first'),
    'etc/containers/registries.conf.d/20-y.conf': table('b.io', 'second'),
    'etc/containers/registries.conf.d/ignored': 'not TOML [[registry',
  });
  const options = { environment: { HOME: scratch.join('home') }, configDirs: [scratch.join('etc')] };
  const locations = async () => {
    const all = await readRegistriesConf(options);
    return ['a.io/x', 'b.io/x', 'c.io/x'].map((name) => findTable(all, Reference.parse(name))?.['location']);
  };
  assert.deepEqual(await locations(), ['system', 'second', 'first']);
  write(scratch.path, {
    'home/.config/containers/registries.conf': table('b.io', 'user'),
    'home/.config/containers/registries.conf.d/30-z.conf': table('c.io', 'mine'),
  });
  assert.deepEqual(await locations(), [undefined, 'second', 'mine']);
  const named = {
    ...options,
    environment: { CONTAINERS_REGISTRIES_CONF: scratch.join('etc/containers/registries.conf') },
  };
  assert.equal(findTable(await readRegistriesConf(named), Reference.parse('a.io/x'))?.['location'], 'system');
});

test('files: what is not TOML is a usage error that names the file', async () => {
  using scratch = new Scratch();
  write(scratch.path, { 'containers/registries.conf': '[[registry]]\nprefix = \n' });
  await assert.rejects(
    readRegistriesConf({ environment: {}, configDirs: [scratch.path] }),
    (error) => error instanceof UsageError && error.message.includes('registries.conf'),
  );
});

test('files: none costs nothing and changes nothing', async () => {
  const options = { environment: {}, configDirs: ['/nonexistent'], report: () => undefined };
  assert.equal(locationsOf(Reference.parse('quay.io/a'), [], await readRegistriesConf(options)).length, 1);
});
