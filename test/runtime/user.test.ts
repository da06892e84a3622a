import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IntegrityError } from '../../src/errors.ts';
import { resolveUser } from '../../src/runtime/container.ts';

const accounts = {
  passwd: [
    'root:x:0:0:root:/root:/bin/sh',
    '# comment:x:9:9::/:',
    'app:x:1000:1001:App:/srv/app:/bin/false',
    'app:x:2000:2000:second:/nowhere:/bin/sh',
    '7:x:700:701::/seven:',
    'broken:x:abc:1:::',
    'huge:x:99999999999:1:::',
    '+nis::::::',
  ].join('\n'),
  group: [
    'root:x:0:',
    'app:x:1001:',
    'wheel:x:10:root,app',
    'video:x:44:app',
    'broken:x:z:app',
    'adm:x:4:other',
  ].join('\n'),
};

const app = { uid: 1000, gid: 1001, groups: [10, 44], name: 'app', home: '/srv/app' };
const rows: readonly (readonly [what: string, user: string, found: object])[] = [
  [
    'no user is root, with the groups that list it',
    '',
    { uid: 0, gid: 0, groups: [10], name: 'root', home: '/root' },
  ],
  ['a name brings group, groups and home', 'app', app],
  ['a number that passwd has brings the same', '1000', app],
  ['a number that passwd has not stands for itself', '4242', { uid: 4242, gid: 0, groups: [], home: '/' }],
  [
    'a name of digits wins over the number',
    '7',
    { uid: 700, gid: 701, groups: [], name: '7', home: '/seven' },
  ],
  ['a group by name, and no others then', 'app:video', { ...app, gid: 44, groups: [] }],
  ['a group by number', 'app:5555', { ...app, gid: 5555, groups: [] }],
  ['numbers alone', '12:34', { uid: 12, gid: 34, groups: [], home: '/' }],
  ['an empty user with a group', ':video', { uid: 0, gid: 44, groups: [], name: 'root', home: '/root' }],
  ['an empty group is none', 'app:', app],
  ['the largest id', '4294967294', { uid: 4294967294, gid: 0, groups: [], home: '/' }],
];

for (const [what, text, found] of rows) {
  test(`user ${JSON.stringify(text)}: ${what}`, () => {
    assert.deepEqual({ name: undefined, ...resolveUser(text, accounts) }, { name: undefined, ...found });
  });
}

for (const text of [
  'nobody',
  '4294967295',
  '-1',
  '1e3',
  'app:nogroup',
  'broken',
  'huge',
  'app:-1',
  'a\u001b[2J',
]) {
  test(`user ${JSON.stringify(text)} is not in the image`, () => {
    assert.throws(
      () => resolveUser(text, accounts),
      (error) => error instanceof IntegrityError && !error.message.includes('\u001b'),
    );
  });
}

test('an image without passwd and group still has numbers', () => {
  const none = { passwd: '', group: '' };
  assert.deepEqual(resolveUser('1:2', none), { uid: 1, gid: 2, groups: [], name: undefined, home: '/' });
  assert.throws(() => resolveUser('root', none), IntegrityError);
});
