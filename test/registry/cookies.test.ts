import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Cookies, parseSetCookie } from '../../src/registry/v1-answers.ts';

const now = Date.parse('2020-01-01T00:00:00Z');

type Case = readonly [
  header: string,
  name: string | undefined,
  value?: string,
  path?: string,
  over?: boolean,
];

const cases: readonly Case[] = [
  ['session=abc', 'session', 'abc', '/', false],
  ['session=abc; Path=/v1/; HttpOnly; Secure', 'session', 'abc', '/v1/', false],
  ['a=b=c', 'a', 'b=c', '/', false],
  [' a = "quoted" ;path=relative', 'a', '"quoted"', '/', false],
  ['a=', 'a', '', '/', false],
  ['a=1; Max-Age=0', 'a', '1', '/', true],
  ['a=1; Max-Age=-5', 'a', '1', '/', true],
  ['a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT', 'a', '1', '/', false],
  ['a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT', 'a', '1', '/', true],
  ['a=1; Expires=Thu, 01 Jan 2099 00:00:00 GMT', 'a', '1', '/', false],
  ['a=1; Expires=whenever', 'a', '1', '/', false],
  ['a=1; Domain=example.com', 'a', '1', '/', false],
  ['', undefined],
  ['novalue', undefined],
  ['=1', undefined],
  ['a b=1', undefined],
  ['a=\u0001', undefined],
  ['a=ü', undefined],
  [`a=${'x'.repeat(5000)}`, undefined],
];

for (const [header, name, value, path, over] of cases) {
  test(`Set-Cookie: ${JSON.stringify(header.slice(0, 60))}`, () => {
    const parsed = parseSetCookie(header, now);
    assert.deepEqual(parsed, name === undefined ? undefined : { name, cookie: { value, path }, over });
  });
}

const origin = new URL('https://a.example.com/v1/images/x/json');

test('cookies go back in the order they were set, the last value of each', () => {
  const cookies = new Cookies();
  cookies.take(origin, ['a=1', 'b=2']);
  cookies.take(origin, ['a=3']);
  assert.equal(cookies.header(origin), 'a=3; b=2');
  cookies.take(origin, ['a=; Max-Age=0', 'b=; Max-Age=0']);
  assert.equal(cookies.header(origin), undefined);
});

for (const other of [
  'http://a.example.com/',
  'https://a.example.com:444/',
  'https://b.example.com/',
  'https://example.com/',
  'https://x.a.example.com/',
]) {
  test(`a cookie of a.example.com is not for ${other}, whatever it says`, () => {
    const cookies = new Cookies();
    cookies.take(origin, ['a=1; Domain=example.com', 'b=1; Domain=.example.com']);
    assert.equal(cookies.header(new URL(other)), undefined);
  });
}

for (const [path, asked, sent] of [
  ['/', '/v1/x', true],
  ['/v1', '/v1', true],
  ['/v1', '/v1/x', true],
  ['/v1/', '/v1/x', true],
  ['/v1', '/v10', false],
  ['/v2', '/v1', false],
] as const) {
  test(`a cookie for ${path} is ${sent ? '' : 'not '}sent to ${asked}`, () => {
    const cookies = new Cookies();
    cookies.take(origin, [`a=1; Path=${path}`]);
    assert.equal(cookies.header(new URL(asked, origin)), sent ? 'a=1' : undefined);
  });
}

test('one server may set fifty cookies', () => {
  const cookies = new Cookies();
  cookies.take(
    origin,
    Array.from({ length: 1000 }, (_, n) => `c${n}=${n}`),
  );
  assert.equal(cookies.header(origin)!.split('; ').length, 50);
});

test('property: whatever is set, what is sent is a header that can be sent', () => {
  const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }));
  const header = fc.oneof(
    text,
    fc.tuple(text, text, text).map(([name, value, rest]) => `${name}=${value};${rest}`),
  );
  fc.assert(
    fc.property(fc.array(header), (headers) => {
      const cookies = new Cookies();
      cookies.take(origin, headers);
      const sent = cookies.header(origin);
      if (sent !== undefined) assert.match(sent, /^[\x20-\x7e]+$/);
    }),
  );
});
