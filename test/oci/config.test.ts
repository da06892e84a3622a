import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError } from '../../src/errors.ts';
import { parseConfig } from '../../src/oci/config.ts';

const diffID = `sha256:${'b'.repeat(64)}`;
const bytesOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

test('a config is read with the names of the specification', () => {
  const document = {
    os: 'linux',
    architecture: 'arm',
    variant: 'v6',
    created: '2024-01-01T00:00:00Z',
    author: 'me',
    rootfs: { type: 'layers', diff_ids: [diffID, diffID] },
    history: [
      { created: '2024-01-01T00:00:00Z', created_by: 'COPY x', comment: 'c', author: 'a' },
      { created_by: 'ENV x', empty_layer: true },
    ],
    config: {
      User: '1:2',
      Env: ['A=1', 'B='],
      Entrypoint: ['/init'],
      Cmd: ['sh', '-c'],
      WorkingDir: '/w',
      StopSignal: 'SIGINT',
      Volumes: { '/data': {} },
      ExposedPorts: { '80/tcp': {} },
      Labels: { a: 'b' },
    },
    unknown: 1,
  };
  const config = parseConfig(bytesOf(document));
  assert.deepEqual(config.platform, { os: 'linux', architecture: 'arm', variant: 'v6' });
  assert.equal(config.created, '2024-01-01T00:00:00Z');
  assert.equal(config.author, 'me');
  assert.deepEqual(config.diffIDs, [diffID, diffID]);
  assert.deepEqual(
    config.history.map((entry) => [entry.createdBy, entry.emptyLayer]),
    [
      ['COPY x', false],
      ['ENV x', true],
    ],
  );
  assert.deepEqual(config.config, {
    ...document.config,
    Volumes: ['/data'],
    ExposedPorts: ['80/tcp'],
  });
  assert.deepEqual(config.raw, document);
});

const lenient: readonly (readonly [string, unknown])[] = [
  ['an empty object', {}],
  [
    'nulls everywhere',
    { os: null, architecture: null, config: null, history: null, rootfs: null, created: null },
  ],
  ['nulls in the config', { config: { Env: null, Cmd: null, Volumes: null, Labels: null, User: null } }],
  ['a history of odd things', { history: [null, 'x', 1, [], {}] }],
  ['labels that are a list', { config: { Labels: ['a'], Env: { a: 1 }, User: 5, WorkingDir: [] } }],
  ['diff_ids that are null', { rootfs: { diff_ids: null } }],
];

for (const [name, document] of lenient) {
  test(`${name} is accepted`, () => {
    const config = parseConfig(bytesOf(document));
    assert.deepEqual(config.diffIDs, []);
    assert.equal(config.platform.os, '');
  });
}

test('a command may be a lone string, as Docker wrote it once', () => {
  assert.deepEqual(parseConfig(bytesOf({ config: { Cmd: 'sh', Entrypoint: '' } })).config.Cmd, ['sh']);
});

test('labels and variables keep any name', () => {
  const config = parseConfig(Buffer.from('{"config":{"Labels":{"__proto__":"x","constructor":"y","n":1}}}'));
  assert.deepEqual(Object.entries(config.config.Labels!), [
    ['__proto__', 'x'],
    ['constructor', 'y'],
  ]);
});

const refused: readonly (readonly [string, unknown, RegExp])[] = [
  ['a list', [], /not a JSON object/],
  ['diff_ids that are an object', { rootfs: { diff_ids: {} } }, /"rootfs.diff_ids" .* not an array/],
  ['a diffID that is a number', { rootfs: { diff_ids: [1] } }, /diff_ids\[0\].* not a string/],
  ['a diffID that is malformed', { rootfs: { diff_ids: [diffID, 'sha256:x'] } }, /diff_ids\[1\].*malformed/],
];

for (const [name, document, message] of refused) {
  test(`${name} is refused`, () => {
    assert.throws(() => parseConfig(bytesOf(document)), { name: 'IntegrityError', message });
  });
}

test('any document is a config or an IntegrityError', () => {
  const key = fc.constantFrom(
    'os',
    'rootfs',
    'diff_ids',
    'history',
    'config',
    'Env',
    'Labels',
    'created',
    '__proto__',
  );
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      fc.jsonValue({ maxDepth: 1 }),
      fc.constant([diffID]),
      tie('object'),
      fc.array(tie('object'), { maxLength: 2 }),
    ),
    object: fc.dictionary(key, tie('any'), { maxKeys: 4 }),
  }));
  fc.assert(
    fc.property(fc.oneof(value.object.map(bytesOf), fc.uint8Array()), (bytes) => {
      try {
        parseConfig(bytes);
      } catch (error) {
        if (!(error instanceof DlrootfsError)) throw error;
      }
    }),
    { numRuns: 1000 },
  );
});
